//! Connections that can be cut.

use crate::phases::{Open, Shared};
use pin_project_lite::pin_project;
use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_stream::Stream;
use tonic::transport::server::Connected;

pin_project! {
    /// The connections that a server accepts; each is cut at the end of the grace.
    #[derive(Debug)]
    pub struct DrainIncoming<I> {
        #[pin]
        incoming: I,
        shared: Arc<Shared>,
    }
}

/// A connection whose reads and writes fail with `ConnectionAborted` after the grace.
#[derive(Debug)]
pub struct DrainIo<I> {
    io: I,
    open: Open,
}

// === impl DrainIncoming ===

impl<I> DrainIncoming<I> {
    pub(crate) fn new(incoming: I, shared: Arc<Shared>) -> Self {
        Self { incoming, shared }
    }
}

impl<I, IO, E> Stream for DrainIncoming<I>
where
    I: Stream<Item = Result<IO, E>>,
{
    type Item = Result<DrainIo<IO>, E>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.project();
        let shared = this.shared;
        let accepted = this.incoming.poll_next(cx);
        accepted.map_ok(|io| DrainIo { io, open: shared.open() })
    }
}

// === impl DrainIo ===

impl<I> DrainIo<I> {
    /// The result of `poll`, unless the connection was cut.
    fn unless_cut<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut I>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>>
    where
        I: Unpin,
    {
        if self.open.is_cut() {
            return Poll::Ready(Err(cut()));
        }
        let polled = poll(Pin::new(&mut self.io), cx);
        if polled.is_pending() {
            self.open.task.register(cx.waker());
            // It may have been cut before its task was registered.
            if self.open.is_cut() {
                return Poll::Ready(Err(cut()));
            }
        }
        polled
    }
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the server has ended")
}

impl<I: AsyncRead + Unpin> AsyncRead for DrainIo<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.unless_cut(cx, |io, cx| io.poll_read(cx, buf))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for DrainIo<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.unless_cut(cx, |io, cx| io.poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.unless_cut(cx, |io, cx| io.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.unless_cut(cx, |io, cx| io.poll_shutdown(cx))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.unless_cut(cx, |io, cx| io.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl<I: Connected> Connected for DrainIo<I> {
    type ConnectInfo = I::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.io.connect_info()
    }
}
