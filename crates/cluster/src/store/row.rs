//! One life of one node.

use crate::wire::{MOST_PAIRS, Pair, Summary, Update};
use cinchona_policy::cluster::LEFT;
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};
use tokio::time::Instant;

/// What one node publishes in one of its lives.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) generation: u64,
    pub(crate) heartbeat: u64,
    /// When its heartbeat last rose.
    pub(crate) risen: Instant,
    /// The address at which it receives gossip, once known.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) version: u64,
    /// All its pairs have a later version than this.
    pub(crate) floor: u64,
    /// It is expected no more.
    pub(super) is_gone: bool,
    check: u32,
    pairs: BTreeMap<String, (String, u64)>,
    /// The generation and the heartbeat of another life of the same id.
    rival: Option<(u64, u64)>,
}

/// The most bytes that a node publishes: all its lists at their longest, and its tags.
const LARGEST_ROW: usize = 64 * 1024;
/// After this silence a row is no longer sent and is removed; one that is gone, sooner.
pub(super) const KEPT: Duration = Duration::from_secs(600);
const KEPT_GONE: Duration = Duration::from_secs(60);
/// The first heartbeat or version heard of a life is at most this, and later ones exceed the known
/// one by at most this: so there is always room above a forged value.
pub(super) const FIRST: u64 = 1 << 48;
const JUMP: u64 = 1 << 32;

/// Whether that value can follow the known one, if any.
pub(super) fn is_plausible(known: Option<u64>, claimed: u64) -> bool {
    claimed <= known.map_or(FIRST, |known| known.saturating_add(JUMP))
}

// === impl Row ===

