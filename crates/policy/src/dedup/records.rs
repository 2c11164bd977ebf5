//! The records of one shard: by key, by expiry, and by caller.

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use std::mem;
use tokio::time::Instant;

/// Records in one vector, linked by their indices.
#[derive(Debug)]
pub struct Records {
    nodes: Vec<Node>,
    /// Free indices, as a linked list.
    free: u32,
    by_key: HashTable<u32>,
    oldest: u32,
    newest: u32,
    /// By the hash of the caller: callers with the same hash share a quota, nothing else.
    callers: HashMap<u64, Line, DefaultHashBuilder>,
    /// The caller that had the most records when it last got one.
    largest: u64,
    bytes: usize,
}

/// A key with its answer.
#[derive(Debug)]
pub struct Record {
    /// The idempotency key.
    pub key: Box<[u8]>,
    /// Its hash.
    pub hash: u64,
    /// The fingerprint of the request.
    pub fingerprint: u128,
    /// Until when it is kept.
    pub expires: Instant,
    /// What is replayed.
    pub answer: Box<[u8]>,
}

#[derive(Debug)]
struct Node {
    record: Record,
    caller: u64,
    older: u32,
    newer: u32,
    /// The next record of the same caller.
    next: u32,
}

/// The records of a caller, oldest first.
#[derive(Clone, Copy, Debug)]
struct Line {
    oldest: u32,
    newest: u32,
    entries: u32,
    bytes: usize,
}

/// No place.
const NONE: u32 = u32::MAX;

/// Which limit is exceeded.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scarce {
    Entries,
    Bytes,
}

// === impl Records ===

