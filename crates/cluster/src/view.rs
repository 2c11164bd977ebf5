//! How a node interprets what it sees: given `now` and the state of gossip, it returns the events
//! to send and the pairs to publish.

mod roll;
mod verdict;

use crate::{
    Config, Event, Node, State, Status,
    node::{self, Facts, Seen},
    permission::Permission,
    store::Twin,
};
use cinchona_policy::{
    clock::later,
    members::Members,
    partition::{Partition, Settled, Standing},
    suspicion::{Change, Hearing, OwnPause, Suspicion},
};
use http::Uri;
use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// What one node knows of all others.
#[derive(Debug)]
pub(crate) struct View {
    config: Config,
    /// `config.generation`.
    generation: u64,
    /// By id; without this node.
    peers: BTreeMap<String, Peer>,
    /// The generation and the heartbeat of each node at the last look.
    heartbeats: BTreeMap<String, (u64, u64)>,
    members: Members,
    /// Members named by others that were never heard, and since when.
    listed: BTreeMap<String, Instant>,
    hearing: Hearing,
    partition: Partition,
    standing: Option<Standing>,
    own_pause: OwnPause,
    reachable: BTreeSet<String>,
    beat: u64,
    next_beat: Option<Instant>,
    resync: Resync,
    external: External,
    /// How many lives were known to be gone when that was last published.
    published_gone: u64,
    /// What was published last.
    published: BTreeMap<String, String>,
    /// What is to be published next.
    staged: Vec<(String, String)>,
}

/// Facts from sources other than gossip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct External {
    /// Another live node with this node's id, if any.
    pub(crate) twin: Option<Twin>,
    /// The expected number of nodes, if one is configured; 0 while it is not known.
    pub(crate) expected: Option<usize>,
}

#[derive(Debug)]
struct Peer {
    generation: u64,
    facts: Arc<Facts>,
    gossip: Option<SocketAddr>,
    suspicion: Suspicion,
    has_left: bool,
    /// When it was first and last heard.
    met_at: Instant,
    heard_at: Instant,
    /// When its last heartbeat arrived.
    beat_at: Option<Instant>,
    /// When it was convicted, and whether others were heard after that.
    failed_at: Option<Instant>,
    is_missed: bool,
    /// Its list of members, once all were members here, and how many lives were gone then.
    adopted: Option<(Arc<node::Ids>, u64)>,
}

/// Whether the writes missed without a quorum were fetched; the number identifies the resync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resync {
    Needed(u64),
    Running(u64),
    Done(u64),
}

/// The result of a look at gossip.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) events: Vec<Event>,
    /// Keys and values that have changed.
    pub(crate) publish: Vec<(String, String)>,
    pub(crate) permission: Permission,
    /// The number of a resync that must begin.
    pub(crate) resync: Option<u64>,
}

// === impl View ===

impl View {
    /// `config` must be checked.
    pub(crate) fn new(config: Config, has_seeds: bool) -> Self {
        let own = config.node_id.clone();
        let partition = Partition::new(own.clone(), config.strategy.clone(), config.stable_after);
        let own_pause = OwnPause::new(config.tick(), config.phi.acceptable_pause / 2);
        Self {
            members: Members::new(own.clone(), config.expect, has_seeds),
            reachable: BTreeSet::from([own]),
            generation: config.generation.unwrap_or_default(),
            hearing: Hearing::new(config.heartbeat, config.phi.acceptable_pause),
            config,
            peers: BTreeMap::new(),
            heartbeats: BTreeMap::new(),
            listed: BTreeMap::new(),
            partition,
            standing: None,
            own_pause,
            beat: 0,
            next_beat: None,
            resync: Resync::Needed(0),
            external: External::default(),
            published_gone: 0,
            published: BTreeMap::new(),
            staged: Vec::new(),
        }
    }

    /// Examines the nodes in gossip; call it each [`Config::tick`].
    pub(crate) fn look(&mut self, seen: &[Seen], external: External, now: Instant) -> Outcome {
        let mut events = Vec::new();
        if let Some(pause) = self.own_pause.tick(now) {
            tracing::info!(?pause, "this process was paused: no node is suspected for that time");
            self.peers.values_mut().for_each(|peer| peer.suspicion.forgive(pause));
        }
        events.extend(self.meet_twin(external.twin));
        self.external = external;
        for seen in seen {
            self.meet(seen, &mut events, now);
        }
        self.judge(&mut events, now);
        let electorate = self.count(seen, &mut events, now);
        let before = self.partition.settled().status;
        let (members, reachable) = (self.members.all(), &self.reachable);
        let standing = self.partition.observe(electorate, members, reachable, now);
        let changed = standing.changed.as_ref();
        events.extend(changed.and_then(|settled| partition_event(settled, before)));
        let may_write = standing.has_quorum
            && !self.is_refused()
            && matches!(self.partition.settled().status, Status::Healthy | Status::Majority);
        let resync = self.advance_resync(standing.has_quorum, may_write);
        let permission = self.permission(&standing, may_write, now);
        self.standing = Some(standing);
        self.clear(seen);
        Outcome { events, publish: self.publish(now), permission, resync }
    }

