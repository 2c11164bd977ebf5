//! Faults of a connection, injected into its bytes.

use cinchona_core::{BoxError, Rejected};
use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// A connection of a server on which a [`FaultLayer`](crate::FaultLayer) can inject `drop`,
/// `goaway` and `cut=N:drop`.
///
/// # Why
///
/// A layer sees requests, not their connections. tonic gives a layer nothing of a connection but
/// its `ConnectInfo`; replacing that would hide the peer's address from all code that reads it.
///
/// # Rule
///
/// * The layer resets the request's stream with a private HTTP/2 error code that stands for the
///   fault. This wrapper reads the head of each frame that the server writes; it removes such a
///   reset and injects the fault. All else passes unchanged, `ConnectInfo` too.
/// * `drop`: reads and writes fail with `ConnectionReset`, and the server closes the socket.
///   Whether the client gets a TCP `RST` or a `FIN` depends on the socket (`set_linger`).
/// * `goaway`: a `GOAWAY` with `NO_ERROR` and the highest stream id, as in an ordinary shutdown,
///   and `REFUSED_STREAM` for the request, which was not executed. With a code: `GOAWAY` with it,
///   and the connection is closed.
/// * Calls that the client has not sent by then fail at the client, as when any connection ends;
///   they never reach the layer and are not counted.
///
/// # Example
///
/// ```no_run
/// # async fn serve(layer: cinchona_fault::FaultLayer) -> Result<(), Box<dyn std::error::Error>> {
/// use cinchona_fault::FaultIo;
/// use tokio_stream::StreamExt;
/// use tonic::transport::{Server, server::TcpIncoming};
///
/// let incoming = TcpIncoming::bind("[::1]:50051".parse()?)?.map(|io| io.map(FaultIo::new));
/// let (_, health) = tonic_health::server::health_reporter();
/// Server::builder().layer(layer).add_service(health).serve_with_incoming(incoming).await?;
/// # Ok(())
/// # }
/// ```
///
/// # What it does not do
///
/// It reads HTTP/2 only: over tonic's own TLS it sees only ciphertext, and HTTP/1.1 has no streams.
/// There, and where a server does not use it, the client sees the reset.
pub struct FaultIo<I> {
    io: I,
    frames: Frames,
    /// To be written before anything else.
    ours: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Ends once our own bytes are written.
    Closing,
    Dropped,
}

/// The position of a stream of bytes in HTTP/2's frames.
#[derive(Debug, Default)]
struct Frames {
    /// The bytes are not, or no longer, understood.
    is_blind: bool,
    has_begun: bool,
    /// The head of a frame, as far as it has passed.
    head: [u8; HEAD],
    passed: usize,
    /// The rest of its payload.
    payload: usize,
}

/// The order that the layer encodes in the code of a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Drop,
    GoAway(Option<u32>),
}

/// Below a client: an invalid reply, as the call fails as by a reset with this code.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reset(pub(crate) u32);

const HEAD: usize = 9;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const REFUSED_STREAM: u32 = 7;
/// A complete reset: its head, and the code.
const RESET: usize = HEAD + 4;

/// The codes of orders, far from those of RFC 9113; a `GOAWAY` with a code has it in its last byte.
const DROP: u32 = 0xc1ac_0100;
const GO_AWAY: u32 = 0xc1ac_0200;
const GO_AWAY_WITH: u32 = 0xc1ac_0300;

/// A frame to write, or an order in its place.
enum Next {
    /// So many bytes may pass.
    Pass(usize),
    Ordered(Order, [u8; 4]),
}

// === impl FaultIo ===

impl<I> FaultIo<I> {
    /// A connection that the server accepted.
    pub fn new(io: I) -> Self {
        Self { io, frames: Frames::default(), ours: Vec::new(), state: State::Open }
    }

    fn obey(&mut self, order: Order, stream: [u8; 4]) {
        tracing::debug!(?order, "injecting a fault into a connection");
        let code = match order {
            Order::Drop => return self.state = State::Dropped,
            Order::GoAway(code) => code,
        };
        let last = u32::MAX >> 1;
        frame(&mut self.ours, GOAWAY, [0; 4], [last, code.unwrap_or(0)]);
        match code {
            Some(_) => self.state = State::Closing,
            None => frame(&mut self.ours, RST_STREAM, stream, [REFUSED_STREAM]),
        }
    }
}

fn frame<const N: usize>(into: &mut Vec<u8>, kind: u8, stream: [u8; 4], words: [u32; N]) {
    let payload = words.map(u32::to_be_bytes).concat();
    into.extend([0, 0, payload.len() as u8, kind, 0]);
    into.extend(stream);
    into.extend(payload);
}

fn lost() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "injected")
}

