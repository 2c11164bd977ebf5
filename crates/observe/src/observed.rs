//! The service around another that is watched, its future and its body.

use crate::observation::{Observation, Observer};
use bytes::Bytes;
use cinchona_core::BoxError;
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tonic::{body::Body, server::NamedService};
use tower_service::Service;

/// A service that is watched by one of the layers of this crate; its answers and errors are passed
/// on as they are.
///
/// *Errors:* what the client layers make of one is read from a `BoxError`, a `tonic::Status` or a
/// `tonic::transport::Error`; of any other type it is `UNKNOWN`, unless it is boxed first.
#[derive(Clone, Debug)]
pub struct Observed<S> {
    inner: S,
    watcher: Arc<Observer>,
}

pin_project! {
    /// The future of an [`Observed`] call.
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        watch: Observation,
    }
}

pin_project! {
    /// A response body that is passed on as it is; how it ends is noted.
    pub struct ResponseBody<B> {
        #[pin]
        inner: B,
        watch: Observation,
    }
}

/// Ends a scope, mostly of none.
#[inline(always)]
fn leave<T>(scope: Option<T>) {
    if let Some(scope) = scope {
        drop(scope);
    }
}

// === impl Observed ===

impl<S> Observed<S> {
    pub(crate) const fn new(inner: S, watcher: Arc<Observer>) -> Self {
        Self { inner, watcher }
    }
}

impl<S, A, B> Service<http::Request<A>> for Observed<S>
where
    S: Service<http::Request<Body>, Response = http::Response<B>>,
    S::Error: 'static,
    A: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    B: http_body::Body,
{
    type Response = http::Response<ResponseBody<B>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: http::Request<A>) -> Self::Future {
        let mut request = request.map(Body::new);
        let watch = self.watcher.begin(&mut request);
        let scope = watch.enter();
        let inner = self.inner.call(request);
        leave(scope);
        ResponseFuture { inner, watch }
    }
}

impl<S: NamedService> NamedService for Observed<S> {
    const NAME: &'static str = S::NAME;
}

// === impl ResponseFuture ===

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<http::Response<B>, E>>,
    B: http_body::Body,
    E: 'static,
{
    type Output = Result<http::Response<ResponseBody<B>>, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let scope = this.watch.enter();
        let polled = this.inner.poll(cx);
        leave(scope);
        match &polled {
            Poll::Ready(Ok(head)) => this.watch.head(head),
            Poll::Ready(Err(error)) => this.watch.failed(error),
            Poll::Pending => return Poll::Pending,
        }
        let watched = |inner| ResponseBody { inner, watch: this.watch.take() };
        polled.map_ok(|head| head.map(watched))
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

// === impl ResponseBody ===

impl<B: Default> Default for ResponseBody<B> {
    /// A body without frames, for a response that was made by an interceptor.
    fn default() -> Self {
        Self { inner: B::default(), watch: Observation::default() }
    }
}

impl<B> http_body::Body for ResponseBody<B>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: 'static,
{
    type Data = Bytes;
    type Error = B::Error;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        if this.watch.is_off() {
            return this.inner.poll_frame(cx);
        }
        let scope = this.watch.enter();
        let polled = this.inner.poll_frame(cx);
        leave(scope);
        // What is returned is not moved for that: a frame is large.
        if let Poll::Ready(frame) = &polled {
            this.watch.frame(frame.as_ref());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}
