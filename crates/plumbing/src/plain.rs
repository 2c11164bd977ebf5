//! Services whose answers have tonic's bodies.

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use pin_project_lite::pin_project;
use std::{
    any::Any,
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tonic::body::Body;
use tower_service::Service;

/// A service whose answers have tonic's bodies: other bodies of the inner service are boxed.
#[derive(Clone, Debug)]
pub struct Plain<S>(pub S);

/// The same request with tonic's body: another is boxed.
#[inline]
pub fn plain_request<B>(request: Request<B>) -> Request<Body>
where
    B: HttpBody<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let mut request = Some(request);
    // Usually it is tonic's, and not moved in parts.
    if let Some(own) = (&mut request as &mut dyn Any).downcast_mut::<Option<Request<Body>>>() {
        return own.take().unwrap_or_default();
    }
    request.map(|request| request.map(Body::new)).unwrap_or_default()
}

/// The same body as tonic's: another is boxed. tonic's own function asks the body first whether it
/// is over.
#[inline]
pub(crate) fn plain_body<B>(body: B) -> Body
where
    B: HttpBody<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let mut body = Some(body);
    match (&mut body as &mut dyn Any).downcast_mut::<Option<Body>>() {
        Some(own) => own.take().unwrap_or_default(),
        None => body.map(Body::new).unwrap_or_default(),
    }
}

pin_project! {
    /// The future of a [`Plain`] call.
    pub struct PlainFuture<F> {
        #[pin]
        inner: F,
    }
}

// === impl Plain ===

impl<S, B, R> Service<Request<B>> for Plain<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: HttpBody<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = PlainFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        PlainFuture::new(self.0.call(request))
    }
}

// === impl PlainFuture ===

impl<F> PlainFuture<F> {
    /// The future of a call whose answer is to have tonic's body.
    pub const fn new(inner: F) -> Self {
        Self { inner }
    }
}

impl<F, R, E> Future for PlainFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: HttpBody<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(self.project().inner.poll(cx));
        Poll::Ready(outcome.map(|response| response.map(Body::new)))
    }
}

impl<F> fmt::Debug for PlainFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlainFuture").finish_non_exhaustive()
    }
}
