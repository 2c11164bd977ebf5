//! The gossip port: datagrams that are not gossip, or not sealed, are ignored and counted.

use crate::{
    ignored::Ignored,
    seal::SIZE,
    shared::Shared,
    store,
    wire::{self, LARGEST, Message, Summary, Update},
};
use cinchona_plumbing::Count;
use cinchona_policy::cluster::Twin;
use rand::{RngExt, seq::IndexedRandom};
use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::UdpSocket,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

/// Sends and receives datagrams: a [`UdpSocket`], or an in-memory network for a test in virtual
/// time.
pub trait Datagrams: Send + Sync + 'static {
    /// The local address.
    ///
    /// # Errors
    /// When there is no such address.
    fn address(&self) -> io::Result<SocketAddr>;

    /// Sends `datagram` immediately, or fails: gossip is repeated, and must not wait.
    ///
    /// # Errors
    /// When it was not sent.
    fn send(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()>;

    /// The next datagram: its length in `into`, and its sender. Cancel safe: dropping the future
    /// loses no datagram.
    fn receive(
        &self,
        into: &mut [u8],
    ) -> impl Future<Output = io::Result<(usize, SocketAddr)>> + Send;
}

/// One byte more than the longest datagram.
const BUFFER: usize = 65_536;
/// The number of nodes to which a node gossips each heartbeat.
const PARTNERS: usize = 3;
/// How often a node asks its seeds, and warns a node with the same id.
const ASKING: Duration = Duration::from_secs(1);
/// How many seeds are asked in one round.
const MOST_SEEDS: usize = 32;
/// The wait before a socket that failed is tried again.
const PAUSE: Duration = Duration::from_millis(10);

/// Gossips until aborted.
///
/// Both intervals are polled before the socket: a flood of datagrams does not keep a node from
/// sending heartbeats.
pub(crate) async fn run(shared: Arc<Shared>, datagrams: impl Datagrams) {
    let (mut beats, mut asking) = (interval(shared.config.heartbeat), interval(ASKING));
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    asking.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut buffer = vec![0; BUFFER].into_boxed_slice();
    loop {
        tokio::select! {
            biased;
            _ = beats.tick() => shared.beat(&datagrams),
            _ = asking.tick() => shared.ask_seeds(&datagrams),
            received = datagrams.receive(&mut buffer) => match received {
                Ok((size, from)) => shared.receive(&buffer[..size], from, &datagrams),
                // A peer is not there (yet), memory is short, or the network is down.
                Err(error) => {
                    tracing::debug!(%error, "the gossip socket");
                    sleep(PAUSE).await;
                }
            },
        }
    }
}

impl Datagrams for UdpSocket {
    fn address(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }

    fn send(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        self.try_send_to(datagram, to).map(drop)
    }

    async fn receive(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.recv_from(into).await
    }
}

// === impl Shared ===

impl Shared {
    /// Sends a heartbeat, and asks a few others for news.
    fn beat(&self, datagrams: &impl Datagrams) {
        let now = Instant::now();
        let (mut live, silent) = {
            let mut store = self.store();
            store.beat(now);
            store.addresses(now)
        };
        let mut rng = self.rng.draw();
        if live.is_empty() {
            live.extend(self.seeds.all());
        }
        let mut partners: Vec<_> = live.sample(&mut rng, PARTNERS).copied().collect();
        // The more nodes are silent, the more likely one of them is asked whether it is back.
        if rng.random_range(0..=live.len()) < silent.len() {
            partners.extend(silent.choose(&mut rng));
        }
        self.ask(&partners, datagrams);
        for (id, generation) in self.to_forget() {
            let forget = Message::Forget { id: id.as_str().into(), generation };
            partners.iter().for_each(|to| self.send(&forget, *to, datagrams));
        }
    }

