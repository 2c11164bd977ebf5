//! The same faults in the calls of a client.

use crate::{Fault, FaultCounters, FaultLayer, ResponseFuture, Rules, wire::Reset};
use bytes::Bytes;
use cinchona_core::BoxError;
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tonic::body::Body;
use tower_layer::Layer;
use tower_service::Service;

/// Injects faults into the calls of a client, as if its server or the network had them: gRPC's
/// client-side fault injection ([gRFC A33]), by the rules of a server's faults.
///
/// # Why
///
/// A client's reaction to a fault can be tested without a server of its own: a rule in front of any
/// channel is enough.
///
/// # Rule
///
/// * It belongs below the retries, around the channel: a fault is injected into one attempt, and
///   the layers above see the error that they would see from a server. A delay takes the caller's
///   time.
/// * `delay` and faults injected [before](crate::When::Before) take effect before anything is sent;
///   a `delay` goes first (A33). Shares are drawn independently of each other (A33).
/// * [At most](Rules::with_most_active) 100 faults are active at a time, or as many as the rules
///   allow; a delay ends when the request goes on (A33).
/// * Faults of a stream or a connection are the errors with which tonic's channel would have
///   failed: `reset=CODE` and `cut=N:CODE` an `h2::Error`, `drop` and `goaway=CODE` an `io::Error`
///   of a lost connection, `goaway` and `reset=REFUSED_STREAM` an error that proves that the call
///   was not processed, `panic` a reset by `CANCEL`. So the codes are those of [a server's
///   faults](crate#rule).
///
/// # Example
///
/// ```
/// use cinchona_fault::{ClientFaultLayer, Rules};
/// use tonic::transport::Endpoint;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), cinchona_fault::Malformed> {
/// let rules = Rules::new(7).with("flaky", "rate=10% status=UNAVAILABLE".parse()?);
/// let faults = ClientFaultLayer::from(rules.clone());
/// let channel = Endpoint::from_static("http://orders.internal:50051").connect_lazy();
/// let channel = faults.around(channel);
/// // let channel = cinchona::client::Settings::new(methods).layers()?.around(channel);
/// // let mut orders = OrdersClient::new(channel);
/// # drop(channel);
/// # Ok(())
/// # }
/// ```
///
/// # Where it departs from gRFC A33, and why
///
/// * A33's faults come from xDS and are above the retries, so that an aborted call is not retried.
///   Here you choose the place; above the retries they are as in A33.
/// * A call cannot request faults by `x-envoy-fault-*` headers: a rule selects calls by
///   `metadata.KEY=VALUE`, so no header of a test reaches a server that would obey it.
/// * The limit of active faults is per set of rules, not per process: tests run side by side.
/// * `status=OK` is refused: it is not a failure, and a unary call would fail with `INTERNAL`, as
///   the message is missing.
/// * There is more than `delay` and `abort`: see [`Rule`](crate::Rule).
///
/// # What it does not do
///
/// It closes no connection, so after a `drop` or a `goaway` the next call uses the same. A rule
/// with `caller=` hits nothing: a call has no peer yet.
///
/// [gRFC A33]: https://github.com/grpc/proposal/blob/master/A33-Fault-Injection.md
#[derive(Clone, Debug)]
pub struct ClientFaultLayer(FaultLayer);

/// A channel into whose calls faults are injected.
#[derive(Clone, Debug)]
pub struct ClientFault<S>(Fault<S>);

pin_project! {
    /// The future of a [`ClientFault`] call.
    pub struct ClientFuture<F> {
        #[pin]
        inner: F,
    }
}

// === impl ClientFaultLayer ===

impl ClientFaultLayer {
    /// Puts the faults in front of `channel`: tonic's own, an in-memory one, or any other client.
    pub fn around<S>(&self, channel: S) -> ClientFault<S> {
        ClientFault(self.0.layer(channel))
    }

    /// What it has injected so far, into all the channels that it was put in front of.
    pub fn counters(&self) -> FaultCounters {
        self.0.counters()
    }
}

impl From<FaultLayer> for ClientFaultLayer {
    /// Injects into the calls of a client what the server's layer injects into requests.
    fn from(mut layer: FaultLayer) -> Self {
        Arc::make_mut(&mut layer.0).is_client = true;
        Self(layer)
    }
}

impl From<Rules> for ClientFaultLayer {
    /// Injects the faults of `rules`, now and after each change of them.
    fn from(rules: Rules) -> Self {
        FaultLayer::from(rules).into()
    }
}

impl<S> Layer<S> for ClientFaultLayer {
    type Service = ClientFault<S>;

    fn layer(&self, inner: S) -> ClientFault<S> {
        self.around(inner)
    }
}

// === impl ClientFault ===

impl<S, B, R> Service<http::Request<B>> for ClientFault<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>, Error: Into<BoxError>> + Clone,
    R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = BoxError;
    type Future = ClientFuture<ResponseFuture<S, S::Future, B>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        ClientFuture { inner: self.0.call(request) }
    }
}

// === impl ClientFuture ===

impl<F, E> Future for ClientFuture<F>
where
    F: Future<Output = Result<http::Response<Body>, E>>,
    E: Into<BoxError>,
{
    type Output = Result<http::Response<Body>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let reply = ready!(self.project().inner.poll(cx)).map_err(Into::into)?;
        Poll::Ready(match reply.extensions().get() {
            Some(reset) => Err(Reset::seen(*reset)),
            None => Ok(reply),
        })
    }
}

impl<F> fmt::Debug for ClientFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientFuture").finish_non_exhaustive()
    }
}
