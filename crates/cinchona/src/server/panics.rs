//! Panics that fail one call.

use bytes::Bytes;
use cinchona_core::{BoxError, Mode, Switch};
use cinchona_plumbing::{Next, Polled, ResponseBody, Seen, Seldom, Watcher, status};
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use pin_project_lite::pin_project;
use std::{
    any::Any,
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::LazyLock,
    task::{Context, Poll},
};
use tokio::time::Instant;
use tonic::{Status, server::NamedService};
use tower_layer::Layer;
use tower_service::Service;

/// Applies [`CatchPanic`] to a server.
#[derive(Clone, Debug)]
pub(super) struct PanicLayer(pub(super) Switch);

/// Answers `INTERNAL` where the service below panics: in its call, in its future, or in the body of
/// its answer. Without it the stream is reset, without a reason for the caller.
#[derive(Clone, Debug)]
pub struct CatchPanic<S> {
    inner: S,
    switch: Switch,
}

pin_project! {
    /// The future of a [`CatchPanic`] call.
    #[project = PanicFutureProj]
    pub enum PanicFuture<F> {
        /// The layer is off.
        Bare { #[pin] inner: F },
        /// The service's future.
        Watched { #[pin] inner: F },
        /// It has panicked.
        Panicked,
    }
}

/// Ends a response body with `INTERNAL` if it panics.
struct Caught {
    panic: Option<Box<dyn Any + Send>>,
    /// In its trailers; a body of another protocol is broken off.
    is_grpc: bool,
}

static PANICKED: LazyLock<Seldom> =
    LazyLock::new(|| Seldom::new(|more| tracing::error!(more, "the service panicked")));

/// Logs the panic; the caller's answer does not contain its message.
fn answer(panic: Box<dyn Any + Send>) -> Status {
    if PANICKED.is_due(Instant::now()) {
        let said = panic.downcast_ref::<&str>().copied();
        let said = said.or_else(|| panic.downcast_ref().map(String::as_str));
        tracing::error!(panic = said, "the service panicked");
    }
    Status::internal("the service panicked")
}

// === impl PanicLayer ===

impl<S> Layer<S> for PanicLayer {
    type Service = CatchPanic<S>;

    fn layer(&self, inner: S) -> CatchPanic<S> {
        CatchPanic { inner, switch: self.0.clone() }
    }
}

// === impl CatchPanic ===

impl<S, B, R> Service<Request<B>> for CatchPanic<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<ResponseBody>;
    type Error = S::Error;
    type Future = PanicFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if self.switch.mode() != Mode::Enforce {
            return PanicFuture::Bare { inner: self.inner.call(request) };
        }
        match catch_unwind(AssertUnwindSafe(|| self.inner.call(request))) {
            Ok(inner) => PanicFuture::Watched { inner },
            Err(panic) => {
                // Its future says so.
                _ = answer(panic);
                PanicFuture::Panicked
            }
        }
    }
}

impl<S: NamedService> NamedService for CatchPanic<S> {
    const NAME: &'static str = S::NAME;
}

// === impl PanicFuture ===

impl<F, R, E> Future for PanicFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Output = Result<Response<ResponseBody>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let status = match self.as_mut().project() {
            PanicFutureProj::Bare { inner } => {
                return inner.poll(cx).map_ok(|response| response.map(ResponseBody::of));
            }
            PanicFutureProj::Watched { inner } => {
                match catch_unwind(AssertUnwindSafe(|| inner.poll(cx))) {
                    Ok(polled) => {
                        return polled.map_ok(|response| {
                            let mut response = response.map(ResponseBody::of);
                            let is_grpc = status::is_grpc(response.headers());
                            let caught = Caught { panic: None, is_grpc };
                            response.body_mut().watch_within(caught);
                            response
                        });
                    }
                    Err(panic) => answer(panic),
                }
            }
            PanicFutureProj::Panicked => Status::internal("the service panicked"),
        };
        self.set(Self::Panicked);
        Poll::Ready(Ok(status.into_http()))
    }
}

impl<F> fmt::Debug for PanicFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PanicFuture").finish_non_exhaustive()
    }
}

// === impl Caught ===

impl Caught {
    fn trailers(&mut self) -> Option<Frame<Bytes>> {
        let mut trailers = HeaderMap::new();
        // Its message is ASCII.
        _ = answer(self.panic.take()?).add_header(&mut trailers);
        Some(Frame::trailers(trailers))
    }
}

impl Watcher for Caught {
    fn scope(mut self: Pin<&mut Self>, poll: &mut dyn FnMut()) {
        self.panic = catch_unwind(AssertUnwindSafe(poll)).err();
    }

    fn sees(mut self: Pin<&mut Self>, polled: &mut Polled, _: &mut Seen) -> Next {
        match self.trailers() {
            // The frame of a watcher that panicked at it.
            Some(trailers) => {
                *polled = Some(Ok(trailers));
                Next::Cut
            }
            None => Next::Watch,
        }
    }

    fn waits(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Polled> {
        match self.trailers() {
            Some(trailers) => Poll::Ready(Some(Ok(trailers))),
            None => Poll::Pending,
        }
    }

    fn may_cut(&self) -> bool {
        self.is_grpc
    }
}
