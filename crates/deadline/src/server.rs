//! The deadline of a call that is served.

use crate::limits::Kinds;
use bytes::Bytes;
use cinchona_core::{BoxError, Deadline, MethodKind, Mode, ServerContext, Switch};
use cinchona_plumbing::{Latency, Reloadable, status};
use hashbrown::HashMap;
use http_body::{Body as HttpBody, Frame};
use pin_project_lite::pin_project;
use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    task::futures::TaskLocalFuture,
    time::{Instant, Sleep, sleep_until},
};
use tonic::{Status, body::Body, server::NamedService};
use tower_layer::Layer;
use tower_service::Service;

/// Applies [`ServerDeadline`] to a server, or to a single service.
#[derive(Clone, Debug)]
pub struct ServerDeadlineLayer {
    settings: Arc<Settings>,
}

/// Ends the work on a call at its deadline, and does not begin what cannot be done in time.
///
/// * The deadline is the caller's `grpc-timeout`, or the configured limit if that is earlier; once
///   a response has begun, the caller's alone. A malformed one is answered with `INTERNAL`, as
///   gRPC's servers do; one that has passed with `DEADLINE_EXCEEDED`, and the handler is not
///   called.
/// * At the deadline the handler is dropped, a stream is ended, and the answer is
///   `DEADLINE_EXCEEDED`.
/// * The handler finds the deadline in the request's extensions ([`Deadline`]); the calls it makes
///   in its own task inherit it by themselves ([`ServerContext`]).
/// * A failure that the handler passes on from a call of its own is passed on without what the
///   other server said to *its* caller ([`status::strip`]).
/// * A call with less time left than the fastest hundredth of its method's calls takes is
///   *hopeless*. By default it is only counted.
#[derive(Clone, Debug)]
pub struct ServerDeadline<S> {
    inner: S,
    settings: Arc<Settings>,
    kinds: Kinds,
}

#[derive(Debug)]
struct Settings {
    limit: Option<Duration>,
    hopeless: Switch,
    switch: Switch,
    /// Read by every call, and written when a method is first called.
    fastest: Reloadable<HashMap<Box<str>, Arc<Latency>>>,
    writing: Mutex<()>,
}

