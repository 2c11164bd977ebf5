//! What a node makes of what it sees: it is told `now` and what gossip shows, and says what to
//! tell and what to publish.

use crate::{
    Config, Event, Node, State, Status,
    members::Members,
    node::{self, Facts, Seen},
    partition::{self, Partition, Settled, Standing},
    permission::Permission,
    suspicion::{Change, OwnPause, Suspicion},
};
use cinchona_core::clock::later;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// What one node knows of all.
#[derive(Debug)]
pub(crate) struct View {
    config: Config,
    /// By id; this node is not among them.
    peers: BTreeMap<String, Peer>,
    /// The generation and the heartbeat of each node when gossip was last looked at.
    heartbeats: BTreeMap<String, (u64, u64)>,
    members: Members,
    partition: Partition,
    standing: Option<Standing>,
    own_pause: OwnPause,
    reachable: BTreeSet<String>,
    beat: u64,
    next_beat: Option<Instant>,
    resync: Resync,
    /// Another node has this id, in a later life.
    is_outlived: bool,
    /// What was published last.
    published: BTreeMap<String, String>,
    /// What is to be published next.
    staged: Vec<(String, String)>,
}

#[derive(Debug)]
struct Peer {
    generation: u64,
    facts: Arc<Facts>,
    suspicion: Suspicion,
    has_left: bool,
    /// When its last beat arrived.
    beat_at: Option<Instant>,
}

/// Whether what this node missed while it had no quorum has been made up for; the number tells
/// apart which time that was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resync {
    Needed(u64),
    Running(u64),
    Done(u64),
}

/// What follows from a look at gossip.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) events: Vec<Event>,
    /// Keys and values that have changed.
    pub(crate) publish: Vec<(String, String)>,
    pub(crate) permission: Permission,
    /// A resync is to be begun; it is called by this number.
    pub(crate) resync: Option<u64>,
}

// === impl View ===

impl View {
    /// For a checked config.
    pub(crate) fn new(config: Config, has_seeds: bool) -> Self {
        let own = config.node_id.clone();
        let partition = Partition::new(own.clone(), config.strategy.clone(), config.stable_after);
        let own_pause = OwnPause::new(config.tick(), config.phi.acceptable_pause / 2);
        Self {
            members: Members::new(own.clone(), config.expect, has_seeds),
            reachable: BTreeSet::from([own]),
            config,
            peers: BTreeMap::new(),
            heartbeats: BTreeMap::new(),
            partition,
            standing: None,
            own_pause,
            beat: 0,
            next_beat: None,
            resync: Resync::Needed(0),
            is_outlived: false,
            published: BTreeMap::new(),
            staged: Vec::new(),
        }
    }

    /// Looks at what gossip shows now; to be called each [`Config::tick`].
    pub(crate) fn look(&mut self, seen: &[Seen], now: Instant) -> Outcome {
        let mut events = Vec::new();
        if let Some(pause) = self.own_pause.tick(now) {
            tracing::info!(?pause, "this process did not run: nobody is suspected for that");
            self.peers.values_mut().for_each(|peer| peer.suspicion.forgive(pause));
        }
        for seen in seen {
            if seen.id == self.config.node_id {
                self.is_outlived = Some(seen.generation) > self.config.generation;
            } else {
                self.meet(seen, &mut events, now);
            }
        }
        for (id, peer) in self.peers.iter_mut().filter(|(_, peer)| !peer.has_left) {
            let changes = peer.suspicion.judge(now).into_iter();
            events.extend(changes.map(|change| told(id, change)));
        }
        self.count(seen, &mut events, now);
        let before = self.partition.settled().status;
        let standing = self.partition.observe(self.members.all(), &self.reachable, now);
        let changed = standing.changed.as_ref();
        events.extend(changed.and_then(|settled| partition_event(settled, before)));
        let may_write = standing.has_quorum
            && !self.is_outlived
            && matches!(self.partition.settled().status, Status::Healthy | Status::Majority);
        let resync = self.advance_resync(standing.has_quorum, may_write);
        let permission = self.permission(&standing, may_write, now);
        self.standing = Some(standing);
        Outcome { events, publish: self.publish(now), permission, resync }
    }

