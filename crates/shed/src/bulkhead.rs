//! A limit on the calls that a client has under way.

use crate::{
    Criticality, Limit, Queue,
    body::ResponseBody,
    entry::Entering,
    limiter::{Entry, Limiter},
};
use cinchona_core::{BoxError, Deadline, Invalid, Mode, Switch, Unsent};
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

/// Applies [`Bulkhead`] to a client.
///
/// # Why
///
/// A service that hangs must not hold all that its caller has: with a bulkhead around its client,
/// it holds so many calls, and the rest of the caller goes on.
#[derive(Clone, Debug)]
pub struct BulkheadLayer {
    limiter: Arc<Limiter>,
    switch: Switch,
}

/// Fails calls with `UNAVAILABLE` that are more than a limit, retries and waits included where it
/// is put around them.
#[derive(Clone, Debug)]
pub struct Bulkhead<S> {
    inner: S,
    limiter: Arc<Limiter>,
    switch: Switch,
}

pin_project! {
    /// The future of a [`Bulkhead`] call.
    pub struct BulkheadFuture<S, B, F> {
        #[pin]
        entering: Entering<S, B, F>,
        limiter: Arc<Limiter>,
        criticality: Criticality,
    }
}

// === impl BulkheadLayer ===

impl BulkheadLayer {
    /// So many calls are under way at most, until their bodies have ended. Those that come on top
    /// wait for up to `patience`, as many as there are under way; zero for none, and
    /// `Duration::MAX` for as long as their callers do.
    ///
    /// # Errors
    /// When `limit` is 0.
    pub fn new(limit: u32, patience: Duration) -> Result<Self, Invalid> {
        Ok(Self::of(Limit::Fixed(limit).checked()?, patience))
    }

    fn of(limit: Limit, patience: Duration) -> Self {
        let capacity = if patience.is_zero() { 0 } else { limit.initial() };
        // A client has its own patience, whether or not the queue is ever empty.
        let queue = Queue { capacity, longest: patience, target: patience, interval: patience };
        let limiter = Limiter::new(limit, queue, Instant::now());
        Self { limiter, switch: Switch::default() }
    }

    /// Lets `switch` decide whether calls are failed, only counted, or not looked at.
    pub fn with_switch(self, switch: Switch) -> Self {
        Self { switch, ..self }
    }

    /// How many calls are under way.
    pub fn in_progress(&self) -> u32 {
        self.limiter.in_progress()
    }

    /// How many were turned away.
    pub fn shed(&self) -> u64 {
        Criticality::ALL.into_iter().map(|class| self.limiter.shed(class)).sum()
    }
}

impl Default for BulkheadLayer {
    /// 1,000 calls, and nobody waits.
    fn default() -> Self {
        Self::of(Limit::Fixed(1000), Duration::ZERO)
    }
}

impl<S> Layer<S> for BulkheadLayer {
    type Service = Bulkhead<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Bulkhead { inner, limiter: self.limiter.clone(), switch: self.switch.clone() }
    }
}

// === impl Bulkhead ===

impl<S, B, ResBody> Service<Request<B>> for Bulkhead<S>
where
    S: Service<Request<B>, Response = Response<ResBody>> + Clone,
    S::Error: Into<BoxError>,
    ResBody: Body,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = BoxError;
    type Future = BulkheadFuture<S, B, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (limiter, mode) = (self.limiter.clone(), self.switch.mode());
        let criticality = Criticality::of(request.headers());
        let entry = (mode != Mode::Off).then(|| limiter.enter(criticality));
        let entering = match entry {
            Some(entry @ Entry::Admitted(_)) => {
                Entering::new(entry, &mut self.inner, request, None)
            }
            Some(entry) if mode == Mode::Enforce => {
                let deadline = request.extensions().get().map(|deadline: &Deadline| deadline.0);
                Entering::new(entry, &mut self.inner, request, deadline)
            }
            entry => {
                if entry.is_some() {
                    self.switch.count();
                }
                Entering::unlimited(&mut self.inner, request)
            }
        };
        BulkheadFuture { entering, limiter, criticality }
    }
}

// === impl BulkheadFuture ===

impl<S, B, ResBody> Future for BulkheadFuture<S, B, S::Future>
where
    S: Service<Request<B>, Response = Response<ResBody>>,
    S::Error: Into<BoxError>,
    ResBody: Body,
{
    type Output = Result<Response<ResponseBody<ResBody>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        Poll::Ready(match ready!(this.entering.poll(cx)) {
            Some(outcome) => outcome.map_err(Into::into),
            None => {
                this.limiter.count_shed(*this.criticality);
                let limit = this.limiter.limit();
                let message = format!("bulkhead: {limit} calls are under way already");
                Err(Unsent::new(message, None).into())
            }
        })
    }
}

impl<S, B, F> fmt::Debug for BulkheadFuture<S, B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BulkheadFuture").finish_non_exhaustive()
    }
}