impl Records {
    pub(super) fn new() -> Self {
        Self {
            nodes: Vec::new(),
            free: NONE,
            by_key: HashTable::new(),
            oldest: NONE,
            newest: NONE,
            callers: HashMap::default(),
            largest: 0,
            bytes: 0,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of them and of their keys.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn get(&self, key: &[u8], hash: u64) -> Option<&Record> {
        let at = self.by_key.find(hash, |at| *self.node(*at).record.key == *key)?;
        Some(&self.node(*at).record)
    }

    /// Adds a record of a new key; it expires after all others.
    pub(super) fn push(&mut self, record: Record, caller: u64) {
        let (hash, size) = (record.hash, record.size());
        let node = Node { record, caller, older: self.newest, newer: NONE, next: NONE };
        let at = self.place(node);
        let Self { nodes, by_key, .. } = self;
        by_key.insert_unique(hash, at, |at| nodes[*at as usize].record.hash);
        match self.newest {
            NONE => self.oldest = at,
            newest => self.nodes[newest as usize].newer = at,
        }
        self.newest = at;
        self.bytes += size;
        let empty = Line { oldest: at, newest: NONE, entries: 0, bytes: 0 };
        let line = self.callers.entry(caller).or_insert(empty);
        if line.newest != NONE {
            self.nodes[line.newest as usize].next = at;
        }
        (line.newest, line.entries, line.bytes) = (at, line.entries + 1, line.bytes + size);
        let entries = line.entries;
        if caller != self.largest
            && self.callers.get(&self.largest).is_none_or(|largest| largest.entries <= entries)
        {
            self.largest = caller;
        }
    }

    /// Removes the oldest record if it has expired.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<Record> {
        let oldest = self.nodes.get(self.oldest as usize)?;
        let (caller, has_expired) = (oldest.caller, oldest.record.expires <= now);
        has_expired.then(|| self.pop_of(caller)).flatten()
    }

    /// Evicts a record for a new one of `caller`, which is among them already: the oldest of all,
    /// unless its caller has less than half of what `caller` has, or of what the largest has; then
    /// that caller's oldest.
    pub(super) fn pop_for(&mut self, caller: u64, scarce: Scarce) -> Option<Record> {
        let oldest = self.nodes.get(self.oldest as usize)?.caller;
        let has = |caller: &u64| match (self.callers.get(caller), scarce) {
            (None, _) => 0,
            (Some(line), Scarce::Entries) => line.entries as usize,
            (Some(line), Scarce::Bytes) => line.bytes,
        };
        let has_many = |caller: &u64| self.callers.get(caller).is_some_and(|line| line.entries > 1);
        let larger = [self.largest, caller].into_iter().filter(has_many).max_by_key(has);
        let larger = larger.filter(|larger| has(larger) > has(&oldest).saturating_mul(2));
        self.pop_of(larger.unwrap_or(oldest))
    }

    /// Removes the oldest record of a caller: as all live equally long, it is at the front of its
    /// caller's order, but may be anywhere in the order of all.
    fn pop_of(&mut self, caller: u64) -> Option<Record> {
        let line = self.callers.get_mut(&caller)?;
        let at = line.oldest;
        let node = &mut self.nodes[at as usize];
        let record = node.record.take();
        let (older, newer, next) = (node.older, node.newer, node.next);
        node.next = mem::replace(&mut self.free, at);
        line.oldest = next;
        (line.entries, line.bytes) = (line.entries - 1, line.bytes - record.size());
        if line.entries == 0 {
            self.callers.remove(&caller);
        }
        match older {
            NONE => self.oldest = newer,
            older => self.nodes[older as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.nodes[newer as usize].older = older,
        }
        if let Ok(found) = self.by_key.find_entry(record.hash, |place| *place == at) {
            found.remove();
        }
        self.bytes -= record.size();
        Some(record)
    }

    fn place(&mut self, node: Node) -> u32 {
        let at = self.free;
        if let Some(free) = self.nodes.get_mut(at as usize) {
            self.free = mem::replace(free, node).next;
            return at;
        }
        self.nodes.push(node);
        // A shard has its share of the limit, which is at most 2^32 records.
        (self.nodes.len() - 1) as u32
    }

    fn node(&self, at: u32) -> &Node {
        &self.nodes[at as usize]
    }
}

// === impl Record ===

impl Record {
    pub(super) fn size(&self) -> usize {
        self.key.len() + self.answer.len()
    }

    /// The entry that remains in its place owns nothing on the heap.
    fn take(&mut self) -> Self {
        let (key, answer) = (mem::take(&mut self.key), mem::take(&mut self.answer));
        Self { key, answer, ..*self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    /// Records of these callers and sizes, oldest first: the n-th expires after n seconds.
    fn records(all: &[(u64, usize)], now: Instant) -> Records {
        let mut records = Records::new();
        for (n, (caller, size)) in (0_u8..).zip(all) {
            let (key, answer) = ([n].into(), vec![0; size - 1].into());
            let expires = now + u32::from(n) * SECOND;
            let record = Record { key, hash: n.into(), fingerprint: 0, expires, answer };
            records.push(record, *caller);
        }
        records
    }

    /// Which of them is evicted for the last of them.
    fn evicted(all: &[(u64, usize)], scarce: Scarce) -> u8 {
        let newest = all[all.len() - 1].0;
        records(all, Instant::now()).pop_for(newest, scarce).unwrap().key[0]
    }

    #[test]
    fn the_oldest_is_evicted_unless_its_caller_has_less_than_half_of_what_another_has() {
        let callers = |all: &[u64]| {
            let all: Vec<_> = all.iter().map(|caller| (*caller, 10)).collect();
            [Scarce::Entries, Scarce::Bytes].map(|scarce| evicted(&all, scarce))
        };
        assert_eq!(callers(&[1, 2, 2]), [0, 0], "half");
        assert_eq!(callers(&[1, 2, 2, 2]), [1, 1], "a third");
        assert_eq!(callers(&[1, 1, 2, 2, 2, 2]), [0, 0]);
        assert_eq!(callers(&[1, 1, 2, 2, 2, 2, 2]), [2, 2]);
        assert_eq!(callers(&[1, 1, 1, 2, 2, 2, 2, 2, 2]), [0, 0]);
        // Also for a third caller, from the one with the most.
        assert_eq!(callers(&[1, 2, 2, 2, 3]), [1, 1]);
        assert_eq!(callers(&[1, 2, 2, 3]), [0, 0]);
        assert_eq!(callers(&[1, 1]), [0, 0], "its own");
    }

    #[test]
    fn bytes_count_where_they_are_scarce_and_nobody_s_only_record_is_evicted_for_them() {
        let all = [(1, 10), (2, 5), (2, 16)];
        assert_eq!([evicted(&all, Scarce::Bytes), evicted(&all, Scarce::Entries)], [1, 0]);
        assert_eq!(evicted(&[(1, 10), (2, 50)], Scarce::Bytes), 0);
    }

    #[test]
    fn what_has_expired_counts_no_more_among_the_bytes_of_its_caller() {
        for (left, expected) in [(8, 2), (6, 1)] {
            let now = Instant::now();
            let all = [(2, 100), (1, 10), (2, left), (2, 7), (2, 7)];
            let mut records = records(&all, now);
            assert_eq!(records.pop_expired(now).unwrap().answer.len(), 99);
            assert!(records.pop_expired(now).is_none());
            assert_eq!(records.bytes(), 24 + left);
            // 22 of 10 are more than twice as many, 20 are not.
            assert_eq!(records.pop_for(2, Scarce::Bytes).unwrap().key[0], expected, "{left}");
        }
    }
}
