//! Two lanes of bytes, each chunk with its time of arrival.

use bytes::{Buf, Bytes};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{Notify, mpsc},
    time::{Instant, Sleep, sleep_until},
};
use tonic::transport::server::Connected;

/// One end of a connection through a [`Network`](crate::Network).
///
/// Reads wait for the bytes to arrive; writes never wait. Dropping an end closes it: the other end
/// reads the rest and then the end of the stream, one latency later.
#[derive(Debug)]
pub struct Connection {
    shared: Arc<Shared>,
    id: u64,
    side: Side,
    arrival: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug, Default)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Notifies pending connects of a changed control.
    pub(crate) turned: Notify,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) latency: Duration,
    pub(crate) held: bool,
    pub(crate) refusing: bool,
    pub(crate) blackholed: bool,
    pub(crate) connects: u64,
    pub(crate) listener: Option<mpsc::UnboundedSender<Connection>>,
    /// Ordered by age, so that an effect on all of them is in the same order every time.
    pub(crate) wires: BTreeMap<u64, Wire>,
}

/// Which end of a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// A connection as the network sees it.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    is_reset: bool,
    /// No byte arrives any more, either way.
    is_frozen: bool,
    closed: [bool; 2],
    /// The bytes that each side reads.
    lanes: [Lane; 2],
}

#[derive(Debug, Default)]
struct Lane {
    /// In the order they were written: a late one delays those behind it.
    chunks: VecDeque<(Instant, Bytes)>,
    end: Option<Instant>,
    reader: Option<Waker>,
}

/// The result of polling a lane.
enum Look {
    Done,
    Until(Instant),
    Parked,
}

// === impl Shared ===

impl Shared {
    /// The state; never held across a wake, a drop of a connection or a wait.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until connects are allowed.
    pub(crate) async fn open(&self) {
        loop {
            // Created before the check, so that no later change is missed.
            let turned = self.turned.notified();
            let closed = {
                let state = self.lock();
                state.held || state.blackholed
            };
            if !closed {
                return;
            }
            turned.await;
        }
    }
}

// === impl Connection ===

impl Connection {
    pub(crate) fn new(shared: Arc<Shared>, id: u64, side: Side) -> Self {
        Self { shared, id, side, arrival: None }
    }

    fn look(&self, cx: &Context<'_>, buf: &mut ReadBuf<'_>) -> io::Result<Look> {
        let mut state = self.shared.lock();
        let held = state.held;
        let wire = state.wires.get_mut(&self.id).ok_or(io::ErrorKind::NotConnected)?;
        wire.check()?;
        let held = held || wire.is_frozen;
        let lane = wire.reads(self.side);
        let look = if held { Look::Parked } else { lane.read(Instant::now(), buf) };
        if !matches!(look, Look::Done) {
            // Also while the timer runs: a reset or a hold must not wait for it.
            lane.reader = Some(cx.waker().clone());
        }
        Ok(look)
    }

