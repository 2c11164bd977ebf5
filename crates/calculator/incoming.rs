//! The connections of a server.

use cinchona_plumbing::Listener;
use socket2::{SockRef, TcpKeepalive};
use std::{
    future::Future,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};
use tokio_stream::Stream;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// The connections to an address. It pauses while none can be accepted, and never ends.
#[derive(Debug)]
pub struct Incoming(Listener);

/// A connection. Its client has 10 s to begin to speak HTTP.
///
/// HTTP/2 begins with the client's preface (RFC 9113, section 3.4), and no limit of HTTP holds
/// before it: without this one, a silent connection would stay for ever. HTTP/1 has limits of its
/// own from its first byte on.
#[derive(Debug)]
pub struct Connection {
    inner: TcpStream,
    /// `None` when it has begun.
    greeting: Option<Greeting>,
}

#[derive(Debug)]
struct Greeting {
    due: Pin<Box<Sleep>>,
    /// The number of bytes of the preface that have arrived.
    said: usize,
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a client may take for it: as long as the dashboard leaves for a head.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a client may be silent before it is probed, and between probes.
const SILENCE: Duration = Duration::from_secs(15);
const PROBE: Duration = Duration::from_secs(5);
/// How long it may acknowledge nothing.
#[cfg(target_os = "linux")]
const GONE: Duration = Duration::from_secs(30);

/// Has the system find a client that has vanished, so that its calls are dropped: by probes while
/// it is silent, and within 30 s by what it does not acknowledge (`TCP_USER_TIMEOUT`, Linux only).
/// HTTP/2's pings find the same, but hyper reads the clock for them with every frame.
fn watch(client: &TcpStream) -> io::Result<()> {
    let client = SockRef::from(client);
    client.set_tcp_keepalive(&TcpKeepalive::new().with_time(SILENCE).with_interval(PROBE))?;
    #[cfg(target_os = "linux")]
    client.set_tcp_user_timeout(Some(GONE))?;
    Ok(())
}

// === impl Incoming ===

impl Incoming {
    /// Listens on `addr`.
    ///
    /// # Errors
    /// When the address cannot be bound; the error names it.
    pub fn bind(addr: SocketAddr) -> io::Result<Self> {
        Listener::bind(addr).map(Self)
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// When the system does not know it.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let (inner, _) = ready!(self.0.poll_accept(cx));
        // One that is gone already fails when it is read.
        _ = watch(&inner);
        let greeting = Some(Greeting { due: Box::pin(sleep(PATIENCE)), said: 0 });
        Poll::Ready(Some(Ok(Connection { inner, greeting })))
    }
}

// === impl Greeting ===

impl Greeting {
    /// Whether these bytes complete it.
    fn is_over(&mut self, bytes: &[u8]) -> bool {
        let due = &PREFACE[self.said..];
        self.said += bytes.len().min(due.len());
        !due.starts_with(&bytes[..bytes.len().min(due.len())]) || self.said == PREFACE.len()
    }
}

// === impl Connection ===

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(cx, buf);
        let Some(greeting) = &mut this.greeting else { return read };
        if greeting.is_over(&buf.filled()[before..]) {
            this.greeting = None;
        } else if greeting.due.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.inner.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_stream::StreamExt;

    #[tokio::test]
    async fn the_system_probes_a_silent_client_and_ends_a_connection_without_acknowledgements() {
        let mut incoming = Incoming::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let _client = TcpStream::connect(incoming.local_addr().unwrap()).await.unwrap();
        let accepted = incoming.next().await.unwrap().unwrap();
        let socket = SockRef::from(&accepted.inner);
        assert!(socket.keepalive().unwrap());
        #[cfg(target_os = "linux")]
        assert_eq!(
            (socket.tcp_keepalive_time().unwrap(), socket.tcp_user_timeout().unwrap()),
            (SILENCE, Some(GONE))
        );
    }

    #[test]
    fn a_greeting_is_over_with_the_preface_or_with_what_is_none() {
        let over = |parts: &[&str]| {
            let mut greeting = Greeting { due: Box::pin(sleep(PATIENCE)), said: 0 };
            parts.iter().any(|part| greeting.is_over(part.as_bytes()))
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _entered = runtime.enter();
        for whole in [
            &["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"][..],
            &["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore"],
            &["PRI * HTTP/2.0\r\n\r\n", "SM\r\n\r", "\n"],
            &["GET / HTTP/1.1"],
            &["P", "UT / HTTP/1.1"],
            &["\u{16}\u{3}\u{1}"],
        ] {
            assert!(over(whole), "{whole:?}");
        }
        let partial = ["", "P", "PRI * HTTP/2.0\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r"];
        assert!(partial.iter().all(|part| !over(&[part, ""])));
    }
}