/// When a call ends; its timer is made when there is something to wait for.
#[derive(Debug)]
struct End {
    at: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

pin_project! {
    /// The future of a [`ServerDeadline`] call.
    pub struct ServerFuture<F> {
        #[pin]
        work: Work<F>,
        end: Option<End>,
        whole: Option<Deadline>,
        inbound: ServerContext,
        began: Instant,
        latency: Option<Arc<Latency>>,
    }
}

pin_project! {
    #[project = WorkProj]
    enum Work<F> {
        /// The layer is off.
        Bare { #[pin] handler: F },
        Handler { #[pin] handler: TaskLocalFuture<ServerContext, F> },
        Refused { refused: Option<Status> },
    }
}

/// A response body that ends at the deadline, with `DEADLINE_EXCEEDED` in its trailers.
pub struct ServerBody {
    inner: Option<Body>,
    end: Option<End>,
    /// The caller's deadline, until it is the end.
    whole: Option<Option<Deadline>>,
    inbound: ServerContext,
}

/// What is admitted: until when it must have begun to be answered, and ended, and where to record
/// how long it took.
type Admitted = (Option<Deadline>, Option<Deadline>, Option<Arc<Latency>>);

/// More methods than a server has; what strangers make up is not remembered.
const MOST_METHODS: usize = 1000;

/// A tick before the transport's own timer, which would say `CANCELLED`.
const TICK: Duration = Duration::from_millis(1);

// === impl ServerDeadlineLayer ===

impl ServerDeadlineLayer {
    /// Enforces the callers' deadlines, and counts the calls that are hopeless.
    pub fn new() -> Self {
        Self {
            settings: Arc::new(Settings::new(None, Switch::new(Mode::Shadow), Switch::default())),
        }
    }

    /// Ends every call that has not been answered after `limit`, uploads included; of a stream the
    /// first message. Any duration is valid: a millisecond or less ends all calls, ten years or
    /// more are for ever.
    #[must_use]
    pub fn with_limit(self, limit: Duration) -> Self {
        let Settings { hopeless, switch, .. } = &*self.settings;
        Self::of(Some(limit), hopeless, switch)
    }

    /// Lets `switch` decide whether hopeless calls are refused, only counted, or not looked for.
    #[must_use]
    pub fn with_hopeless(self, switch: Switch) -> Self {
        Self::of(self.settings.limit, &switch, &self.settings.switch)
    }

    /// Lets `switch` decide whether deadlines are kept; in shadow they are.
    #[must_use]
    pub fn with_switch(self, switch: Switch) -> Self {
        Self::of(self.settings.limit, &self.settings.hopeless, &switch)
    }

    fn of(limit: Option<Duration>, hopeless: &Switch, switch: &Switch) -> Self {
        Self { settings: Arc::new(Settings::new(limit, hopeless.clone(), switch.clone())) }
    }
}

impl Default for ServerDeadlineLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for ServerDeadlineLayer {
    type Service = ServerDeadline<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ServerDeadline { inner, settings: self.settings.clone(), kinds: Kinds::new(None) }
    }
}

// === impl ServerDeadline ===

impl<S, B, R> Service<http::Request<B>> for ServerDeadline<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    R: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = ServerFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let now = Instant::now();
        if self.settings.switch.mode() == Mode::Off {
            let inbound = ServerContext { deadline: None, previous_attempts: 0 };
            let work = Work::Bare { handler: self.inner.call(request) };
            let (end, whole, latency) = (None, None, None);
            return ServerFuture { work, end, whole, inbound, began: now, latency };
        }
        let previous_attempts = status::previous_attempts(request.headers());
        let (first, whole, latency) = match self.settings.admit(&request, now) {
            Ok(admitted) => admitted,
            Err(refused) => {
                let work = Work::Refused { refused: Some(refused) };
                let inbound = ServerContext { deadline: None, previous_attempts };
                let (end, whole, latency) = (None, None, None);
                return ServerFuture { work, end, whole, inbound, began: now, latency };
            }
        };
        // What the handler of a stream does may last as long as the stream.
        let kind = self.kinds.of(&request);
        let streams = kind.is_some_and(MethodKind::streams_responses);
        let inbound =
            ServerContext { deadline: if streams { whole } else { first }, previous_attempts };
        if let Some(deadline) = inbound.deadline {
            request.extensions_mut().insert(deadline);
        }
        let handler = inbound.within(|| self.inner.call(request));
        let work = Work::Handler { handler: inbound.scope(handler) };
        let end = first.map(|first| End::at(first.0 - TICK));
        ServerFuture { work, end, whole, inbound, began: now, latency }
    }
}

impl<S: NamedService> NamedService for ServerDeadline<S> {
    const NAME: &'static str = S::NAME;
}

// === impl Settings ===

impl Settings {
    fn new(limit: Option<Duration>, hopeless: Switch, switch: Switch) -> Self {
        let fastest = Reloadable::new(HashMap::new());
        Self { limit, hopeless, switch, fastest, writing: Mutex::default() }
    }

    /// The terms of a request, or why it is not begun.
    fn admit<B>(&self, request: &http::Request<B>, now: Instant) -> Result<Admitted, Status> {
        let asked = Deadline::parse_timeout(request.headers())
            .map_err(|invalid| Status::internal(invalid.to_string()))?;
        let left = asked.into_iter().chain(self.limit).min();
        if left.is_some_and(|left| left <= TICK) {
            let left = left.unwrap_or_default();
            let message = format!("the deadline had passed on arrival: {left:?} left");
            return Err(Status::deadline_exceeded(message));
        }
        let mode = self.hopeless.mode();
        let latency = (mode != Mode::Off).then(|| self.latency(request.uri().path())).flatten();
        let fastest = latency.as_ref().and_then(|latency| latency.current());
        // A latency is known to within an eighth.
        if let (Some(left), Some(fastest)) = (left, fastest)
            && left < fastest.mul_f64(0.875)
        {
            tracing::debug!(rpc.method = request.uri().path(), ?left, ?fastest, ?mode, "hopeless");
            if mode == Mode::Enforce {
                let message = format!("{left:?} left, and it takes {fastest:?} at best");
                return Err(Status::deadline_exceeded(message));
            }
            self.hopeless.count();
        }
        let within = |left| Deadline::within(left, now);
        Ok((left.and_then(within), asked.and_then(within), latency))
    }

