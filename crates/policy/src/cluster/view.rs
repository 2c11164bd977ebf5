//! How a node interprets what it sees: given `now` and the state of gossip, it returns the events
//! to send and the pairs to publish.

mod peer;
mod roll;
mod state;
mod verdict;

pub use peer::Known;
pub use state::{External, View};

use super::{
    Event, Permission, Seen,
    facts::{self, BEAT, GONE, MEMBERS},
    partition::{Settled, Status},
    suspicion::{Change, State},
};
use crate::clock::later;
use peer::Peer;
use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    time::Duration,
};
use tokio::time::Instant;

/// The result of a look at gossip.
#[derive(Debug)]
pub struct Outcome {
    /// For how long this process did not run, if it did not: no node is suspected for that time.
    pub paused: Option<Duration>,
    /// What has happened, in order.
    pub events: Vec<Event>,
    /// Keys and values that have changed.
    pub publish: Vec<(String, String)>,
    /// Whether this node may accept writes.
    pub permission: Permission,
    /// The number of a resync that must begin.
    pub resync: Option<u64>,
}

// === impl View ===

impl<A: PartialEq> View<A> {
    /// Examines the nodes in gossip; call it each [`Settings::tick`](super::Settings::tick).
    pub fn look(&mut self, seen: &[Seen<A>], external: External, now: Instant) -> Outcome {
        let mut events = Vec::new();
        let paused = self.own_pause.tick(now);
        if let Some(pause) = paused {
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
        Outcome { paused, events, publish: self.publish(now), permission, resync }
    }

    /// Takes in the state of one peer in gossip.
    fn meet(&mut self, seen: &Seen<A>, events: &mut Vec<Event>, now: Instant) {
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
    fn welcome(&mut self, seen: &Seen<A>, now: Instant) -> Event {
        let node = seen.id.clone();
        let before = self.peers.insert(node.clone(), Peer::new(self.settings.phi, seen, now));
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

    /// Removes peers that gossip no longer names, except members.
    fn clear(&mut self, seen: &[Seen<A>]) {
        let seen: BTreeSet<&str> = seen.iter().map(|seen| seen.id.as_str()).collect();
        let members = self.members.all();
        self.heartbeats.retain(|id, _| seen.contains(id.as_str()));
        let is_kept = |id: &String, peer: &Peer<A>| !peer.has_left && members.contains(id);
        self.peers.retain(|id, peer| seen.contains(id.as_str()) || is_kept(id, peer));
    }

    /// What this node publishes. The heartbeat comes last: a node that has it has all else.
    fn publish(&mut self, now: Instant) -> Vec<(String, String)> {
        self.stage(MEMBERS, facts::list(self.members.all().iter().map(String::as_str)));
        if self.published_gone != self.members.gone_count() {
            self.published_gone = self.members.gone_count();
            self.stage(GONE, facts::lives(self.members.latest_gone()));
        }
        if self.next_beat.is_none_or(|due| due <= now) {
            let heartbeat = self.settings.heartbeat;
            let next = later(self.next_beat.unwrap_or(now), heartbeat);
            self.next_beat = Some(next.max(now));
            self.beat += 1;
            self.stage(BEAT, self.beat.to_string());
        }
        mem::take(&mut self.staged)
    }

    /// How a call to this node ended.
    pub fn report(&mut self, id: &str, failed: bool, now: Instant) {
        if let Some(peer) = self.peers.get_mut(id) {
            if failed {
                peer.suspicion.report_failure(now);
            } else {
                peer.suspicion.report_success();
            }
        }
    }

    /// Whether this life is a member, or heard: others are removed soon.
    pub fn is_expected(&self, seen: &Seen<A>) -> bool {
        let lives = |peer: &Peer<A>| matches!(peer.state(), State::Alive | State::Suspected);
        let is_member = self.members.all().contains(&seen.id)
            && !self.members.is_gone(&seen.id, Some(seen.generation));
        is_member || self.peers.get(&seen.id).is_some_and(lives)
    }

    /// How a call to the server at this address ended.
    pub fn report_at(&mut self, address: &A, failed: bool, now: Instant) {
        let mut peers = self.peers.iter();
        let id = peers.find(|(_, peer)| peer.serves_at(address)).map(|(id, _)| id.clone());
        if let Some(id) = id {
            self.report(&id, failed, now);
        }
    }

    /// The tags of the server at this address.
    pub fn tags_at(&self, address: &A) -> Option<&BTreeMap<String, String>> {
        let peer = self.peers.values().find(|peer| peer.serves_at(address));
        peer.map(|peer| &peer.facts.tags)
    }

    /// How certain it is that this node is gone.
    pub fn phi(&self, id: &str, now: Instant) -> Option<f64> {
        self.peers.get(id).map(|peer| peer.suspicion.phi(now))
    }

    /// The last intervals of its heartbeats.
    pub fn history(&self, id: &str) -> Option<Vec<Duration>> {
        self.peers.get(id).map(|peer| peer.suspicion.history().collect())
    }

    /// On which side of a partition this node is.
    pub fn status(&self) -> Status {
        self.standing.as_ref().map_or(Status::Unknown, |standing| standing.status)
    }

    /// The reachable members, and all expected ones.
    pub fn quorum(&self) -> (usize, usize) {
        self.standing.as_ref().map_or((0, 0), |standing| (standing.reachable, standing.expected))
    }

    /// All known nodes but this one, by id.
    pub fn nodes(&self, now: Instant) -> impl Iterator<Item = Known<'_, A>> {
        self.peers.iter().map(move |(id, peer)| Known {
            id,
            generation: peer.generation,
            address: peer.facts.address.as_ref(),
            tags: &peer.facts.tags,
            state: peer.state(),
            phi: peer.suspicion.phi(now),
            reachable: self.reachable.contains(id),
        })
    }

    /// The silent nodes whose failure is unproven, as no other was heard since: this node may be
    /// the one that does not hear.
    pub fn unproven(&self) -> BTreeSet<String> {
        let unproven =
            self.peers.iter().filter(|(_, peer)| peer.state() == State::Failed && !peer.is_missed);
        unproven.map(|(id, _)| id.clone()).collect()
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