    /// All seeds while this node hears no other; else one at random, so that clusters that were cut
    /// apart for long find each other. Also warns a node with the same id.
    fn ask_seeds(&self, datagrams: &impl Datagrams) {
        let now = Instant::now();
        let most = if self.is_alone(now) { MOST_SEEDS } else { 1 };
        let mut rng = self.rng.draw();
        let seeds: Vec<_> = self.seeds.all().sample(&mut rng, most).copied().collect();
        self.ask(&seeds, datagrams);
        let (twin, namesake) = {
            let store = self.store();
            let (id, own) = store.own();
            let (generation, heartbeat) = (own.generation, own.heartbeat);
            let namesake = Message::Namesake { id: id.clone(), generation, heartbeat };
            (store.twin(now), namesake)
        };
        if let Some(Twin { address: Some(address), .. }) = twin {
            self.send(&namesake, address, datagrams);
        }
    }

    fn ask(&self, others: &[SocketAddr], datagrams: &impl Datagrams) {
        let ask = Message::Ask { digest: self.store().digest(Instant::now()) };
        others.iter().for_each(|to| self.send(&ask, *to, datagrams));
    }

    fn send(&self, message: &Message, to: SocketAddr, datagrams: &impl Datagrams) {
        if self.store().own().1.address == Some(to) {
            return;
        }
        let mut datagram = wire::encode(&self.config.cluster_id, message);
        self.seal.put(&mut datagram);
        if let Err(error) = datagrams.send(&datagram, to) {
            tracing::debug!(%to, %error, size = datagram.len(), "gossip was not sent");
        }
    }

    fn receive(&self, datagram: &[u8], from: SocketAddr, datagrams: &impl Datagrams) {
        let Some(opened) = self.seal.open(datagram) else {
            let Ignored { forged, garbage, .. } = &self.ignored;
            let is_secret = self.seal.is_secret();
            if is_secret {
                self.ignored.warn(from);
            }
            let count = if is_secret { forged } else { garbage };
            return ignore(count, from, "a datagram without a seal");
        };
        let Some((cluster_id, message)) = wire::decode(opened) else {
            return ignore(&self.ignored.garbage, from, "a datagram that is no gossip");
        };
        if cluster_id != self.config.cluster_id || message == Message::Stranger {
            ignore(&self.ignored.strangers, from, "a message of another cluster");
            if matches!(message, Message::Ask { .. }) {
                self.send(&Message::Stranger, from, datagrams);
            }
            return;
        }
        if let Some(answer) = self.take_in(message, from) {
            self.send(&answer, from, datagrams);
        }
    }

    /// Takes a message of this cluster in; returns the answer.
    fn take_in(&self, message: Message, from: SocketAddr) -> Option<Message> {
        let now = Instant::now();
        let mut store = self.store();
        let (refused, answer) = match message {
            Message::Ask { digest } => {
                let refused = store.hear(&digest, now);
                let own = store.digest(now);
                let updates = store.updates(&digest, self.room(&own), now);
                (refused, Some(Message::Answer { digest: own, updates }))
            }
            Message::Answer { digest, updates } => {
                let refused = store.hear(&digest, now) + store.apply(updates, now);
                let updates = store.updates(&digest, self.room(&[]), now);
                (refused, rest(updates))
            }
            Message::Rest { updates } => (store.apply(updates, now), None),
            Message::Namesake { id, generation, heartbeat } => {
                if id == *store.own().0 {
                    store.hear_namesake((generation, heartbeat), from, now);
                }
                (0, None)
            }
            Message::Forget { id, generation } => {
                drop(store);
                self.forget_life(&id, generation);
                return None;
            }
            Message::Stranger => (0, None),
        };
        drop(store);
        if refused > 0 {
            self.ignored.forged.add(refused);
            tracing::debug!(%from, refused, "impossible claims were ignored");
        }
        answer
    }

    /// The room that a datagram has left beside this digest.
    fn room(&self, digest: &[Summary]) -> usize {
        let head = 3 + 1 + self.config.cluster_id.len() + 1 + 3;
        LARGEST.saturating_sub(SIZE + head + store::size(digest))
    }
}

fn rest(updates: Vec<Update>) -> Option<Message> {
    (!updates.is_empty()).then_some(Message::Rest { updates })
}

fn ignore(count: &Count, from: SocketAddr, what: &str) {
    count.count();
    tracing::debug!(%from, "{what} was ignored");
}