    /// Lets `send` write into the lane that the other end reads.
    fn send(&self, send: impl FnOnce(&mut Lane, Instant)) -> io::Result<()> {
        let reader = {
            let mut state = self.shared.lock();
            let due = Instant::now() + state.latency;
            let wire = state.wires.get_mut(&self.id).ok_or(io::ErrorKind::NotConnected)?;
            wire.check()?;
            if wire.closed[self.side.other() as usize] {
                // There is no reader: as with TCP, this end notices when the end arrives.
                return Ok(());
            }
            let lane = wire.reads(self.side.other());
            if lane.end.is_some() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            send(lane, due);
            lane.reader.take()
        };
        reader.into_iter().for_each(Waker::wake);
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let due = match this.look(cx, buf)? {
                Look::Done => return Poll::Ready(Ok(())),
                Look::Parked => return Poll::Pending,
                Look::Until(due) => due,
            };
            let arrival = this.arrival.get_or_insert_with(|| Box::pin(sleep_until(due)));
            if arrival.deadline() != due {
                arrival.as_mut().reset(due);
            }
            ready!(arrival.as_mut().poll(cx));
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let bytes = Bytes::copy_from_slice(buf);
        let sent = self.send(|lane, due| lane.chunks.push_back((due, bytes)));
        Poll::Ready(sent.map(|()| buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.send(|lane, due| lane.end = Some(due)) {
            Err(err) if err.kind() == io::ErrorKind::BrokenPipe => Poll::Ready(Ok(())),
            sent => Poll::Ready(sent),
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Fails only without a receiver.
        let _ = self.send(|lane, due| lane.end = Some(due));
        let mut state = self.shared.lock();
        if let Some(wire) = state.wires.get_mut(&self.id) {
            wire.closed[self.side as usize] = true;
            wire.reads(self.side).chunks.clear();
            if wire.closed == [true; 2] {
                state.wires.remove(&self.id);
            }
        }
    }
}

// === impl Side ===

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

// === impl Wire ===

impl Wire {
    pub(crate) fn freeze(&mut self) {
        self.is_frozen = true;
    }

    pub(crate) fn is_live(&self) -> bool {
        !self.is_reset && self.closed == [false; 2]
    }

    /// Fails both ends; bytes in transit are lost.
    pub(crate) fn reset(&mut self) {
        self.is_reset = true;
        self.lanes.iter_mut().for_each(|lane| lane.chunks.clear());
    }

    /// The wakers of both ends, for a change that affects both.
    pub(crate) fn readers(&mut self) -> impl Iterator<Item = Waker> + '_ {
        self.lanes.iter_mut().filter_map(|lane| lane.reader.take())
    }

    fn check(&self) -> io::Result<()> {
        if self.is_reset { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }

    fn reads(&mut self, side: Side) -> &mut Lane {
        &mut self.lanes[side as usize]
    }
}

// === impl Lane ===

impl Lane {
    /// Moves the bytes that have arrived by `now` into `buf`, or returns when to poll again.
    fn read(&mut self, now: Instant, buf: &mut ReadBuf<'_>) -> Look {
        let before = buf.remaining();
        while let Some((due, bytes)) = self.chunks.front_mut().filter(|_| buf.remaining() > 0) {
            if *due > now {
                return if buf.remaining() < before { Look::Done } else { Look::Until(*due) };
            }
            let len = bytes.len().min(buf.remaining());
            buf.put_slice(&bytes[..len]);
            bytes.advance(len);
            if bytes.is_empty() {
                self.chunks.pop_front();
            }
        }
        if before == 0 || buf.remaining() < before {
            return Look::Done;
        }
        match self.end {
            Some(due) if due > now => Look::Until(due),
            Some(_) => Look::Done,
            None => Look::Parked,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Connection, Network};
    use std::{io, time::Duration};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::{Instant, timeout},
    };
    use tokio_stream::StreamExt;

    const LATENCY: Duration = Duration::from_millis(10);

    async fn pair(net: &Network) -> (Connection, Connection) {
        let mut incoming = net.incoming();
        let client = net.connect().await.unwrap();
        (client, incoming.next().await.unwrap().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_arrive_one_latency_after_they_were_written() {
        let net = Network::new();
        let (mut client, mut server) = pair(&net).await;
        net.set_latency(LATENCY);
        let written = Instant::now();
        client.write_all(b"ping").await.unwrap();
        assert_eq!(Instant::now(), written, "a write does not wait");
        let mut buf = [0; 4];
        server.read_exact(&mut buf).await.unwrap();
        assert_eq!((&buf, Instant::now() - written), (b"ping", LATENCY));
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_written_at_a_shorter_latency_do_not_overtake() {
        let net = Network::new();
        let (mut client, mut server) = pair(&net).await;
        net.set_latency(LATENCY);
        client.write_all(b"first").await.unwrap();
        net.set_latency(Duration::ZERO);
        client.write_all(b"second").await.unwrap();
        drop(client);
        let mut read = String::new();
        server.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "firstsecond");
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_end_is_read_to_its_end_one_latency_later() {
        let net = Network::new();
        let (mut client, server) = pair(&net).await;
        net.set_latency(LATENCY);
        let dropped = Instant::now();
        drop(server);
        assert_eq!(net.live(), 0);
        client.write_all(b"into the void").await.unwrap();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
        assert_eq!(Instant::now() - dropped, LATENCY);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reset_fails_reads_and_writes_of_both_ends_even_while_held() {
        let net = Network::new();
        let (mut client, mut server) = pair(&net).await;
        client.write_all(b"lost").await.unwrap();
        net.hold();
        let reading = tokio::spawn(async move { server.read(&mut [0; 8]).await });
        tokio::task::yield_now().await;
        net.reset();
        let read = timeout(LATENCY, reading).await.unwrap().unwrap().unwrap_err();
        let written = client.write_all(b"more").await.unwrap_err();
        assert_eq!(read.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(written.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(net.live(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_delays_bytes_and_loses_none() {
        let net = Network::new();
        let (mut client, mut server) = pair(&net).await;
        net.set_latency(LATENCY);
        let begun = Instant::now();
        client.write_all(b"before").await.unwrap();
        net.hold();
        client.write_all(b"after").await.unwrap();
        client.shutdown().await.unwrap();
        let reading = tokio::spawn(async move {
            let mut read = String::new();
            server.read_to_string(&mut read).await.map(|_| read)
        });
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!reading.is_finished());
        net.release();
        assert_eq!(reading.await.unwrap().unwrap(), "beforeafter");
        assert_eq!(Instant::now() - begun, Duration::from_secs(60));
    }
}
