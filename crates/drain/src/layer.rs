//! Ends calls with `UNAVAILABLE` when the server ends.

use crate::{
    body::ending,
    end::{End, unavailable},
    phases::{Phase, Shared},
};
use bytes::Bytes;
use cinchona_core::BoxError;
use cinchona_plumbing::{ResponseBody, status};
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tonic::{Status, server::NamedService};
use tower_layer::Layer;
use tower_service::Service;

/// Ends calls with the server: see the [rule](crate#rule).
///
/// It belongs to one [`Drain`](crate::Drain), and is best placed inside layers that count calls and
/// around all that answer them. A call that arrives after the end is refused unprocessed. Other
/// protocols than gRPC are ended by their connection alone.
#[derive(Clone, Debug)]
pub struct DrainLayer(Arc<Ending>);

#[derive(Debug)]
struct Ending {
    shared: Arc<Shared>,
    /// Few, so that comparing with all of them is faster than hashing.
    watches: Vec<String>,
}

/// The settings of a [`DrainLayer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainSettings {
    watches: Vec<String>,
}

/// A service whose calls end with the server.
#[derive(Clone, Debug)]
pub struct DrainService<S> {
    inner: S,
    ending: Arc<Ending>,
}

pin_project! {
    /// The future of a call.
    pub struct DrainFuture<F> {
        #[pin]
        inner: Option<F>,
        end: End,
    }
}

/// Watches: streams without an end of their own, whose clients lose nothing when they end.
const WATCHES: [&str; 3] = [
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

// === impl DrainSettings ===

impl DrainSettings {
    /// The watches that every server may have: those of health and of reflection.
    pub fn new() -> Self {
        Self { watches: WATCHES.map(str::to_owned).into() }
    }

    /// Ends calls of these methods (`/package.Service/Method`) when draining begins, after their
    /// ready messages: methods that only wait for news, and would delay the shutdown.
    #[must_use]
    pub fn with_watches<M: Into<String>>(mut self, methods: impl IntoIterator<Item = M>) -> Self {
        self.watches.extend(methods.into_iter().map(Into::into));
        self
    }

    pub(crate) fn by(&self, shared: Arc<Shared>) -> DrainLayer {
        DrainLayer(Arc::new(Ending { shared, watches: self.watches.clone() }))
    }
}

impl Default for DrainSettings {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for DrainLayer {
    type Service = DrainService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        DrainService { inner, ending: self.0.clone() }
    }
}

// === impl DrainService ===

impl<S, B, ResBody> Service<Request<B>> for DrainService<S>
where
    S: Service<Request<B>, Response = Response<ResBody>>,
    ResBody: Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = S::Error;
    type Future = DrainFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Ending { shared, watches } = &*self.ending;
        let path = request.uri().path();
        let is_watch = watches.iter().any(|watch| watch == path);
        let at = if is_watch { Phase::Draining } else { Phase::Over };
        let is_grpc = status::is_grpc(request.headers());
        let end = End::new(shared.clone(), if is_grpc { at } else { Phase::Cut });
        let is_refused = is_grpc && shared.phase() >= Phase::Over;
        let inner = (!is_refused).then(|| self.inner.call(request));
        DrainFuture { inner, end }
    }
}

impl<S: NamedService> NamedService for DrainService<S> {
    const NAME: &'static str = S::NAME;
}

// === impl DrainFuture ===

impl<F, B, E> Future for DrainFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Output = Result<Response<ResponseBody>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(Ok(ended(status::not_begun(unavailable()))));
        };
        if let Poll::Ready(answered) = inner.poll(cx) {
            let end = this.end.handed_on();
            return Poll::Ready(answered.map(|response| ending(response, end)));
        }
        if this.end.poll_is_here(cx) {
            this.inner.set(None);
            return Poll::Ready(Ok(ended(unavailable())));
        }
        Poll::Pending
    }
}

impl<F> fmt::Debug for DrainFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DrainFuture").finish_non_exhaustive()
    }
}

fn ended(status: Status) -> Response<ResponseBody> {
    status.into_http::<()>().map(|()| ResponseBody::default())
}