    /// Takes in the state of one peer in gossip.
    fn meet(&mut self, seen: &Seen, events: &mut Vec<Event>, now: Instant) {
        let Seen { id, generation, heartbeat, facts, .. } = seen;
        let before = self.heartbeats.insert(id.clone(), (*generation, *heartbeat));
        // A node seen for the first time may be an echo of one that is long gone.
        let is_heard = before.is_some_and(|(life, beat)| life == *generation && beat < *heartbeat);
        if facts.has_left && self.members.remove(id, *generation) && self.depart(id, *generation) {
            events.push(Event::NodeLeft { node: id.clone() });
        }
        if self.members.is_gone(id, Some(*generation)) {
            return;
        }
        let is_new = self.peers.get(id).is_none_or(|peer| peer.generation != *generation);
        if is_new && is_heard && facts.beat.is_some() {
            events.push(self.welcome(seen, now));
        }
        let Some(peer) = self.peers.get_mut(id).filter(|peer| peer.generation == *generation)
        else {
            return;
        };
        if is_heard {
            peer.suspicion.heartbeat(now);
            peer.heard_at = now;
            self.hearing.heard(now);
        }
        if peer.facts.beat < facts.beat {
            peer.beat_at = Some(now);
        }
        if peer.facts.tags != facts.tags {
            let (node, tags) = (id.clone(), facts.tags.clone());
            events.push(Event::TagsUpdated { node, tags });
        }
        peer.facts = facts.clone();
        peer.gossip = seen.gossip.or(peer.gossip);
    }

    /// A node is heard for the first time in this life of it.
    fn welcome(&mut self, seen: &Seen, now: Instant) -> Event {
        let node = seen.id.clone();
        let before = self.peers.insert(node.clone(), Peer::new(&self.config, seen, now));
        let was_down =
            before.is_some_and(|peer| !peer.has_left && peer.suspicion.state() != State::Alive);
        if was_down { Event::NodeRecovered { node } } else { Event::NodeJoined { node } }
    }

    /// Which nodes are late, gone, or back.
    fn judge(&mut self, events: &mut Vec<Event>, now: Instant) {
        for (id, peer) in self.peers.iter_mut().filter(|(_, peer)| !peer.has_left) {
            for change in peer.suspicion.judge(now) {
                peer.failed_at = (change == Change::Failed).then_some(now);
                peer.is_missed = false;
                events.push(event_of(id, change));
            }
            if let Some(failed_at) = peer.failed_at {
                peer.is_missed |= self.hearing.proves(failed_at);
            }
        }
    }

    /// Marks a peer as gone; whether it was known and not gone before. An earlier life of it, which
    /// was silent before this one was known, is gone with it.
    fn depart(&mut self, id: &str, generation: u64) -> bool {
        match self.peers.get_mut(id) {
            Some(peer) if peer.generation == generation => !mem::replace(&mut peer.has_left, true),
            Some(_) => self.peers.remove(id).is_some_and(|peer| !peer.has_left),
            None => false,
        }
    }

    /// Removes peers that gossip no longer names, except members.
    fn clear(&mut self, seen: &[Seen]) {
        let seen: BTreeSet<&str> = seen.iter().map(|seen| seen.id.as_str()).collect();
        let members = self.members.all();
        self.heartbeats.retain(|id, _| seen.contains(id.as_str()));
        let is_kept = |id: &String, peer: &Peer| !peer.has_left && members.contains(id);
        self.peers.retain(|id, peer| seen.contains(id.as_str()) || is_kept(id, peer));
    }

    /// What this node publishes. The heartbeat comes last: a node that has it has all else.
    fn publish(&mut self, now: Instant) -> Vec<(String, String)> {
        self.stage(node::MEMBERS, node::list(self.members.all().iter().map(String::as_str)));
        if self.published_gone != self.members.gone_count() {
            self.published_gone = self.members.gone_count();
            self.stage(node::GONE, node::lives(self.members.latest_gone()));
        }
        if self.next_beat.is_none_or(|due| due <= now) {
            let heartbeat = self.config.heartbeat;
            let next = later(self.next_beat.unwrap_or(now), heartbeat);
            self.next_beat = Some(next.max(now));
            self.beat += 1;
            self.stage(node::BEAT, self.beat.to_string());
        }
        mem::take(&mut self.staged)
    }

    fn stage(&mut self, key: &str, value: String) {
        if self.published.get(key) != Some(&value) {
            self.published.insert(key.to_owned(), value.clone());
            self.staged.push((key.to_owned(), value));
        }
    }

