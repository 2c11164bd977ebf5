//! Shedding on a server.

use crate::{
    Adaptive, Criticality,
    body::ResponseBody,
    entry::Entering,
    limiter::{Entry, Limiter},
};
use cinchona_core::{
    Deadline, Invalid, Mode, Rng, Switch,
    clock::{millis, times},
    deadline::parse_timeout,
    is_of_the_server,
};
use http::{HeaderValue, Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use rand::RngExt;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::Instant;
use tonic::{Status, server::NamedService};
use tower_layer::Layer;
use tower_service::Service;

/// Applies [`Shed`] to a server.
#[derive(Clone, Debug)]
pub struct ShedLayer {
    limit: Limit,
    shared: Arc<Shared>,
}

/// Turns away the calls that are more than the service can do.
#[derive(Clone, Debug)]
pub struct Shed<S> {
    inner: S,
    shared: Arc<Shared>,
}

/// How many calls may be in progress.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// So many; at least 1.
    Fixed(u32),
    /// As many as the service can do.
    Adaptive(Adaptive),
}

/// Who waits for a place, and for how long: a CoDel queue as Meta runs it ([Fail at Scale]).
///
/// [Fail at Scale]: https://queue.acm.org/detail.cfm?id=2839461
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// How many wait at most. Default 100.
    pub capacity: u32,
    /// How long each waits at most. Default 100 ms; `Duration::MAX` for as long as its caller does.
    pub longest: Duration,
    /// How long each waits at most while the queue does not get empty. Default 5 ms.
    pub target: Duration,
    /// After how long without being empty that is. Default 100 ms.
    pub interval: Duration,
}

#[derive(Debug)]
struct Shared {
    limiter: Arc<Limiter>,
    pushback: Duration,
    switch: Switch,
    rng: Rng,
}

pin_project! {
    /// The future of a [`Shed`] call.
    pub struct ResponseFuture<S, B, F> {
        #[pin]
        entering: Entering<S, B, F>,
        // Who answers if it is turned away: nobody where it is let in at once.
        refusing: Option<(Arc<Shared>, Criticality)>,
    }
}

// === impl ShedLayer ===

impl ShedLayer {
    /// Limits the calls in progress.
    ///
    /// # Errors
    /// When the limit is 0, or a setting of an adaptive one is outside its range.
    pub fn new(limit: Limit) -> Result<Self, Invalid> {
        limit.checked().map(Self::of)
    }

    fn of(limit: Limit) -> Self {
        let pushback = Duration::from_millis(100);
        let (switch, rng) = (Switch::default(), Rng::from_os());
        let limiter = Limiter::new(limit, Queue::default(), Instant::now());
        Self { limit, shared: Arc::new(Shared { limiter, pushback, switch, rng }) }
    }

    /// Lets calls wait as `queue` says.
    pub fn with_queue(mut self, queue: Queue) -> Self {
        let limiter = Limiter::new(self.limit, queue, Instant::now());
        self.shared = Arc::new(Shared { limiter, ..self.shared.copy() });
        self
    }

    /// Asks those who are turned away to stay away for about so long: half to one and a half times,
    /// so that they do not come back together. Default 100 ms; up to 1 h.
    ///
    /// # Errors
    /// When it is longer.
    pub fn with_pushback(mut self, pushback: Duration) -> Result<Self, Invalid> {
        if pushback > Duration::from_secs(3600) {
            return Err(Invalid::new("pushback", format!("{pushback:?}"), "0s to 1h"));
        }
        self.shared = Arc::new(Shared { pushback, ..self.shared.copy() });
        Ok(self)
    }

    /// Lets `switch` decide whether calls are turned away, only counted, or not looked at.
    pub fn with_switch(mut self, switch: Switch) -> Self {
        self.shared = Arc::new(Shared { switch, ..self.shared.copy() });
        self
    }

    /// Draws the pushback from `rng`.
    pub fn with_rng(mut self, rng: Rng) -> Self {
        self.shared = Arc::new(Shared { rng, ..self.shared.copy() });
        self
    }

    /// How many calls may be in progress now.
    pub fn limit(&self) -> u32 {
        self.shared.limiter.limit()
    }

    /// How many are in progress.
    pub fn in_progress(&self) -> u32 {
        self.shared.limiter.in_progress()
    }

    /// How many wait.
    pub fn waiting(&self) -> u32 {
        self.shared.limiter.waiting()
    }

    /// How many were turned away.
    pub fn shed(&self) -> u64 {
        Criticality::ALL.into_iter().map(|class| self.shed_of(class)).sum()
    }

