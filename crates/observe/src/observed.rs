//! The observed service, and its future.

use crate::observation::{Observation, Observer};
use bytes::Bytes;
use cinchona_core::BoxError;
use cinchona_plumbing::{ResponseBody, clock::Passing, plain_request};
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

/// A service that is observed by one of the layers of this crate; its answers and errors are passed
/// on unchanged.
///
/// *Errors:* the client layers read the code from a `BoxError`, a `tonic::Status` or a
/// `tonic::transport::Error`; any other type is `UNKNOWN`, unless it is boxed first.
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

/// Ends a scope, usually of nothing.
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
    A: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    S: Service<http::Request<Body>, Response = http::Response<B>>,
    S::Error: 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = http::Response<ResponseBody>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: http::Request<A>) -> Self::Future {
        let mut request = plain_request(request);
        let passing = Passing::begin();
        let watch = self.watcher.begin(&mut request, passing.now());
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
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    E: 'static,
{
    type Output = Result<http::Response<ResponseBody>, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let scope = this.watch.enter();
        let polled = this.inner.poll(cx);
        leave(scope);
        let mut polled = polled.map_ok(|head| head.map(ResponseBody::of));
        match &mut polled {
            Poll::Ready(Ok(head)) => {
                this.watch.head(head);
                this.watch.watches(head.body_mut());
            }
            Poll::Ready(Err(error)) => this.watch.failed(error),
            Poll::Pending => {}
        }
        polled
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
