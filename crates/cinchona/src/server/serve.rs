//! The service that the layers of a server make.

use super::{
    Layers,
    panics::{CatchPanic, PanicBody},
};
use bytes::Bytes;
use cinchona_core::BoxError;
use cinchona_deadline::ServerDeadline;
use cinchona_drain::{DrainBody, DrainService};
use cinchona_fault::Fault;
use cinchona_idempotency::{Dedup, MemoryStore, Store};
use cinchona_observe::Observed;
use cinchona_shed::{RateLimit, Shed, StatusLimit, StatusLimitBody};
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tonic::{body::Body, server::NamedService};
use tower_layer::Layer;
use tower_service::Service;

/// A server with every layer around it: of all that tonic serves, of an axum router, or of a single
/// service.
#[derive(Clone)]
pub struct Serve<I, S = MemoryStore>(Stack<I, S>);

/// The layers around a service, outermost first.
type Stack<I, S> = Observed<
    StatusLimit<DrainService<CatchPanic<RateLimit<Shed<ServerDeadline<Fault<Dedup<I, S>>>>>>>>,
>;

/// What it answers with.
type StackBody = cinchona_observe::ResponseBody<
    StatusLimitBody<
        DrainBody<PanicBody<cinchona_shed::ResponseBody<cinchona_shed::ResponseBody<Body>>>>,
    >,
>;

pin_project! {
    /// The future of a [`Serve`] call.
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
    }
}

pin_project! {
    /// The body of a [`Serve`] response.
    #[derive(Default)]
    pub struct ResponseBody {
        // None for a body without frames, of a response that was made by an interceptor.
        #[pin]
        inner: Option<StackBody>,
    }
}

// === impl Layers ===

impl<I, S: Store> Layer<I> for Layers<S> {
    type Service = Serve<I, S>;

    fn layer(&self, inner: I) -> Serve<I, S> {
        // Innermost, with what answers again; what is injected looks as if the service had done it.
        let service = self.faults.layer(self.dedup.layer(inner));
        // Drops the work that nobody waits for, and turns away what is too much, before it costs
        // something: whoever is over its quota first, so that no other pays.
        let limited = self.quota.layer(self.shed.layer(self.deadline.layer(service)));
        // A panic costs one call, and nothing outlives the server.
        let ends = self.drain.layer().layer(self.panics.layer(limited));
        // A status that does not fit would cost its connection; and all that is answered counts.
        Serve(self.call.layer(self.status.layer(ends)))
    }
}

// === impl Serve ===

impl<I, S, B, R> Service<Request<B>> for Serve<I, S>
where
    I: Service<Request<Body>, Response = Response<R>, Future: Send> + Clone + Send + 'static,
    I::Error: Send + 'static,
    R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    S: Store,
{
    type Response = Response<ResponseBody>;
    type Error = I::Error;
    type Future = ResponseFuture<<Stack<I, S> as Service<Request<Body>>>::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), I::Error>> {
        Service::<Request<Body>>::poll_ready(&mut self.0, cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ResponseFuture { inner: self.0.call(request.map(Body::new)) }
    }
}

impl<I: NamedService, S> NamedService for Serve<I, S> {
    const NAME: &'static str = I::NAME;
}

impl<I, S> fmt::Debug for Serve<I, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve").finish_non_exhaustive()
    }
}

// === impl ResponseFuture ===

impl<F, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<StackBody>, E>>,
{
    type Output = Result<Response<ResponseBody>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(self.project().inner.poll(cx));
        Poll::Ready(
            outcome.map(|response| response.map(|inner| ResponseBody { inner: Some(inner) })),
        )
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

// === impl ResponseBody ===

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().inner.as_pin_mut() {
            Some(inner) => inner.poll_frame(cx).map_err(Into::into),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or(SizeHint::with_exact(0), http_body::Body::size_hint)
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}