impl<I: AsyncWrite + Unpin> FaultIo<I> {
    /// Writes our own bytes, and fails if the connection is to be lost.
    fn poll_ours(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.state == State::Dropped {
            return Poll::Ready(Err(lost()));
        }
        while !self.ours.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.ours))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.ours.drain(..written);
        }
        if self.state == State::Closing {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.state = State::Dropped;
            return Poll::Ready(Err(lost()));
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for FaultIo<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.state == State::Dropped {
            return Poll::Ready(Err(lost()));
        }
        // The task that writes is the one that reads: its write reports the drop.
        Pin::new(&mut this.io).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for FaultIo<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_ours(cx))?;
        match this.frames.next(buf) {
            Next::Pass(most) => {
                let written = ready!(Pin::new(&mut this.io).poll_write(cx, &buf[..most]))?;
                this.frames.pass(&buf[..written]);
                Poll::Ready(Ok(written))
            }
            Next::Ordered(order, stream) => {
                this.obey(order, stream);
                if this.state == State::Dropped {
                    return Poll::Ready(Err(lost()));
                }
                Poll::Ready(Ok(RESET))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_ours(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.state == State::Open {
            ready!(this.poll_ours(cx))?;
        }
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

impl<I: Connected> Connected for FaultIo<I> {
    type ConnectInfo = I::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.io.connect_info()
    }
}

impl<I: fmt::Debug> fmt::Debug for FaultIo<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultIo").field("io", &self.io).field("state", &self.state).finish()
    }
}

// === impl Frames ===

impl Frames {
    /// How much of `bytes` may pass before an order, or the order at their beginning.
    fn next(&self, bytes: &[u8]) -> Next {
        if self.is_blind {
            return Next::Pass(bytes.len());
        }
        let mut at = self.payload;
        if self.passed > 0 {
            // An order never passes in part, so this frame is none; its end is found later.
            return Next::Pass(bytes.len().min(HEAD - self.passed));
        }
        while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= HEAD) {
            if let Some((order, stream)) = ordered(rest) {
                return if at == 0 { Next::Ordered(order, stream) } else { Next::Pass(at) };
            }
            if rest[3] == RST_STREAM && rest.len() < RESET {
                break;
            }
            at += HEAD + length(rest);
        }
        // A cut-off rest waits for its turn, as it may be half of an order.
        Next::Pass(if at == 0 { bytes.len() } else { at.min(bytes.len()) })
    }

    fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.is_blind {
            if self.payload > 0 {
                let part = self.payload.min(bytes.len());
                self.payload -= part;
                bytes = &bytes[part..];
                continue;
            }
            let part = (HEAD - self.passed).min(bytes.len());
            self.head[self.passed..self.passed + part].copy_from_slice(&bytes[..part]);
            self.passed += part;
            bytes = &bytes[part..];
            if self.passed == HEAD {
                self.passed = 0;
                self.payload = length(&self.head);
                // A server's first frame is its settings, on stream 0 (RFC 9113, section 3.4).
                let is_first = self.head[3] == SETTINGS && self.head[5..] == [0; 4];
                self.is_blind = !self.has_begun && !is_first;
                self.has_begun = true;
            }
        }
    }
}

fn length(head: &[u8]) -> usize {
    head.iter().take(3).fold(0, |length, byte| (length << 8) | usize::from(*byte))
}

/// The order at the beginning of the bytes, and its stream.
fn ordered(bytes: &[u8]) -> Option<(Order, [u8; 4])> {
    let reset = bytes.get(..RESET)?;
    if length(reset) != RESET - HEAD || reset[3] != RST_STREAM {
        return None;
    }
    let word = |at: usize| reset.get(at..at + 4).and_then(|word| word.try_into().ok());
    let code = u32::from_be_bytes(word(HEAD)?);
    Order::of(code).zip(word(HEAD - 4))
}

// === impl Order ===

impl Order {
    /// As the code of a reset.
    pub(crate) fn code(self) -> u32 {
        match self {
            Self::Drop => DROP,
            Self::GoAway(None) => GO_AWAY,
            Self::GoAway(Some(code)) => GO_AWAY_WITH | (code & 0xff),
        }
    }

    fn of(code: u32) -> Option<Self> {
        match code {
            DROP => Some(Self::Drop),
            GO_AWAY => Some(Self::GoAway(None)),
            _ if code & !0xff == GO_AWAY_WITH => Some(Self::GoAway(Some(code & 0xff))),
            _ => None,
        }
    }
}

// === impl Reset ===

impl Reset {
    /// The error of a client's transport for it, or for the fault that it stands for.
    pub(crate) fn seen(self) -> BoxError {
        match Order::of(self.0) {
            Some(Order::Drop | Order::GoAway(Some(_))) => {
                let lost = "the connection was lost (injected)";
                io::Error::new(io::ErrorKind::BrokenPipe, lost).into()
            }
            Some(Order::GoAway(None)) => Rejected::lost("the server goes away (injected)").into(),
            None if self.0 == REFUSED_STREAM => {
                Rejected::lost("the stream was refused (injected)").into()
            }
            None => h2::Error::from(h2::Reason::from(self.0)).into(),
        }
    }
}

#[cfg(test)]
mod tests;
