//! A socket that can be frozen and cut, that says what HTTP/2 does not, and counts what it reads.

use super::script::Goaway;
use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

pub(super) trait Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Its end will be a RST.
    fn make_hard(&self);
}

/// What can be done to a connection while it is served.
#[derive(Debug, Default)]
pub(super) struct Tap {
    frozen: AtomicBool,
    cut: AtomicBool,
    hard: AtomicBool,
    /// Frames of our own that are still to be written.
    raw: Mutex<Vec<u8>>,
    /// The task that serves it.
    waker: Mutex<Option<Waker>>,
    /// PINGs that were read.
    pings: Arc<AtomicU64>,
}

#[derive(Debug)]
pub(super) struct Tapped<S> {
    socket: S,
    tap: Arc<Tap>,
    /// How many bytes are left of the preface, or of the frame.
    skip: usize,
    head: Vec<u8>,
}

const PREFACE: usize = 24;
const PING: u8 = 6;
const ACK: u8 = 1;

// === impl Tap ===

impl Tap {
    /// One that counts PINGs there.
    pub(super) fn new(pings: Arc<AtomicU64>) -> Self {
        Self { pings, ..Self::default() }
    }

    pub(super) fn freeze(&self) {
        self.frozen.store(true, Relaxed);
    }

    pub(super) fn cut(&self) {
        self.cut.store(true, Relaxed);
        self.wake();
    }

    pub(super) fn cut_hard(&self) {
        self.hard.store(true, Relaxed);
        self.cut();
    }

    /// Says goodbye; `stream` is the last of which it speaks.
    pub(super) fn go_away(&self, goaway: &Goaway, stream: u32) {
        let last = if goaway.turns_away { stream.saturating_sub(2) } else { i32::MAX as u32 };
        let length = (8 + goaway.debug.len()) as u32;
        let mut frame = length.to_be_bytes()[1..].to_vec();
        frame.extend([7, 0, 0, 0, 0, 0]);
        frame.extend(last.to_be_bytes());
        frame.extend(goaway.code.to_be_bytes());
        frame.extend(goaway.debug.as_bytes());
        self.raw.lock().unwrap_or_else(PoisonError::into_inner).extend(frame);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }
}

// === impl Tapped ===

impl<S> Tapped<S> {
    pub(super) fn new(socket: S, tap: Arc<Tap>) -> Self {
        Self { socket, tap, skip: PREFACE, head: Vec::new() }
    }

    fn count(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            (self.skip, bytes) = (self.skip - skipped, &bytes[skipped..]);
            let taken = (9 - self.head.len()).min(bytes.len());
            self.head.extend(&bytes[..taken]);
            bytes = &bytes[taken..];
            if let [a, b, c, kind, flags, ..] = self.head[..]
                && self.head.len() == 9
            {
                self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
                self.head.clear();
                let is_ping = kind == PING && flags & ACK == 0;
                self.tap.pings.fetch_add(u64::from(is_ping), Relaxed);
            }
        }
    }

    fn is_held(&self, cx: &Context<'_>) -> bool {
        let mut waker = self.tap.waker.lock().unwrap_or_else(PoisonError::into_inner);
        *waker = Some(cx.waker().clone());
        self.tap.frozen.load(Relaxed)
    }
}

impl<S: Socket> Tapped<S> {
    /// Whether it is to end, and has: what was written before has left, and so has a FIN.
    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if !self.tap.cut.load(Relaxed) {
            return Poll::Ready(false);
        }
        if self.tap.hard.load(Relaxed) {
            self.socket.make_hard();
            return Poll::Ready(true);
        }
        if ready!(Pin::new(&mut self.socket).poll_shutdown(cx)).is_err() {
            return Poll::Ready(true);
        }
        // Read what the other end still sends, or else the kernel would send it a RST.
        let mut bytes = [0; 4096];
        loop {
            let mut read = ReadBuf::new(&mut bytes);
            let polled = ready!(Pin::new(&mut self.socket).poll_read(cx, &mut read));
            if polled.is_err() || read.filled().is_empty() {
                return Poll::Ready(true);
            }
        }
    }

    fn poll_raw(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let tap = self.tap.clone();
        let mut raw = tap.raw.lock().unwrap_or_else(PoisonError::into_inner);
        while !raw.is_empty() {
            let written = ready!(Pin::new(&mut self.socket).poll_write(cx, &raw))?;
            raw.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Socket> AsyncRead for Tapped<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_held(cx) {
            return Poll::Pending;
        }
        if ready!(self.poll_cut(cx)) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        self.count(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: Socket> AsyncWrite for Tapped<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_held(cx) {
            Poll::Pending
        } else {
            Pin::new(&mut self.socket).poll_write(cx, bytes)
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_held(cx) {
            return Poll::Pending;
        }
        ready!(self.poll_raw(cx))?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_held(cx) { Poll::Pending } else { Pin::new(&mut self.socket).poll_shutdown(cx) }
    }
}

// === impl Socket ===

impl Socket for TcpStream {
    fn make_hard(&self) {
        // One that is closed already is reset as well.
        _ = self.set_zero_linger();
    }
}

impl Socket for UnixStream {
    fn make_hard(&self) {}
}
