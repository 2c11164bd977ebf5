//! What each node publishes, as far as this one knows. A pure state machine: it is given `now`, and
//! never waits.
//!
//! One life is known per id. Another life replaces it only when the known one is silent and the
//! other one's heartbeat rises: so no echo, no clock that was set back and no forged datagram
//! evicts a live node. A node refutes false claims about itself by publishing anew.

mod row;
mod twin;

pub(crate) use self::row::Row;

use self::{
    row::{KEPT, is_plausible},
    twin::Namesake,
};
use crate::wire::{MOST_NODES, Summary, Update, most_bytes};
use cinchona_policy::cluster::Twin;
use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

pub(crate) struct Store {
    id: Arc<str>,
    own: Row,
    /// This node is an observer: it publishes nothing, and others do not list it.
    is_observer: bool,
    /// The heartbeat interval of each node.
    beat: Duration,
    /// All others.
    rows: BTreeMap<Arc<str>, Row>,
    namesake: Option<Namesake>,
    /// Two live nodes have one id, the earlier is there, and this is the later.
    stands_down: bool,
}

/// After this many silent heartbeats, a life gives way to another of the same id.
const SILENT: u32 = 5;
// === impl Store ===

impl Store {
    pub(crate) fn new(
        (id, generation): (&str, u64),
        address: SocketAddr,
        is_observer: bool,
        beat: Duration,
        now: Instant,
    ) -> Self {
        let own = Row::new(generation, Some(address), now);
        let rows = BTreeMap::new();
        let id = id.into();
        Self { id, own, is_observer, beat, rows, namesake: None, stands_down: false }
    }

    /// One more heartbeat of this node; removes nodes that are silent for long.
    pub(crate) fn beat(&mut self, now: Instant) {
        self.own.heartbeat += 1;
        self.own.risen = now;
        self.rows.retain(|_, row| row.age(now) < row.kept());
        self.judge_namesake(now);
    }

    /// Publishes a pair of this node.
    pub(crate) fn set(&mut self, key: &str, value: &str) {
        self.own.set(key, value);
    }

    /// Removes a pair of this node.
    pub(crate) fn remove(&mut self, key: &str) {
        if self.own.remove(key) {
            self.own.say_anew(self.own.version);
        }
    }

    /// Sets whether this life is expected by any node; if not, it is soon removed.
    pub(crate) fn set_expected(&mut self, id: &str, generation: u64, is_expected: bool) {
        let row = self.rows.get_mut(id).filter(|row| row.generation == generation);
        if let Some(row) = row {
            row.is_gone = !is_expected;
        }
    }

    /// All others, each in its known life.
    pub(crate) fn others(&self) -> impl Iterator<Item = (&Arc<str>, &Row)> {
        self.rows.iter()
    }

    pub(crate) fn own(&self) -> (&Arc<str>, &Row) {
        (&self.id, &self.own)
    }

