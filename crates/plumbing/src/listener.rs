//! Accepts connections, whatever the state of the machine.

use crate::Seldom;
use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::LazyLock,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, Sleep, sleep},
};

/// Accepts TCP connections, and pauses after errors.
///
/// *Why:* if a process has no descriptors left, `accept` fails immediately, and the connection
/// stays in the queue: a loop without a pause would silently use a whole core.
///
/// *Rule:* a connection that is gone before it is accepted is skipped. After any other error it
/// pauses for 10 ms, twice as long after each further one, up to 1 s; it logs a warning at most
/// once a second, and continues. Connections have `TCP_NODELAY`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// let mut listener = cinchona_plumbing::Listener::bind("127.0.0.1:0".parse().unwrap())?;
/// let address = listener.local_addr()?;
/// let (_client, (_server, peer)) =
///     tokio::join!(tokio::net::TcpStream::connect(address), listener.accept());
/// assert!(peer.ip().is_loopback());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Listener {
    inner: TcpListener,
    pause: Option<Pin<Box<Sleep>>>,
    pace: Pace,
}

/// The wait after the next error.
#[derive(Clone, Copy, Debug)]
struct Pace(Duration);

static TROUBLE: LazyLock<Seldom> = LazyLock::new(|| {
    Seldom::new(|more| {
        tracing::warn!(more, "connections cannot be accepted");
    })
});

// === impl Listener ===

impl Listener {
    /// Accepts the connections of `inner`.
    pub const fn new(inner: TcpListener) -> Self {
        Self { inner, pause: None, pace: Pace(Pace::FIRST) }
    }

    /// Listens on that address; port 0 takes any free one.
    ///
    /// # Errors
    /// When the address cannot be bound; the error names it.
    ///
    /// # Panics
    /// Outside a tokio runtime with IO.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let bound = || {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        };
        let bound = bound().map_err(|error| {
            io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
        });
        bound.map(Self::new)
    }

    /// The local address.
    ///
    /// # Errors
    /// When the system does not know it.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// The next connection, and where it is from. Dropping the future loses none.
    pub async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// As [`accept`](Self::accept), for streams.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<(TcpStream, SocketAddr)> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match ready!(self.inner.poll_accept(cx)) {
                Ok((stream, peer)) => {
                    self.pace = Pace(Pace::FIRST);
                    // Options that cannot be set are skipped; a broken connection is reported by a
                    // read.
                    _ = stream.set_nodelay(true);
                    return Poll::Ready((stream, peer));
                }
                Err(error) => {
                    self.pause = self.pace.after(&error).map(|wait| self.rest(&error, wait))
                }
            }
        }
    }

    fn rest(&self, error: &io::Error, wait: Duration) -> Pin<Box<Sleep>> {
        if TROUBLE.is_due(Instant::now()) {
            let address = self.local_addr().ok().map(tracing::field::display);
            tracing::warn!(address, %error, ?wait, "a connection cannot be accepted");
        }
        Box::pin(sleep(wait))
    }
}

impl From<TcpListener> for Listener {
    fn from(inner: TcpListener) -> Self {
        Self::new(inner)
    }
}

// === impl Pace ===

impl Pace {
    const FIRST: Duration = Duration::from_millis(10);
    const LONGEST: Duration = Duration::from_secs(1);

    /// The wait; `None` after an error of a single connection.
    fn after(&mut self, error: &io::Error) -> Option<Duration> {
        use io::ErrorKind::{
            ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, TimedOut,
        };
        let of_one = [ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, TimedOut];
        if of_one.contains(&error.kind()) {
            return None;
        }
        let wait = self.0;
        self.0 = (wait * 2).min(Self::LONGEST);
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // catalogue: S-E20
    #[test]
    fn it_waits_twice_as_long_after_each_error_up_to_a_second() {
        let mut pace = Pace(Pace::FIRST);
        // EMFILE, ENFILE, ENOMEM, ENOBUFS, EPERM.
        let waits = [24, 23, 12, 105, 1, 24, 24, 24, 24]
            .map(|code| pace.after(&io::Error::from_raw_os_error(code)).unwrap().as_millis());
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        let gone = io::Error::from(io::ErrorKind::ConnectionAborted);
        assert_eq!(pace.after(&gone), None, "the next is tried immediately");
    }

    // real clock: sockets.
    #[tokio::test]
    async fn connections_are_accepted_in_turn_with_their_addresses() {
        let mut listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        for _ in 0..3 {
            let client = TcpStream::connect(address).await.unwrap();
            let (server, peer) = listener.accept().await;
            assert_eq!(peer, client.local_addr().unwrap());
            assert!(server.nodelay().unwrap());
        }
        let taken = Listener::bind(address).unwrap_err();
        assert!(taken.to_string().starts_with(&format!("cannot listen on {address}: ")), "{taken}");
    }
}