    /// Takes in what gossip shows of one peer.
    fn meet(&mut self, seen: &Seen, events: &mut Vec<Event>, now: Instant) {
        let Seen { id, generation, heartbeat, facts } = seen;
        let before = self.heartbeats.insert(id.clone(), (*generation, *heartbeat));
        // What is seen for the first time may be an echo of a node that is long gone.
        let is_heard = before.is_some_and(|(life, beat)| life == *generation && beat < *heartbeat);
        if facts.has_left && self.members.remove(id, *generation) && self.depart(id, *generation) {
            events.push(Event::NodeLeft { node: id.clone() });
        }
        // Onlookers come and go, and are nobody's business.
        if facts.is_observer || self.members.is_gone(id, *generation) {
            return;
        }
        let is_new = self.peers.get(id).is_none_or(|peer| peer.generation < *generation);
        let is_first = is_new && is_heard && facts.beat.is_some();
        if is_first {
            let peer = Peer::new(&self.config, seen, now);
            let node = id.clone();
            let before = self.peers.insert(node.clone(), peer);
            let was_down =
                before.is_some_and(|peer| !peer.has_left && peer.suspicion.state() != State::Alive);
            events.push(if was_down {
                Event::NodeRecovered { node }
            } else {
                Event::NodeJoined { node }
            });
        }
        let Some(peer) = self.peers.get_mut(id).filter(|peer| peer.generation == *generation)
        else {
            return;
        };
        if is_heard {
            peer.suspicion.heartbeat(now);
        }
        if peer.facts.beat < facts.beat {
            peer.beat_at = Some(now);
        }
        if is_first || peer.facts.members != facts.members {
            let lives = &self.heartbeats;
            let generation_of = |id: &str| lives.get(id).map_or(0, |(generation, _)| *generation);
            self.members.adopt(&facts.members, generation_of);
        }
        if peer.facts.tags != facts.tags {
            let (node, tags) = (id.clone(), facts.tags.clone());
            events.push(Event::TagsUpdated { node, tags });
        }
        peer.facts = facts.clone();
    }

    /// Who is expected, and who of them is reachable.
    fn count(&mut self, seen: &[Seen], events: &mut Vec<Event>, now: Instant) {
        for (id, generation) in seen.iter().flat_map(|seen| &seen.facts.gone) {
            // It may be this node itself, which then is no member any more.
            if self.members.remove(id, *generation) && self.depart(id, *generation) {
                events.push(Event::NodeLeft { node: id.clone() });
            }
        }
        let within = self.config.reachable_within;
        let is_fresh = |peer: &Peer| {
            let age = peer.beat_at.map(|at| now.saturating_duration_since(at));
            !peer.has_left && age.is_some_and(|age| age <= within)
        };
        let fresh = self.peers.iter().filter(|(_, peer)| is_fresh(peer));
        let heard: BTreeMap<_, _> =
            fresh.map(|(id, peer)| (id.as_str(), &**peer.facts.hears)).collect();
        let hears = node::list(heard.keys().copied());
        self.reachable = match self.config.observer {
            // Nobody says of an onlooker that it is heard.
            true => heard.keys().map(|id| (*id).to_owned()).collect(),
            false => partition::two_way(&self.config.node_id, &heard),
        };
        let (strategy, reachable) = (&self.config.strategy, &self.reachable);
        let has_quorum = partition::has_quorum(strategy, self.members.all(), reachable);
        if !self.config.observer {
            self.members.admit(reachable, has_quorum);
        }
        self.stage(node::HEARS, hears);
    }

    /// Marks a peer as gone; whether it was known and not gone before.
    fn depart(&mut self, id: &str, generation: u64) -> bool {
        let peer = self.peers.get_mut(id).filter(|peer| peer.generation <= generation);
        peer.is_some_and(|peer| !std::mem::replace(&mut peer.has_left, true))
    }

    /// Whoever has lost the quorum for a moment may have missed what others wrote in it.
    fn advance_resync(&mut self, has_quorum: bool, may_write: bool) -> Option<u64> {
        if !has_quorum && !matches!(self.resync, Resync::Needed(_)) {
            self.require_resync();
        }
        let Resync::Needed(number) = self.resync else { return None };
        if may_write {
            self.resync = Resync::Running(number);
        }
        may_write.then_some(number)
    }

    /// Writes wait for a resync once more.
    pub(crate) const fn require_resync(&mut self) {
        let (Resync::Needed(number) | Resync::Running(number) | Resync::Done(number)) = self.resync;
        self.resync = Resync::Needed(number + 1);
    }

