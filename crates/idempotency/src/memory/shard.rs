//! One part of the store in memory, under one lock.

use crate::{Claim, store::Wait};
use bytes::Bytes;
use hashlink::LinkedHashMap;
use std::{collections::HashMap, time::Duration};
use tokio::{sync::watch, time::Instant};

/// Claims, records, and what is remembered of evicted ones.
#[derive(Debug, Default)]
pub(super) struct Shard {
    claimed: HashMap<Box<[u8]>, Claimed>,
    /// In the order in which they expire.
    finished: LinkedHashMap<Box<[u8]>, Finished>,
    /// By the hash of the key: 64 bits are enough to refuse a call.
    evicted: LinkedHashMap<u64, Instant>,
}

/// A key that is being executed.
#[derive(Debug)]
struct Claimed {
    fingerprint: u128,
    token: u128,
    until: Instant,
    /// Dropped with the claim, which wakes those who wait; made for the first of them.
    end: Option<watch::Sender<()>>,
}

/// A key that has its answer.
#[derive(Debug)]
pub(super) struct Finished {
    fingerprint: u128,
    expires: Instant,
    record: Box<[u8]>,
}

// === impl Shard ===

impl Shard {
    /// Forgets what has expired; how many records and bytes that were.
    pub(super) fn expire(&mut self, now: Instant) -> (usize, usize) {
        let mut freed = (0, 0);
        while let Some((key, oldest)) = self.finished.front()
            && oldest.expires <= now
        {
            freed = (freed.0 + 1, freed.1 + oldest.size(key));
            self.finished.pop_front();
        }
        while self.evicted.front().is_some_and(|(_, expires)| *expires <= now) {
            self.evicted.pop_front();
        }
        freed
    }

    pub(super) fn claim(
        &mut self,
        key: &[u8],
        hash: u64,
        fingerprint: u128,
        token: u128,
        now: Instant,
        lease: Duration,
    ) -> Claim {
        if let Some(finished) = self.finished.get(key) {
            return match finished.fingerprint == fingerprint {
                true => Claim::Done(Bytes::copy_from_slice(&finished.record)),
                false => Claim::Mismatch,
            };
        }
        let fresh = Claimed { fingerprint, token, until: now + lease, end: None };
        match self.claimed.get_mut(key) {
            Some(claimed) if claimed.fingerprint != fingerprint => Claim::Mismatch,
            Some(claimed) if claimed.until > now => {
                let end = claimed.end.get_or_insert_with(|| watch::Sender::new(()));
                Claim::Busy(Wait::notified(claimed.until - now, end.subscribe()))
            }
            Some(claimed) => {
                *claimed = fresh;
                Claim::Granted { lapsed: true }
            }
            None if self.evicted.contains_key(&hash) => Claim::Evicted,
            None => {
                self.claimed.insert(key.into(), fresh);
                Claim::Granted { lapsed: false }
            }
        }
    }

    /// The fingerprint under which `key` is claimed by `token`.
    pub(super) fn fingerprint(&self, key: &[u8], token: u128) -> Option<u128> {
        let claimed = self.claimed.get(key).filter(|claimed| claimed.token == token)?;
        Some(claimed.fingerprint)
    }

    /// Ends the claim with `token`; its key and fingerprint.
    pub(super) fn end(&mut self, key: &[u8], token: u128) -> Option<(Box<[u8]>, u128)> {
        let fingerprint = self.fingerprint(key, token)?;
        Some((self.claimed.remove_entry(key)?.0, fingerprint))
    }

    /// Keeps a record; its bytes, and the number and bytes of what it replaces.
    pub(super) fn keep(&mut self, key: Box<[u8]>, record: Finished) -> (usize, (usize, usize)) {
        let added = record.size(&key);
        let keyed = key.len();
        let replaced = self.finished.insert(key, record);
        (added, replaced.map_or((0, 0), |old| (1, old.record.len() + keyed)))
    }

    /// Evicts the oldest record, and remembers the hash of its key among at most so many; its
    /// bytes.
    pub(super) fn evict(
        &mut self,
        hash: impl Fn(&[u8]) -> u64,
        most_remembered: usize,
    ) -> Option<usize> {
        let (key, record) = self.finished.pop_front()?;
        if most_remembered > 0 {
            self.evicted.insert(hash(&key), record.expires);
            while self.evicted.len() > most_remembered {
                self.evicted.pop_front();
            }
        }
        Some(record.size(&key))
    }
}

// === impl Finished ===

impl Finished {
    pub(super) fn new(fingerprint: u128, expires: Instant, record: Bytes) -> Self {
        Self { fingerprint, expires, record: Vec::from(record).into_boxed_slice() }
    }

    fn size(&self, key: &[u8]) -> usize {
        key.len() + self.record.len()
    }
}
