//! A connection that tells when it is of no use any more.

use crate::connect::attempt;
use cinchona_core::{BoxError, Unsent};
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};
use tokio::sync::oneshot;
use tower_service::Service;

pin_project! {
    /// A connection that says when it is dropped.
    #[derive(Debug)]
    pub(crate) struct Noticed<I> {
        #[pin]
        io: I,
        _dropped: OnDrop,
    }
}

/// Makes one connection, and tells when that is of no use any more: when it is dropped, or when a
/// channel would make another, since the server has said GOAWAY. It cannot: its endpoint makes a
/// new channel, and the old one ends the calls that it has.
#[derive(Clone, Debug)]
pub(crate) struct Watched<C> {
    inner: C,
    lost: Arc<Lost>,
}

/// Who is to be told, once.
struct Lost {
    told: Mutex<Option<oneshot::Sender<()>>>,
    has_connected: AtomicBool,
    /// Called at once where a call has found out, before the next one does.
    at_once: Box<dyn Fn() + Send + Sync>,
}

#[derive(Debug)]
struct OnDrop(Arc<Lost>);

// === impl Watched ===

impl<C> Watched<C> {
    pub(crate) fn new(
        inner: C,
        at_once: impl Fn() + Send + Sync + 'static,
    ) -> (Self, oneshot::Receiver<()>) {
        let (sender, lost) = oneshot::channel();
        let told = Mutex::new(Some(sender));
        let at_once = Box::new(at_once);
        let lost_too = Lost { told, has_connected: AtomicBool::new(false), at_once };
        (Self { inner, lost: Arc::new(lost_too) }, lost)
    }
}

impl<C> Service<Uri> for Watched<C>
where
    C: Service<Uri> + Clone + Send + Sync + 'static,
    C::Response: Send,
    C::Error: Into<BoxError>,
    C::Future: Send,
{
    type Response = Noticed<C::Response>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connector, lost) = (self.inner.clone(), self.lost.clone());
        if lost.has_connected() {
            if lost.tell() {
                (lost.at_once)();
            }
            return Box::pin(async { Err(Unsent::lost("the connection is lost").into()) });
        }
        Box::pin(async move {
            let dropped = OnDrop(lost);
            Ok(Noticed { io: attempt(connector, uri).await?, _dropped: dropped })
        })
    }
}

// === impl Lost ===

impl Lost {
    /// Whether it has made its connection, or has tried to.
    fn has_connected(&self) -> bool {
        self.has_connected.swap(true, Ordering::Relaxed)
    }

    /// Whether this was the first to say so.
    fn tell(&self) -> bool {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).take();
        told.is_some_and(|told| told.send(()).is_ok())
    }
}

impl fmt::Debug for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lost").finish_non_exhaustive()
    }
}

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.tell();
    }
}

// === impl Noticed ===

impl<I: Read> Read for Noticed<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.project().io.poll_read(cx, into)
    }
}

impl<I: Write> Write for Noticed<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.project().io.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().io.poll_write_vectored(cx, bytes)
    }
}