    /// The resync of this number has ended. It does not count if the quorum was lost meanwhile.
    pub(crate) fn resynced(&mut self, number: u64, succeeded: bool) {
        if self.resync == Resync::Running(number) {
            let next = if succeeded { Resync::Done } else { Resync::Needed };
            self.resync = next(number);
        }
    }

    fn permission(&self, standing: &Standing, may_write: bool, now: Instant) -> Permission {
        let Standing { reachable, expected, status, has_quorum, .. } = standing;
        if may_write && matches!(self.resync, Resync::Done(_)) {
            return Permission::granted(later(now, self.config.reachable_within));
        }
        Permission::refused(match (status, has_quorum) {
            _ if self.is_outlived => {
                "a later life of this node was heard: is its id unique?".into()
            }
            (Status::Unknown, _) => "too few nodes were heard to form a cluster".into(),
            (_, false) => format!("{reachable} of {expected} nodes are reachable").into(),
            (_, true) if !may_write => "the cluster is healing".into(),
            (_, true) => "the resync has not finished".into(),
        })
    }

    /// What others are to be told. The beat comes last: who has it has all else.
    fn publish(&mut self, now: Instant) -> Vec<(String, String)> {
        self.stage(node::MEMBERS, node::list(self.members.all().iter().map(String::as_str)));
        if self.next_beat.is_none_or(|due| due <= now) {
            let heartbeat = self.config.heartbeat;
            let next = later(self.next_beat.unwrap_or(now), heartbeat);
            self.next_beat = Some(next.max(now));
            self.beat += 1;
            self.stage(node::BEAT, self.beat.to_string());
        }
        std::mem::take(&mut self.staged)
    }

    fn stage(&mut self, key: &str, value: String) {
        if self.published.get(key) != Some(&value) {
            self.published.insert(key.to_owned(), value.clone());
            self.staged.push((key.to_owned(), value));
        }
    }

    /// Expects a node no more, by an operator's decision; `None` where it is not known.
    pub(crate) fn forget(&mut self, id: &str) -> Option<Event> {
        let known = self.heartbeats.get(id).map(|(generation, _)| *generation);
        let is_member = self.members.all().contains(id);
        let generation = known.or(is_member.then_some(0))?;
        self.members.remove(id, generation);
        self.depart(id, generation);
        self.stage(&node::gone_key(id), generation.to_string());
        Some(Event::NodeLeft { node: id.to_owned() })
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

    pub(crate) fn phi(&self, id: &str, now: Instant) -> Option<f64> {
        self.peers.get(id).map(|peer| peer.suspicion.phi(now))
    }

    pub(crate) fn history(&self, id: &str) -> Option<Vec<Duration>> {
        self.peers.get(id).map(|peer| peer.suspicion.history().collect())
    }

    pub(crate) fn status(&self) -> Status {
        self.standing.as_ref().map_or(Status::Unknown, |standing| standing.status)
    }

    /// The members that are reachable, this node among them, and all that are expected.
    pub(crate) fn quorum(&self) -> (usize, usize) {
        self.standing.as_ref().map_or((0, 0), |standing| (standing.reachable, standing.expected))
    }

    /// All that are known but this node, by their ids.
    pub(crate) fn nodes(&self, now: Instant) -> Vec<Node> {
        let node = |(id, peer): (&String, &Peer)| Node {
            id: id.clone(),
            generation: peer.generation,
            address: peer.facts.address.clone(),
            tags: peer.facts.tags.clone(),
            state: if peer.has_left { State::Left } else { peer.suspicion.state() },
            phi: peer.suspicion.phi(now),
            reachable: self.reachable.contains(id),
        };
        self.peers.iter().map(node).collect()
    }
}

// === impl Peer ===

impl Peer {
    fn new(config: &Config, seen: &Seen, now: Instant) -> Self {
        Self {
            generation: seen.generation,
            facts: seen.facts.clone(),
            suspicion: Suspicion::new(config.phi),
            has_left: false,
            beat_at: Some(now),
        }
    }
}

fn told(id: &str, change: Change) -> Event {
    let node = id.to_owned();
    match change {
        Change::Suspected { phi } => Event::NodeSuspected { node, phi },
        Change::Failed => Event::NodeFailed { node },
        Change::Recovered => Event::NodeRecovered { node },
    }
}

/// What a status that was settled means to those who listen.
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