impl Row {
    pub(super) const fn new(generation: u64, address: Option<SocketAddr>, now: Instant) -> Self {
        Self {
            generation,
            heartbeat: 1,
            risen: now,
            address,
            version: 0,
            floor: 0,
            is_gone: false,
            check: 0,
            pairs: BTreeMap::new(),
            rival: None,
        }
    }

    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(key, (value, _))| (key.as_str(), value.as_str()))
    }

    /// The time since it was last heard.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.risen)
    }

    /// How long it may be silent before it is removed.
    pub(super) fn kept(&self) -> Duration {
        if self.is_gone || self.pairs.contains_key(LEFT) { KEPT_GONE } else { KEPT }
    }

    pub(super) fn set(&mut self, key: &str, value: &str) {
        if self.pairs.get(key).is_none_or(|(known, _)| known != value) {
            self.version += 1;
            self.put(Pair { key: key.into(), value: value.into(), version: self.version });
        }
    }

    /// Whether there was a pair to remove.
    pub(super) fn remove(&mut self, key: &str) -> bool {
        let removed = self.pairs.remove(key);
        if let Some((value, version)) = &removed {
            self.check ^= Pair::check(key, value, *version);
        }
        removed.is_some()
    }

    /// Publishes all pairs again, in later versions than this, which invalidates all others.
    pub(super) fn say_anew(&mut self, above: u64) {
        self.floor = self.version.max(above);
        self.version = self.floor;
        let mut all: Vec<Pair> = self.newer_than(0);
        (self.pairs, self.check) = (BTreeMap::new(), 0);
        for pair in &mut all {
            self.version += 1;
            pair.version = self.version;
        }
        all.into_iter().for_each(|pair| self.put(pair));
    }

    /// For the row of this node itself: others claim to know more, or other things, than it has
    /// published. Whether that is possible.
    pub(super) fn refute(&mut self, claim: &Summary) -> bool {
        let beats = is_plausible(Some(self.heartbeat), claim.heartbeat);
        if beats && claim.heartbeat > self.heartbeat {
            self.heartbeat = claim.heartbeat + 1;
        }
        let is_said = claim.version < self.version
            || (claim.version, claim.check) == (self.version, self.check);
        let can_be = is_plausible(Some(self.version), claim.version);
        if !is_said && can_be {
            self.say_anew(claim.version);
        }
        beats && can_be
    }

    /// Takes in a heartbeat; whether it is possible.
    pub(super) fn rise(&mut self, heartbeat: u64, age: Duration, now: Instant) -> bool {
        let can_be = is_plausible(Some(self.heartbeat), heartbeat);
        if can_be && heartbeat > self.heartbeat {
            self.heartbeat = heartbeat;
            let risen = now.checked_sub(age).unwrap_or(now);
            self.risen = self.risen.max(risen);
        }
        can_be
    }

    /// Gossip names another life of the same id; whether its heartbeat rises.
    pub(super) fn sight_rival(&mut self, generation: u64, heartbeat: u64) -> bool {
        let known = self.rival.replace((generation, heartbeat));
        let grew = known.filter(|known| known.0 == generation && known.1 > 0);
        grew.is_some_and(|known| heartbeat > known.1)
    }

    /// Takes in more of what it publishes; whether that is possible.
    pub(super) fn learn(&mut self, update: Update, is_first: bool) -> bool {
        let Update { from, floor, pairs, address, .. } = update;
        self.address = self.address.or(Some(address));
        let known = (!is_first).then_some(self.version);
        let last = pairs.last().map_or(0, |pair| pair.version);
        if from > self.version || last <= self.version {
            return true;
        }
        let is_ordered = pairs.is_sorted_by(|a, b| a.version < b.version);
        if !is_ordered || !is_plausible(known, last) || floor > last {
            return false;
        }
        if floor > self.floor {
            self.floor = floor;
            self.drop_to_floor();
        }
        let new: Vec<_> = pairs.into_iter().filter(|pair| pair.version > self.version).collect();
        // A pair that is replaced gives its room back first.
        let kept = self.pairs.iter().filter(|(key, _)| new.iter().all(|pair| pair.key != **key));
        let size_of_new = new.iter().map(size_of_pair).sum::<usize>();
        let (count, size) = kept.fold((new.len(), size_of_new), |(count, size), (key, value)| {
            (count + 1, size + key.len() + value.0.len())
        });
        if count > 2 * MOST_PAIRS || size > LARGEST_ROW {
            return false;
        }
        new.into_iter().for_each(|pair| self.put(pair));
        (self.version, self.address) = (last, Some(address));
        true
    }

    pub(super) fn summary(&self, id: &Arc<str>, now: Instant) -> Summary {
        Summary {
            id: id.clone(),
            generation: self.generation,
            heartbeat: self.heartbeat,
            age: self.age(now),
            version: self.version,
            check: self.check,
        }
    }

    /// The pairs after this version, in at most this room.
    pub(super) fn update(
        &self,
        id: &Arc<str>,
        from: u64,
        room: &mut usize,
        now: Instant,
    ) -> Option<Update> {
        if self.version <= from {
            return None;
        }
        let mut update = self.bare(id, room, now)?;
        update.from = from;
        for pair in self.newer_than(from) {
            let Some(left) = room.checked_sub(size_of_pair(&pair)) else { break };
            *room = left;
            update.pairs.push(pair);
        }
        (!update.pairs.is_empty()).then_some(update)
    }

    /// Only that it lives, and its address.
    pub(super) fn bare(&self, id: &Arc<str>, room: &mut usize, now: Instant) -> Option<Update> {
        let update = Update {
            id: id.clone(),
            generation: self.generation,
            heartbeat: self.heartbeat,
            age: self.age(now),
            address: self.address?,
            from: 0,
            floor: self.floor,
            pairs: Vec::new(),
        };
        *room = room.checked_sub(update.most_bytes() + 4)?;
        Some(update)
    }

    /// Ordered by version.
    fn newer_than(&self, version: u64) -> Vec<Pair> {
        let newer = self.pairs.iter().filter(|(_, (_, of))| *of > version);
        let pair = |(key, (value, version)): (&String, &(String, u64))| Pair {
            key: key.clone(),
            value: value.clone(),
            version: *version,
        };
        let mut pairs: Vec<_> = newer.map(pair).collect();
        pairs.sort_unstable_by_key(|pair| pair.version);
        pairs
    }

    fn drop_to_floor(&mut self) {
        let floor = self.floor;
        let dropped = self.pairs.iter().filter(|(_, (_, version))| *version <= floor);
        let dropped: Vec<_> = dropped.map(|(key, _)| key.clone()).collect();
        dropped.iter().for_each(|key| _ = self.remove(key));
    }

    fn put(&mut self, pair: Pair) {
        self.remove(&pair.key);
        self.check ^= Pair::check(&pair.key, &pair.value, pair.version);
        self.pairs.insert(pair.key, (pair.value, pair.version));
    }
}

/// The most bytes that these pairs take in a datagram.
fn size_of_pair(pair: &Pair) -> usize {
    Pair::most_bytes(&pair.key, &pair.value)
}

const _: () = assert!(JUMP < FIRST);
