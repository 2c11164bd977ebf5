//! What the layers of others need around a tonic channel.

use bytes::Bytes;
use cinchona::core::BoxError;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use std::{
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll},
};
use tonic::body::Body;
use tower::Service;

/// A request that can be cloned, so that it can be sent again.
pub type Whole = Request<Full<Bytes>>;

/// Reads requests to their end, since tonic's bodies cannot be cloned.
#[derive(Clone, Debug)]
pub struct Buffered<S>(pub S);

// === impl Buffered ===

impl<S> Service<Request<Body>> for Buffered<S>
where
    S: Service<Whole, Response = Response<Body>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let next = self.0.clone();
        let mut ready = mem::replace(&mut self.0, next);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = Full::new(body.collect().await?.to_bytes());
            ready.call(Request::from_parts(head, body)).await.map_err(Into::into)
        })
    }
}