    fn latency(&self, path: &str) -> Option<Arc<Latency>> {
        self.fastest.get().get(path).cloned().or_else(|| self.first_latency(path))
    }

    #[cold]
    fn first_latency(&self, path: &str) -> Option<Arc<Latency>> {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fastest = (**self.fastest.get()).clone();
        if fastest.len() >= MOST_METHODS {
            return None;
        }
        let new = || Arc::new(Latency::new(0.01));
        let latency = fastest.entry(path.into()).or_insert_with(new).clone();
        self.fastest.set(fastest);
        Some(latency)
    }
}

// === impl ServerFuture ===

impl<F, R, E> Future for ServerFuture<F>
where
    F: Future<Output = Result<http::Response<R>, E>>,
    R: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Output = Result<http::Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let refused = match this.work.as_mut().project() {
            WorkProj::Bare { handler } => {
                return handler.poll(cx).map_ok(|reply| reply.map(Body::new));
            }
            WorkProj::Refused { refused } => refused.take(),
            WorkProj::Handler { handler } => match handler.poll(cx) {
                Poll::Ready(reply) => {
                    let end = this.end.take();
                    if let Some(latency) = this.latency.take() {
                        latency.record(Instant::now() - *this.began);
                    }
                    let bound = |body| ServerBody::bound(body, end, *this.whole, *this.inbound);
                    return Poll::Ready(reply.map(|mut response| {
                        status::strip(response.headers_mut());
                        response.map(Body::new).map(bound)
                    }));
                }
                Poll::Pending => {
                    let Some(end) = this.end else { return Poll::Pending };
                    ready!(end.poll(cx));
                    // Drops the handler, and what it is waiting for.
                    this.work.set(Work::Refused { refused: None });
                    None
                }
            },
        };
        let status = refused.unwrap_or_else(|| Status::deadline_exceeded(EXCEEDED));
        Poll::Ready(Ok(status.into_http()))
    }
}

impl<F> fmt::Debug for ServerFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerFuture").field("inbound", &self.inbound).finish_non_exhaustive()
    }
}

const EXCEEDED: &str = "the deadline has passed";

// === impl End ===

impl End {
    const fn at(at: Instant) -> Self {
        Self { at, timer: None }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.get_or_insert_with(|| Box::pin(sleep_until(self.at))).as_mut().poll(cx)
    }

    fn move_to(&mut self, at: Instant) {
        if at == self.at {
            return;
        }
        self.at = at;
        if let Some(timer) = &mut self.timer {
            timer.as_mut().reset(at);
        }
    }
}

// === impl ServerBody ===

impl ServerBody {
    /// `body`, which must begin before `end` and end before the deadline of the `whole`; as it is
    /// where there is nothing to wait for.
    fn bound(
        body: Body,
        end: Option<End>,
        whole: Option<Deadline>,
        inbound: ServerContext,
    ) -> Body {
        if body.is_end_stream() {
            return body;
        }
        Body::new(Self { inner: Some(body), end, whole: Some(whole), inbound })
    }
}

impl HttpBody for ServerBody {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        let this = self.get_mut();
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        // The stream of a handler may make calls as well.
        let mut polled = this.inbound.within(|| Pin::new(inner).poll_frame(cx));
        if let Poll::Ready(frame) = &mut polled {
            if let Some(Ok(frame)) = frame {
                frame.trailers_mut().into_iter().for_each(status::strip);
            }
            // It has begun: from here on only the caller's deadline counts.
            if let Some(whole) = this.whole.take() {
                this.inbound.deadline = whole;
                match (whole.map(|whole| whole.0 - TICK), &mut this.end) {
                    (Some(at), Some(end)) => end.move_to(at),
                    (at, end) => *end = at.map(End::at),
                }
            }
            return polled;
        }
        let Some(end) = &mut this.end else { return Poll::Pending };
        ready!(end.poll(cx));
        this.inner = None;
        let mut trailers = http::HeaderMap::new();
        let told = Status::deadline_exceeded(EXCEEDED).add_header(&mut trailers);
        Poll::Ready(Some(told.map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(HttpBody::is_end_stream)
    }
}

impl fmt::Debug for ServerBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBody").field("inbound", &self.inbound).finish_non_exhaustive()
    }
}
