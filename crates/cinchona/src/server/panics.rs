//! Panics that fail one call.

use bytes::Bytes;
use cinchona_core::{Mode, Switch};
use cinchona_plumbing::Seldom;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
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

/// Answers `INTERNAL` if the service below panics: in its call, in its future, or in the body of
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

pin_project! {
    /// A response body that ends with `INTERNAL` if it panics.
    #[project = PanicBodyProj]
    #[derive(Default)]
    pub enum PanicBody<B> {
        /// The layer is off.
        Bare { #[pin] inner: B },
        /// The service's body.
        Watched { #[pin] inner: B },
        /// The body has ended.
        #[default]
        Ended,
    }
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
{
    type Response = Response<PanicBody<R>>;
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
                // The future reports it.
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
{
    type Output = Result<Response<PanicBody<R>>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let status = match self.as_mut().project() {
            PanicFutureProj::Bare { inner } => {
                let bare = |inner| PanicBody::Bare { inner };
                return inner.poll(cx).map_ok(|response| response.map(bare));
            }
            PanicFutureProj::Watched { inner } => {
                match catch_unwind(AssertUnwindSafe(|| inner.poll(cx))) {
                    Ok(polled) => {
                        let watched = |inner| PanicBody::Watched { inner };
                        return polled.map_ok(|response| response.map(watched));
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

// === impl PanicBody ===

impl<B: Body<Data = Bytes>> Body for PanicBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let panic = match self.as_mut().project() {
            PanicBodyProj::Ended => return Poll::Ready(None),
            PanicBodyProj::Bare { inner } => return inner.poll_frame(cx),
            PanicBodyProj::Watched { inner } => {
                match catch_unwind(AssertUnwindSafe(|| inner.poll_frame(cx))) {
                    Ok(polled) => return polled,
                    Err(panic) => panic,
                }
            }
        };
        self.set(Self::Ended);
        let mut trailers = HeaderMap::new();
        // Its message is ASCII.
        _ = answer(panic).add_header(&mut trailers);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Bare { inner } | Self::Watched { inner } => inner.is_end_stream(),
            Self::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Bare { inner } | Self::Watched { inner } => inner.size_hint(),
            Self::Ended => SizeHint::with_exact(0),
        }
    }
}

impl<B> fmt::Debug for PanicBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PanicBody").finish_non_exhaustive()
    }
}
