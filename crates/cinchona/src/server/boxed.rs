//! A service whose futures are small.

use http::{Request, Response};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};
use tonic::body::Body;
use tower_service::Service;

/// A service whose futures are boxed: tonic's router has futures of 320 bytes, and each layer moves
/// that of the service below.
#[derive(Clone, Debug)]
pub struct Boxed<S>(pub(super) S);

// === impl Boxed ===

impl<S, R> Service<Request<Body>> for Boxed<S>
where
    S: Service<Request<Body>, Response = Response<R>, Future: Send + 'static>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.call(request))
    }
}
