//! The service with the layers of a server.

use super::{
    Layers,
    boxed::Boxed,
    others::{ServeFuture, is_other},
    panics::CatchPanic,
};
use bytes::Bytes;
use cinchona_core::BoxError;
use cinchona_deadline::ServerDeadline;
use cinchona_drain::DrainService;
use cinchona_fault::Fault;
use cinchona_idempotency::{Dedup, MemoryStore, Store};
use cinchona_observe::{Observed, Owner, ResponseBody};
use cinchona_plumbing::plain_request;
use cinchona_shed::{RateLimit, Shed, StatusLimit};
use http::{Request, Response};
use std::{
    fmt,
    task::{Context, Poll},
};
use tonic::{body::Body, server::NamedService};
use tower_layer::Layer;
use tower_service::Service;

/// A server with every layer around it: all services of tonic's server, an axum router, or a single
/// service.
#[derive(Clone)]
pub struct Serve<I, S = MemoryStore> {
    stack: Stack<I, S>,
    /// Shows the metrics for as long as it serves.
    _own: Owner,
}

/// The layers around a service, outermost first.
type Stack<I, S> = Observed<
    StatusLimit<
        DrainService<CatchPanic<RateLimit<Shed<ServerDeadline<Fault<Dedup<Boxed<I>, S>>>>>>>,
    >,
>;

// === impl Layers ===

impl<I, S: Store> Layer<I> for Layers<S> {
    type Service = Serve<I, S>;

    fn layer(&self, inner: I) -> Serve<I, S> {
        // Innermost, dedup answers repetitions; an injected fault looks as if the service had it.
        let service = self.faults.layer(self.dedup.layer(Boxed(inner)));
        // Drops work for callers that have given up, and refuses the excess before it costs
        // anything: first the callers over their quotas, at no cost to others.
        let limited = self.quota.layer(self.shed.layer(self.deadline.layer(service)));
        // A panic fails one call, and nothing outlives the server.
        let ends = self.drain.layer().layer(self.panics.layer(limited));
        // An oversized status would cost its connection; and every answer is counted.
        let stack = self.call.layer(self.status.layer(ends));
        Serve { stack, _own: self.own.clone() }
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
    type Future = ServeFuture<<Stack<I, S> as Service<Request<Body>>>::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), I::Error>> {
        Service::<Request<Body>>::poll_ready(&mut self.stack, cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let is_other = is_other(&request);
        ServeFuture::new(self.stack.call(plain_request(request)), is_other)
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