    /// How many of this criticality were turned away.
    pub fn shed_of(&self, criticality: Criticality) -> u64 {
        self.shared.limiter.shed(criticality)
    }
}

impl Default for ShedLayer {
    /// As many calls as the service can do, see [`Adaptive`].
    fn default() -> Self {
        Self::of(Limit::default())
    }
}

impl<S> Layer<S> for ShedLayer {
    type Service = Shed<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Shed { inner, shared: self.shared.clone() }
    }
}

// === impl Shed ===

impl<S, B, ResBody> Service<Request<B>> for Shed<S>
where
    S: Service<Request<B>, Response = Response<ResBody>> + Clone,
    ResBody: Body,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, B, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let shared = &self.shared;
        let mode = shared.switch.mode();
        if mode == Mode::Off || is_of_the_server(request.uri().path()) {
            let entering = Entering::unlimited(&mut self.inner, request);
            return ResponseFuture { entering, refusing: None };
        }
        let criticality = Criticality::of(request.headers());
        match shared.limiter.enter(criticality) {
            admitted @ Entry::Admitted(_) => {
                let entering = Entering::new(admitted, &mut self.inner, request, None);
                ResponseFuture { entering, refusing: None }
            }
            _ if mode == Mode::Shadow => {
                shared.switch.count();
                let entering = Entering::unlimited(&mut self.inner, request);
                ResponseFuture { entering, refusing: None }
            }
            entry => {
                let timeout = parse_timeout(request.headers()).ok().flatten();
                let after = |timeout| Deadline::after(timeout, Instant::now()).0;
                let refusing = Some((shared.clone(), criticality));
                let entering = Entering::new(entry, &mut self.inner, request, timeout.map(after));
                ResponseFuture { entering, refusing }
            }
        }
    }
}

impl<S: NamedService> NamedService for Shed<S> {
    const NAME: &'static str = S::NAME;
}

// === impl Limit ===

impl Limit {
    pub(crate) fn checked(self) -> Result<Self, Invalid> {
        match self {
            Self::Fixed(0) => Err(Invalid::new("limit", 0, "at least 1")),
            Self::Fixed(limit) => Ok(Self::Fixed(limit)),
            Self::Adaptive(settings) => settings.checked().map(Self::Adaptive),
        }
    }

    pub(crate) const fn initial(&self) -> u32 {
        match self {
            Self::Fixed(limit) => *limit,
            Self::Adaptive(settings) => settings.initial,
        }
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self::Adaptive(Adaptive::default())
    }
}

// === impl Queue ===

impl Queue {
    /// Nobody waits.
    pub const fn none() -> Self {
        let none = Duration::ZERO;
        Self { capacity: 0, longest: none, target: none, interval: none }
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            capacity: 100,
            longest: Duration::from_millis(100),
            target: Duration::from_millis(5),
            interval: Duration::from_millis(100),
        }
    }
}

// === impl Shared ===

impl Shared {
    fn copy(&self) -> Self {
        let Self { limiter, pushback, switch, rng } = self;
        let (limiter, switch, rng) = (limiter.clone(), switch.clone(), rng.clone());
        Self { limiter, pushback: *pushback, switch, rng }
    }

    /// What is answered to who is turned away.
    fn refusal<B: Body>(&self, criticality: Criticality) -> Response<ResponseBody<B>> {
        self.limiter.count_shed(criticality);
        tracing::debug!(criticality = criticality.name(), limit = self.limiter.limit(), "shed");
        let wait = times(self.pushback, self.rng.draw().random_range(0.5..1.5));
        let status = Status::unavailable("overloaded; not processed, another server may have room");
        let mut response = status.into_http::<()>();
        let wait = HeaderValue::from(millis(wait));
        response.headers_mut().insert("grpc-retry-pushback-ms", wait);
        response.map(|()| ResponseBody::empty())
    }
}

// === impl ResponseFuture ===

impl<S, B, ResBody> Future for ResponseFuture<S, B, S::Future>
where
    S: Service<Request<B>, Response = Response<ResBody>>,
    ResBody: Body,
{
    type Output = Result<Response<ResponseBody<ResBody>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match (ready!(this.entering.poll(cx)), this.refusing) {
            (Some(answered), _) => Poll::Ready(answered),
            (None, Some((shared, criticality))) => Poll::Ready(Ok(shared.refusal(*criticality))),
            // Whoever is let in is not turned away.
            (None, None) => Poll::Pending,
        }
    }
}

impl<S, B, F> fmt::Debug for ResponseFuture<S, B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
