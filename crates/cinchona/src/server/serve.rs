//! The service that the layers of a server make.

use super::{Layers, panics::CatchPanic};
use bytes::Bytes;
use cinchona_core::BoxError;
use cinchona_deadline::ServerDeadline;
use cinchona_drain::DrainService;
use cinchona_fault::Fault;
use cinchona_idempotency::{Dedup, MemoryStore, Store};
use cinchona_observe::{Observed, ResponseBody};
use cinchona_shed::{RateLimit, Shed, StatusLimit};
use http::{Request, Response};
use std::{
    fmt,
    task::{Context, Poll},
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
    type Future = <Stack<I, S> as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), I::Error>> {
        Service::<Request<Body>>::poll_ready(&mut self.0, cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.0.call(request.map(Body::new))
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