    /// The gossip addresses of nodes heard lately, and of the others.
    pub(crate) fn addresses(&self, now: Instant) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
        let rows = self.rows.values().filter(|row| row.address != self.own.address);
        let (live, silent): (Vec<_>, Vec<_>) = rows.partition(|row| self.is_live(row, now));
        let addresses = |rows: Vec<&Row>| rows.into_iter().filter_map(|row| row.address).collect();
        (addresses(live), addresses(silent))
    }

    /// The digest: how far this node knows each, itself included unless it is an observer.
    pub(crate) fn digest(&self, now: Instant) -> Vec<Summary> {
        self.sent(now).map(|(id, row)| row.summary(id, now)).collect()
    }

    /// Takes in the digest of another node; returns how many claims are impossible.
    pub(crate) fn hear(&mut self, digest: &[Summary], now: Instant) -> u64 {
        let mut refused = 0;
        for summary in digest {
            let taken = if summary.id != self.id {
                self.sight(summary, now)
            } else if summary.generation == self.own.generation {
                self.own.refute(summary)
            } else {
                self.sight_namesake(summary.generation, summary.heartbeat, None, summary.age, now);
                true
            };
            refused += u64::from(!taken);
        }
        refused
    }

    /// What the sender of this digest lacks, in at most `room` bytes.
    pub(crate) fn updates(&self, digest: &[Summary], room: usize, now: Instant) -> Vec<Update> {
        let known: HashMap<&str, &Summary> =
            digest.iter().map(|summary| (&*summary.id, summary)).collect();
        let mut room = room;
        let mut updates = Vec::new();
        // Where there is little room, the nodes take turns.
        let others = self.sent(now).count().max(1);
        let turn = (self.own.heartbeat % others as u64) as usize;
        for (id, row) in self.sent(now).cycle().skip(turn).take(others) {
            let update = match known.get(&**id) {
                None => row.update(id, 0, &mut room, now),
                Some(known) if known.generation == row.generation => {
                    row.update(id, known.version, &mut room, now)
                }
                // The sender should learn that another life goes on, and where.
                Some(_) if self.is_live(row, now) => row.bare(id, &mut room, now),
                Some(_) => None,
            };
            updates.extend(update);
        }
        updates
    }

    /// Takes in updates; returns how many claims are impossible.
    pub(crate) fn apply(&mut self, updates: Vec<Update>, now: Instant) -> u64 {
        let mut refused = 0;
        for update in updates {
            if update.id == self.id {
                let Update { generation, heartbeat, address, age, .. } = update;
                if generation != self.own.generation {
                    self.sight_namesake(generation, heartbeat, Some(address), age, now);
                }
                continue;
            }
            let is_new = !self.rows.contains_key(&update.id);
            let taken = if is_new { self.meet(update, now) } else { self.learn(update, now) };
            refused += u64::from(!taken);
        }
        refused
    }

    /// Another node with this node's id has sent this.
    pub(crate) fn hear_namesake(
        &mut self,
        (generation, heartbeat): (u64, u64),
        from: SocketAddr,
        now: Instant,
    ) {
        if generation != self.own.generation {
            self.sight_namesake(generation, heartbeat, Some(from), Duration::ZERO, now);
        }
    }

    /// Another live node with this node's id.
    pub(crate) fn twin(&self, now: Instant) -> Option<Twin> {
        let namesake = self.namesake.as_ref().filter(|namesake| namesake.lives(self.beat, now));
        let address = namesake.and_then(|namesake| namesake.address);
        (namesake.is_some() || self.stands_down)
            .then_some(Twin { address, is_earlier: self.stands_down })
    }

    /// All rows that are sent to others.
    fn sent(&self, now: Instant) -> impl Iterator<Item = (&Arc<str>, &Row)> + Clone {
        let says = !self.is_observer && !self.stands_down;
        let own = says.then_some((&self.id, &self.own));
        let is_kept = move |row: &Row| row.age(now) < row.kept();
        own.into_iter().chain(self.rows.iter().filter(move |(_, row)| is_kept(row)))
    }

    fn is_live(&self, row: &Row, now: Instant) -> bool {
        row.age(now) < self.beat.saturating_mul(SILENT)
    }

    /// Takes in that another node has heard this one; whether that is possible.
    fn sight(&mut self, summary: &Summary, now: Instant) -> bool {
        let silent = self.beat.saturating_mul(SILENT);
        let Some(row) = self.rows.get_mut(&summary.id) else { return true };
        if summary.generation == row.generation {
            return row.rise(summary.heartbeat, summary.age, now);
        }
        let goes_on =
            summary.age < silent && row.sight_rival(summary.generation, summary.heartbeat);
        if goes_on && row.age(now) >= silent && is_plausible(None, summary.heartbeat) {
            *row = Row::new(summary.generation, None, now);
            row.heartbeat = summary.heartbeat;
        }
        true
    }

    /// Takes in a node that was not known; whether the claim is possible.
    fn meet(&mut self, update: Update, now: Instant) -> bool {
        if update.from != 0 || update.pairs.is_empty() || update.age >= KEPT {
            return true;
        }
        if !is_plausible(None, update.heartbeat) || !self.has_room(now) {
            return false;
        }
        let mut row = Row::new(update.generation, Some(update.address), now);
        row.heartbeat = update.heartbeat;
        row.risen = now.checked_sub(update.age).unwrap_or(now);
        let id = update.id.clone();
        let is_taken = row.learn(update, true);
        if is_taken {
            self.rows.insert(id, row);
        }
        is_taken
    }

    /// Takes in news of a known node; whether the claim is possible.
    fn learn(&mut self, update: Update, now: Instant) -> bool {
        let summary = Summary {
            id: update.id.clone(),
            generation: update.generation,
            heartbeat: update.heartbeat,
            age: update.age,
            version: 0,
            check: 0,
        };
        let can_be = self.sight(&summary, now);
        let row = self.rows.get_mut(&update.id);
        match row.filter(|row| row.generation == update.generation) {
            Some(row) if can_be => {
                let is_first = row.version == 0;
                row.learn(update, is_first)
            }
            _ => can_be,
        }
    }

    /// Makes room for one more node; the one silent for longest is removed. Whether there is room.
    fn has_room(&mut self, now: Instant) -> bool {
        if self.rows.len() + 1 < MOST_NODES {
            return true;
        }
        let silent = self.rows.iter().filter(|(_, row)| !self.is_live(row, now));
        let longest = silent.max_by_key(|(_, row)| row.age(now)).map(|(id, _)| id.clone());
        longest.is_some_and(|id| self.rows.remove(&id).is_some())
    }

    fn sight_namesake(
        &mut self,
        generation: u64,
        heartbeat: u64,
        address: Option<SocketAddr>,
        age: Duration,
        now: Instant,
    ) {
        if age >= self.beat.saturating_mul(SILENT) || !is_plausible(None, heartbeat) {
            return;
        }
        let own = (self.own.generation, self.own.heartbeat);
        match &mut self.namesake {
            Some(known) if known.generation == generation => known.sight(heartbeat, own, now),
            Some(known) if known.is_heard(self.beat, now) => return,
            other => *other = Some(Namesake::new(generation, heartbeat, now)),
        }
        if let Some(known) = &mut self.namesake {
            known.address = address.or(known.address);
        }
    }

    fn judge_namesake(&mut self, now: Instant) {
        let Some(namesake) = &self.namesake else { return };
        if namesake.lives(self.beat, now) {
            self.stands_down |= namesake.is_earlier;
        } else if namesake.is_gone(self.beat, now) {
            self.stands_down = false;
            self.namesake = None;
        }
    }
}

/// The most bytes that a digest takes.
pub(crate) fn size(digest: &[Summary]) -> usize {
    digest.iter().map(most_bytes).sum::<usize>() + 4
}
