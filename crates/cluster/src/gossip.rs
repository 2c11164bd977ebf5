//! The gossip port: what is no gossip is ignored and counted, before chitchat sees it.

use chitchat::{
    ChitchatEnvelope, ChitchatMessage, ProtocolVersion,
    transport::{RecvOutcome, SendOutcome, Socket, Transport, UdpSocket, UdpTransport},
};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{net, time::timeout};
use tonic::async_trait;

/// The most that chitchat sends, and accepts, in a datagram.
const LARGEST: usize = 65_507;
/// One byte more than any datagram has.
const BUFFER: usize = 65_536;

/// How many datagrams were ignored; shared by clones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ignored(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    garbage: AtomicU64,
    strangers: AtomicU64,
}

/// UDP whose garbage is counted.
#[derive(Debug)]
pub(crate) struct Counted(pub(crate) Ignored);

/// Any transport, whose messages of other clusters are counted.
pub(crate) struct Guarded<T> {
    pub(crate) inner: T,
    pub(crate) cluster_id: String,
    pub(crate) ignored: Ignored,
}

/// A socket that is open already, as its address must be known before chitchat asks for it.
pub(crate) struct Opened {
    pub(crate) address: SocketAddr,
    socket: Mutex<Option<Box<dyn Socket>>>,
}

struct GuardedSocket {
    inner: Box<dyn Socket>,
    cluster_id: String,
    ignored: Ignored,
}

struct CountedSocket {
    public: net::UdpSocket,
    codec: Codec,
    received: Box<[u8]>,
    ignored: Ignored,
}

/// A socket of chitchat's on the loopback device: chitchat keeps its format to itself, and does not
/// count what it cannot read. Each datagram goes there, followed by a marker: when the marker comes
/// out first, the datagram was garbage.
struct Codec {
    socket: UdpSocket,
    /// Sends datagrams to the codec, and receives what it has encoded.
    feeder: net::UdpSocket,
    feeder_address: SocketAddr,
    marking: net::UdpSocket,
    marking_address: SocketAddr,
    /// A message that chitchat can read.
    marker: Vec<u8>,
    /// From whom the datagram is that the codec has, and its message once it came out.
    decoding: Option<(SocketAddr, Option<RecvOutcome>)>,
    encoded: Box<[u8]>,
}

// === impl Ignored ===

impl Ignored {
    /// Datagrams that are no gossip.
    pub(crate) fn garbage(&self) -> u64 {
        self.0.garbage.load(Ordering::Relaxed)
    }

    /// Messages of and from other clusters.
    pub(crate) fn strangers(&self) -> u64 {
        self.0.strangers.load(Ordering::Relaxed)
    }

    fn count_garbage(&self, from: SocketAddr, size: usize) {
        self.0.garbage.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%from, size, "a datagram that is no gossip was ignored");
    }

    fn count_stranger(&self, from: SocketAddr) {
        self.0.strangers.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%from, "a message of another cluster was refused");
    }
}

// === impl Counted ===

#[async_trait]
impl Transport for Counted {
    async fn open(&self, listen: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let codec = match Codec::open().await {
            Ok(codec) => codec,
            Err(error) => {
                tracing::warn!(%error, "no loopback device: garbage is ignored and not counted");
                return UdpTransport.open(listen).await;
            }
        };
        let public = net::UdpSocket::bind(listen).await?;
        let (received, ignored) = (vec![0; BUFFER].into(), self.0.clone());
        Ok(Box::new(CountedSocket { public, codec, received, ignored }))
    }
}

// === impl Guarded ===

#[async_trait]
impl<T: Transport> Transport for Guarded<T> {
    async fn open(&self, listen: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let inner = self.inner.open(listen).await?;
        let (cluster_id, ignored) = (self.cluster_id.clone(), self.ignored.clone());
        Ok(Box::new(GuardedSocket { inner, cluster_id, ignored }))
    }
}

// === impl Opened ===

impl Opened {
    pub(crate) fn new(socket: Box<dyn Socket>) -> anyhow::Result<Self> {
        Ok(Self { address: socket.local_addr()?, socket: Mutex::new(Some(socket)) })
    }
}

#[async_trait]
impl Transport for Opened {
    async fn open(&self, _: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner).take();
        socket.ok_or_else(|| io::Error::from(io::ErrorKind::AddrInUse).into())
    }
}

// === impl GuardedSocket ===

#[async_trait]
impl Socket for GuardedSocket {
    fn local_addr(&self) -> anyhow::Result<SocketAddr> {
        self.inner.local_addr()
    }

