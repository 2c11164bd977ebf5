//! The channel that a generated client takes.

use super::{Layers, call_options};
use bytes::Bytes;
use cinchona_balance::{Balance, Snapshot};
use cinchona_config::{LimitMessages, ServiceConfig, Warning};
use cinchona_core::{BoxError, Invalid, Verdict};
use cinchona_deadline::{AttemptTimeout, CallDeadline};
use cinchona_fallback::Fallback;
use cinchona_idempotency::IdempotencyKey;
use cinchona_observe::{Metrics, Observed};
use cinchona_plumbing::cause::find_cause;
use cinchona_retry::Retry;
use cinchona_shed::{AdaptiveThrottle, Bulkhead};
use http::{Request, Response};
use pin_project_lite::pin_project;
use std::{
    convert::Infallible,
    fmt,
    future::Future,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tonic::{Status, body::Body};
use tower_layer::Layer;
use tower_service::Service;

/// A client of one or more services, with every layer around each call; clones share it.
///
/// `cinchona::Channel`, without a parameter, is the result of [`Settings::connect`]: over the
/// balancer and its endpoints. `Channel<C>` is the layers around your own channel
/// ([`Layers::around`]).
///
/// *Errors:* a call fails with an error whose `source()` chain contains a [`tonic::Status`], which
/// generated clients return; the `cinchona_retry::Ledger` of the call is in that chain, too.
///
/// *Cost:* one allocation per call more than the layers: the response's body is boxed, so that its
/// type can be named.
///
/// [`Settings::connect`]: super::Settings::connect
#[derive(Clone)]
pub struct Channel<C = Balance> {
    // First: the metrics of the balancer are read for the last time before it is dropped.
    layers: Arc<Layers>,
    stack: Stack<C>,
    inner: C,
}

/// The layers around a channel, outermost first.
type Stack<C> = Observed<
    IdempotencyKey<LimitMessages<CallDeadline<Fallback<Bulkhead<Retry<Observed<Attempt<C>>>>>>>>,
>;

/// The layers that each attempt passes.
type Attempt<C> = AdaptiveThrottle<AttemptTimeout<C>>;

pin_project! {
    /// The future of a call over a [`Channel`].
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
    }
}

// === impl Layers ===

impl Layers {
    /// Puts the layers around `inner`: a [`Balance`], tonic's own channel, or any other client.
    pub fn around<C: Clone>(&self, inner: C) -> Channel<C> {
        let own = self.clone();
        // Innermost: waiting for the channel, and for a connection, counts as well.
        let attempt = own.throttle.layer(own.timeout.layer(inner.clone()));
        // Each attempt is observed; the retries are around the timeout, so that an attempt which
        // takes too long has failed.
        let retry = own.retry.layer(own.attempt.layer(attempt));
        // Waits between attempts hold the caller's resources; a second answer is for calls that
        // failed after all retries; and the deadline bounds everything below it.
        let deadline = own.deadline.layer(own.fallback.layer(own.bulkhead.layer(retry)));
        // Around the retries: a message that is too large is so on each attempt, and all attempts
        // share a key.
        let keyed = own.key.layer(own.limits.layer(deadline));
        // Outermost: sees what the application sees.
        let stack = own.call.layer(keyed);
        Channel { layers: Arc::new(own), stack, inner }
    }
}

impl<C: Clone> Layer<C> for Layers {
    type Service = Channel<C>;

    fn layer(&self, inner: C) -> Channel<C> {
        self.around(inner)
    }
}

// === impl Channel ===

impl<C> Channel<C> {
    /// The running layers: their switches, their counters, and how to change them.
    pub fn layers(&self) -> &Layers {
        &self.layers
    }

    /// The metrics of calls, of attempts and of the layers: `metrics().render()` is Prometheus'
    /// text.
    pub fn metrics(&self) -> &Metrics {
        &self.layers.metrics
    }

    /// The service below the layers.
    pub const fn inner(&self) -> &C {
        &self.inner
    }

    /// Applies a service config while calls run; see [`Layers::apply`].
    ///
    /// # Errors
    /// When it hedges a method that may not be executed twice. Nothing is changed then.
    pub fn apply(&self, config: &ServiceConfig) -> Result<Vec<Warning>, Invalid> {
        self.layers.apply(config)
    }

    /// Follows the service config in a file; see [`Layers::follow`].
    pub async fn follow(&self, path: impl AsRef<Path>, every: Duration) -> Infallible {
        self.layers().follow(path, every).await
    }
}

impl Channel {
    /// The current state of each endpoint.
    pub fn endpoints(&self) -> Vec<Snapshot> {
        self.inner.states()
    }
}

impl<C, B> Service<Request<Body>> for Channel<C>
where
    C: Service<Request<Body>, Response = Response<B>, Future: Send> + Clone + Send + 'static,
    C::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = ResponseFuture<<Stack<C> as Service<Request<Body>>>::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Service::<Request<Body>>::poll_ready(&mut self.stack, cx).map_err(with_status)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        call_options::spread(&mut request);
        ResponseFuture { inner: self.stack.call(request) }
    }
}

impl<C> fmt::Debug for Channel<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("target", &self.layers.target()).finish_non_exhaustive()
    }
}

// === impl ResponseFuture ===

impl<F, B> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, BoxError>>,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Output = Result<Response<Body>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(self.project().inner.poll(cx));
        Poll::Ready(outcome.map(|response| response.map(Body::new)).map_err(with_status))
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

/// The same error, with a status in its source chain if it has none: as when the retries are off,
/// and no layer has classified the transport's error.
fn with_status(error: BoxError) -> BoxError {
    match find_cause::<Status>(&*error) {
        Some(_) => error,
        None => Verdict::status_of(error).into(),
    }
}