    pub(crate) fn report(&mut self, id: &str, failed: bool, now: Instant) {
        if let Some(peer) = self.peers.get_mut(id) {
            if failed {
                peer.suspicion.report_failure(now);
            } else {
                peer.suspicion.report_success();
            }
        }
    }

    /// Whether this life is a member, or heard: others are removed soon.
    pub(crate) fn is_expected(&self, seen: &Seen) -> bool {
        let lives = |peer: &Peer| matches!(peer.state(), State::Alive | State::Suspected);
        let is_member = self.members.all().contains(&seen.id)
            && !self.members.is_gone(&seen.id, Some(seen.generation));
        is_member || self.peers.get(&seen.id).is_some_and(lives)
    }

    /// How a call to the server at this address ended.
    pub(crate) fn report_at(&mut self, address: &Uri, failed: bool, now: Instant) {
        let mut peers = self.peers.iter();
        let id = peers.find(|(_, peer)| peer.serves_at(address)).map(|(id, _)| id.clone());
        if let Some(id) = id {
            self.report(&id, failed, now);
        }
    }

    /// The tags of the server at this address.
    pub(crate) fn tags_at(&self, address: &Uri) -> Option<&BTreeMap<String, String>> {
        let peer = self.peers.values().find(|peer| peer.serves_at(address));
        peer.map(|peer| &peer.facts.tags)
    }

    pub(crate) fn phi(&self, id: &str, now: Instant) -> Option<f64> {
        self.peers.get(id).map(|peer| peer.suspicion.phi(now))
    }

    pub(crate) fn history(&self, id: &str) -> Option<Vec<Duration>> {
        self.peers.get(id).map(|peer| peer.suspicion.history().collect())
    }

    pub(crate) fn status(&self) -> Status {
        self.standing.as_ref().map_or(Status::Unknown, |standing| standing.status)
    }

    /// The reachable members, and all expected ones.
    pub(crate) fn quorum(&self) -> (usize, usize) {
        self.standing.as_ref().map_or((0, 0), |standing| (standing.reachable, standing.expected))
    }

    /// All known nodes but this one, by id.
    pub(crate) fn nodes(&self, now: Instant) -> Vec<Node> {
        let node = |(id, peer): (&String, &Peer)| Node {
            id: id.clone(),
            generation: peer.generation,
            address: peer.facts.address.clone(),
            tags: peer.facts.tags.clone(),
            state: peer.state(),
            phi: peer.suspicion.phi(now),
            reachable: self.reachable.contains(id),
        };
        self.peers.iter().map(node).collect()
    }

    /// The silent nodes whose failure is unproven, as no other was heard since: this node may be
    /// the one that does not hear.
    pub(crate) fn unproven(&self) -> BTreeSet<String> {
        let unproven =
            self.peers.iter().filter(|(_, peer)| peer.state() == State::Failed && !peer.is_missed);
        unproven.map(|(id, _)| id.clone()).collect()
    }
}

// === impl Peer ===

impl Peer {
    fn new(config: &Config, seen: &Seen, now: Instant) -> Self {
        Self {
            generation: seen.generation,
            facts: seen.facts.clone(),
            gossip: seen.gossip,
            suspicion: Suspicion::new(config.phi),
            has_left: false,
            met_at: now,
            heard_at: now,
            beat_at: Some(now),
            failed_at: None,
            is_missed: false,
            adopted: None,
        }
    }

    fn serves_at(&self, address: &Uri) -> bool {
        !self.has_left && self.facts.address.as_ref() == Some(address)
    }

    /// Whether nothing is to be taken over of its list of members, where so many lives are gone.
    fn has_adopted(&self, gone: u64) -> bool {
        let list = &self.facts.members;
        self.adopted.as_ref().is_some_and(|(of, at)| Arc::ptr_eq(of, list) && *at == gone)
    }

    fn state(&self) -> State {
        if self.has_left { State::Left } else { self.suspicion.state() }
    }
}

fn event_of(id: &str, change: Change) -> Event {
    let node = id.to_owned();
    match change {
        Change::Suspected { phi } => Event::NodeSuspected { node, phi },
        Change::Failed => Event::NodeFailed { node },
        Change::Recovered => Event::NodeRecovered { node },
    }
}

/// The event of a status that was settled.
fn partition_event(settled: &Settled, before: Status) -> Option<Event> {
    let ids = |ids: &BTreeSet<String>| ids.iter().cloned().collect();
    let (ours, others) = (ids(&settled.ours), ids(&settled.others));
    match settled.status {
        Status::Minority => Some(Event::PartitionDetected { minority: ours, majority: others }),
        Status::Majority => Some(Event::PartitionDetected { minority: others, majority: ours }),
        Status::Healthy if matches!(before, Status::Minority | Status::Majority) => {
            Some(Event::PartitionHealed)
        }
        _ => None,
    }
}
