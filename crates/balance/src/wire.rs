//! A connection that reports its progress.

use crate::frames::{Frames, Goaway, Said};
use cinchona_core::{BoxError, Rejected};
use cinchona_plumbing::Count;
use http::Uri;
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use std::{
    fmt,
    future::{Ready, ready},
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
};
use tokio::sync::watch;
use tower_service::Service;

/// Bytes both ways, over any transport.
pub(crate) trait Transport: Read + Write + Send + Unpin {}

impl<T: Read + Write + Send + Unpin> Transport for T {}

/// A connection as its connector has made it.
pub(crate) type Io = Box<dyn Transport>;

/// A connection, the frames on it, and its state.
pub(crate) struct Wire {
    io: Io,
    frames: Frames,
    /// The last read, on its way to the reader.
    buffer: Box<[u8]>,
    line: Arc<Line>,
}

/// The state of a connection, as the senders of requests see it.
#[derive(Debug)]
pub(crate) struct Line {
    phase: watch::Sender<Phase>,
    /// Whether the server has sent its SETTINGS, whatever came after them.
    has_settled: AtomicBool,
    /// Whether it has ended, as a single flag for fast reads.
    has_ended: AtomicBool,
    /// How often data has arrived from the server.
    reads: Count,
    /// The largest header list that the server accepts, from its SETTINGS.
    most_headers: AtomicU32,
}

/// The progress of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The server has sent nothing yet.
    New,
    /// It uses TLS, and cannot be read.
    Tls,
    /// The server has sent its SETTINGS.
    Settled,
    Ended(End),
}

/// Why a connection cannot take further requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The server takes no more.
    Goaway(Goaway),
    /// It speaks a protocol other than HTTP/2.
    Other(&'static str),
    Closed,
    Failed(Arc<str>),
}

/// Gives the connection to the channel that is made for it, and fails if the channel asks for
/// another: its endpoint makes a new channel instead.
#[derive(Clone)]
pub(crate) struct Once(Arc<Mutex<Option<Wire>>>, Arc<Line>);

const BUFFER: usize = 16 * 1024;

// === impl Wire ===

impl Wire {
    pub(crate) fn new(io: Io) -> (Self, Arc<Line>) {
        let line = Line::new(Phase::New);
        let buffer = vec![0; BUFFER].into_boxed_slice();
        (Self { io, frames: Frames::new(), buffer, line: line.clone() }, line)
    }
}

impl Read for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { io, frames, buffer, line } = self.get_mut();
        let most = into.remaining().min(BUFFER);
        let mut read = ReadBuf::new(&mut buffer[..most]);
        if let Err(error) = ready!(Pin::new(io).poll_read(cx, read.unfilled())) {
            line.ends(End::Failed(error.to_string().into()));
            return Poll::Ready(Err(error));
        }
        let bytes = read.filled();
        if bytes.is_empty() && most > 0 {
            line.ends(End::Closed);
        } else {
            line.reads.count();
            frames.read(bytes, |said| line.hears(said));
        }
        into.put_slice(bytes);
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, bytes));
        Poll::Ready(self.written(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.io).poll_flush(cx));
        Poll::Ready(self.written(flushed))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bytes));
        Poll::Ready(self.written(written))
    }
}

impl Wire {
    fn written<T>(&self, outcome: io::Result<T>) -> io::Result<T> {
        outcome.inspect_err(|error| self.line.ends(End::Failed(error.to_string().into())))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.line.ends(End::Closed);
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("line", &self.line).finish_non_exhaustive()
    }
}

// === impl Line ===

impl Line {
    fn new(phase: Phase) -> Arc<Self> {
        Arc::new(Self {
            phase: watch::Sender::new(phase),
            has_settled: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            reads: Count::default(),
            most_headers: AtomicU32::new(u32::MAX),
        })
    }

    /// The state of a connection of which only the end can be observed.
    pub(crate) fn unwatched() -> Arc<Self> {
        Self::new(Phase::Tls)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    /// How often data has arrived: the same number later means silence in between.
    pub(crate) fn reads(&self) -> u64 {
        self.reads.read()
    }

    /// The largest header list that the server accepts, as far as known: names, values and 32 bytes
    /// for each header (RFC 9113, section 6.5.2).
    pub(crate) fn most_headers(&self) -> u32 {
        self.most_headers.load(Ordering::Relaxed)
    }

    /// Whether the server's frames can be read.
    pub(crate) fn is_readable(&self) -> bool {
        *self.phase.borrow() != Phase::Tls
    }

    /// Why it has ended, if it has.
    pub(crate) fn end(&self) -> Option<End> {
        match &*self.phase.borrow() {
            Phase::Ended(end) => Some(end.clone()),
            _ => None,
        }
    }

    /// Waits until the server has sent its SETTINGS; under TLS for its handshake.
    pub(crate) async fn settles(&self) -> Result<(), End> {
        let mut phases = self.phase.subscribe();
        let settled = phases.wait_for(|phase| *phase != Phase::New).await;
        match settled.as_deref() {
            _ if self.has_settled.load(Ordering::Acquire) => Ok(()),
            Ok(Phase::Ended(end)) => Err(end.clone()),
            Ok(_) => Ok(()),
            Err(_) => Err(End::Closed),
        }
    }

    /// Waits until it cannot take further requests.
    pub(crate) async fn ended(&self) -> End {
        let mut phases = self.phase.subscribe();
        let ended = phases.wait_for(|phase| matches!(phase, Phase::Ended(_))).await;
        match ended.as_deref() {
            Ok(Phase::Ended(end)) => end.clone(),
            _ => End::Closed,
        }
    }

    fn hears(&self, said: Said) {
        let phase = match said {
            Said::Settings => {
                self.has_settled.store(true, Ordering::Release);
                Phase::Settled
            }
            Said::MostHeaders(most) => return self.most_headers.store(most, Ordering::Relaxed),
            Said::Tls => Phase::Tls,
            Said::Goaway(goaway) => return self.ends(End::Goaway(goaway)),
            Said::Other(what) => return self.ends(End::Other(what)),
        };
        self.phase.send_if_modified(|now| {
            let is_new = *now == Phase::New;
            if is_new {
                *now = phase;
            }
            is_new
        });
    }

    /// Only the first reason counts.
    pub(crate) fn ends(&self, why: End) {
        if self.has_ended.swap(true, Ordering::AcqRel) {
            return;
        }
        self.phase.send_replace(Phase::Ended(why));
    }
}

// === impl End ===

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Goaway(goaway) => goaway.fmt(f),
            Self::Other("TLS") => f.write_str("the server speaks TLS: its address is https://..."),
            Self::Other(what) => write!(f, "the server speaks {what}, not HTTP/2"),
            Self::Closed => f.write_str("the connection was closed"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

// === impl Once ===

impl Once {
    pub(crate) fn new(wire: Wire) -> Self {
        let line = wire.line.clone();
        Self(Arc::new(Mutex::new(Some(wire))), line)
    }
}

impl Service<Uri> for Once {
    type Response = Wire;
    type Error = BoxError;
    type Future = Ready<Result<Wire, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let wire = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if wire.is_none() {
            self.1.ends(End::Closed);
        }
        ready(wire.ok_or_else(|| Rejected::lost("the connection is lost").into()))
    }
}