    async fn send(
        &mut self,
        to: SocketAddr,
        envelope: ChitchatEnvelope,
    ) -> anyhow::Result<SendOutcome> {
        self.inner.send(to, envelope).await
    }

    async fn recv(&mut self) -> anyhow::Result<RecvOutcome> {
        let outcome = self.inner.recv().await?;
        // It is passed on: chitchat answers that it is refused.
        let is_strange = match &outcome.envelope.message {
            ChitchatMessage::Syn { cluster_id, .. } => *cluster_id != self.cluster_id,
            ChitchatMessage::BadCluster => true,
            _ => false,
        };
        if is_strange {
            self.ignored.count_stranger(outcome.from_addr);
        }
        Ok(outcome)
    }
}

// === impl CountedSocket ===

#[async_trait]
impl Socket for CountedSocket {
    fn local_addr(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.public.local_addr()?)
    }

    async fn send(
        &mut self,
        to: SocketAddr,
        envelope: ChitchatEnvelope,
    ) -> anyhow::Result<SendOutcome> {
        let bytes = self.codec.encode(envelope).await?;
        Ok(SendOutcome { num_bytes_sent: self.public.send_to(bytes, to).await? })
    }

    /// May be dropped at each await: what it has received stays in the codec.
    async fn recv(&mut self) -> anyhow::Result<RecvOutcome> {
        loop {
            if let Some((from, decoded)) = self.codec.decoded().await? {
                match decoded {
                    Some(outcome) => return Ok(RecvOutcome { from_addr: from, ..outcome }),
                    None => self.ignored.count_garbage(from, 0),
                }
            }
            self.codec.is_writable().await?;
            let (size, from) = match self.public.recv_from(&mut self.received).await {
                Ok(received) => received,
                // A peer is not there (yet), or memory is short.
                Err(error) if is_transient(&error) => continue,
                Err(error) => return Err(error.into()),
            };
            let datagram = &self.received[..size];
            if size > LARGEST || self.codec.decode(datagram, from).is_err() {
                self.ignored.count_garbage(from, size);
            }
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, Interrupted, OutOfMemory};
    matches!(error.kind(), ConnectionRefused | ConnectionReset | Interrupted | OutOfMemory)
}

// === impl Codec ===

impl Codec {
    async fn open() -> anyhow::Result<Self> {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let socket = UdpSocket::open(loopback).await?;
        let address = socket.local_addr()?;
        let [feeder, marking] =
            [net::UdpSocket::bind(loopback).await?, net::UdpSocket::bind(loopback).await?];
        feeder.connect(address).await?;
        marking.connect(address).await?;
        let (feeder_address, marking_address) = (feeder.local_addr()?, marking.local_addr()?);
        let (marker, encoded) = (Vec::new(), vec![0; BUFFER].into());
        let mut codec = Self {
            socket,
            feeder,
            feeder_address,
            marking,
            marking_address,
            marker,
            decoding: None,
            encoded,
        };
        let (version, message) = (ProtocolVersion::V0, ChitchatMessage::BadCluster);
        codec.marker = codec.encode(ChitchatEnvelope { version, message }).await?.to_vec();
        Ok(codec)
    }

    async fn encode(&mut self, envelope: ChitchatEnvelope) -> anyhow::Result<&[u8]> {
        self.socket.send(self.feeder_address, envelope).await?;
        let size = timeout(Duration::from_secs(1), self.feeder.recv(&mut self.encoded)).await??;
        Ok(&self.encoded[..size])
    }

    async fn is_writable(&self) -> io::Result<()> {
        self.feeder.writable().await?;
        self.marking.writable().await
    }

    /// Begins to decode; at once, as nothing may be dropped between the datagram and its marker.
    fn decode(&mut self, datagram: &[u8], from: SocketAddr) -> io::Result<()> {
        self.feeder.try_send(datagram)?;
        self.marking.try_send(&self.marker)?;
        self.decoding = Some((from, None));
        Ok(())
    }

    /// What became of the datagram that is being decoded, if one is: from whom it was, and its
    /// message, unless it was garbage.
    async fn decoded(&mut self) -> anyhow::Result<Option<(SocketAddr, Option<RecvOutcome>)>> {
        while let Some((_, message)) = &mut self.decoding {
            // Without its marker it would wait for ever.
            let Ok(outcome) = timeout(Duration::from_secs(1), self.socket.recv()).await else {
                return Ok(self.decoding.take());
            };
            let outcome = outcome?;
            if outcome.from_addr == self.marking_address {
                return Ok(self.decoding.take());
            }
            // Whatever else comes is of another program on this machine.
            if outcome.from_addr == self.feeder_address {
                *message = Some(outcome);
            }
        }
        Ok(None)
    }
}
