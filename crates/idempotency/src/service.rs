//! The server's service: which calls it inspects, and which it passes through.

use crate::{
    Store,
    call::Call,
    lease::{Begun, Unstoppable},
    shared::Shared,
};
use bytes::Bytes;
use cinchona_core::{BoxError, DOMAIN, Mode};
use cinchona_plumbing::{Plain, PlainFuture, plain_request};
use http::{HeaderValue, Request, Response};
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tonic::{body::Body, server::NamedService};
use tower_service::Service;

/// Executes each call once, and answers its repetitions with the first answer.
#[derive(Debug)]
pub struct Dedup<S, T> {
    pub(crate) inner: S,
    pub(crate) shared: Arc<Shared<T>>,
}

pin_project! {
    /// The future of a [`Dedup`] call.
    pub struct ResponseFuture<F, E: 'static> {
        #[pin]
        way: Course<F, E>,
        domain: Option<&'static HeaderValue>,
    }
}

pin_project! {
    #[project = CourseProj]
    enum Course<F, E: 'static> {
        Through { #[pin] inner: F },
        Keyed { #[pin] inner: Unstoppable<Result<Response<Body>, E>> },
    }
}

// === impl Dedup ===

impl<S, T, B, R> Service<Request<B>> for Dedup<S, T>
where
    S: Service<Request<Body>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
    T: Store,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = ResponseFuture<PlainFuture<S::Future>, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let request = plain_request(request);
        let settings = &self.shared.settings;
        let mode = self.shared.switch.mode();
        if mode == Mode::Off || !settings.concern(&request) {
            return ResponseFuture {
                way: Course::Through { inner: PlainFuture::new(self.inner.call(request)) },
                domain: None,
            };
        }
        // Who sends a key reads it; any other call's answer goes without. In shadow nothing is
        // promised.
        let domain = self.shared.domain.filter(|_| mode == Mode::Enforce);
        let (clone, begun) = (self.inner.clone(), Begun::default());
        let call = Call {
            service: Plain(mem::replace(&mut self.inner, clone)),
            request,
            shared: self.shared.clone(),
            mode,
            begun: begun.clone(),
        };
        let inner = Unstoppable::new(call.answer(), begun);
        ResponseFuture { way: Course::Keyed { inner }, domain }
    }
}

impl<S: Clone, T> Clone for Dedup<S, T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: self.shared.clone() }
    }
}

impl<S: NamedService, T> NamedService for Dedup<S, T> {
    const NAME: &'static str = S::NAME;
}

// === impl ResponseFuture ===

impl<F, E> Future for ResponseFuture<F, E>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut answered = ready!(match this.way.project() {
            CourseProj::Through { inner } => inner.poll(cx),
            CourseProj::Keyed { inner } => inner.poll(cx),
        });
        if let (Ok(response), Some(domain)) = (&mut answered, this.domain.take()) {
            response.headers_mut().insert(DOMAIN, domain.clone());
        }
        Poll::Ready(answered)
    }
}

impl<F, E> fmt::Debug for ResponseFuture<F, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
