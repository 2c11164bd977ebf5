//! One part of the store in memory, under one lock.

use crate::{Claim, store::Wait};
use bytes::Bytes;
use hashlink::{DefaultHashBuilder, LinkedHashMap};
use std::collections::HashMap;
use tokio::{sync::watch, time::Instant};

/// Claims, records, and what is remembered of evicted ones.
#[derive(Debug)]
pub(super) struct Shard {
    claimed: HashMap<Box<[u8]>, Claimed, DefaultHashBuilder>,
    /// In the order in which they expire.
    finished: LinkedHashMap<Box<[u8]>, Finished>,
    /// By the hash of the key: 64 bits are enough to refuse a call.
    evicted: LinkedHashMap<u64, Instant>,
    usage: Usage,
    /// The most that it may use.
    caps: Usage,
}

/// What a shard holds, and how many records it has evicted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    pub(super) entries: usize,
    pub(super) bytes: usize,
    pub(super) evicted: usize,
}

/// A key that is being executed.
#[derive(Debug)]
pub(super) struct Claimed {
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
    hash: u64,
    record: Box<[u8]>,
}

// === impl Shard ===

impl Shard {
    pub(super) fn new(entries: usize, bytes: usize) -> Self {
        Self {
            claimed: HashMap::default(),
            finished: LinkedHashMap::new(),
            evicted: LinkedHashMap::new(),
            usage: Usage::default(),
            caps: Usage { entries, bytes, evicted: entries },
        }
    }

    pub(super) const fn usage(&self) -> Usage {
        self.usage
    }

    /// Forgets what has expired.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.finished.front().is_some_and(|(_, oldest)| oldest.expires <= now) {
            self.pop_oldest();
        }
        while self.evicted.front().is_some_and(|(_, expires)| *expires <= now) {
            self.evicted.pop_front();
        }
    }

    pub(super) fn claim(&mut self, key: &[u8], hash: u64, fresh: Claimed, now: Instant) -> Claim {
        if let Some(finished) = self.finished.get(key) {
            return match finished.fingerprint == fresh.fingerprint {
                true => Claim::Done(Bytes::copy_from_slice(&finished.record)),
                false => Claim::Mismatch,
            };
        }
        match self.claimed.get_mut(key) {
            Some(claimed) if claimed.fingerprint != fresh.fingerprint => Claim::Mismatch,
            Some(claimed) if claimed.until > now => {
                let end = claimed.end.get_or_insert_with(|| watch::Sender::new(()));
                Claim::Busy(Wait::notified(
                    claimed.until.saturating_duration_since(now),
                    end.subscribe(),
                ))
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

    /// Keeps a record.
    pub(super) fn keep(&mut self, key: Box<[u8]>, record: Finished) {
        self.usage.entries += 1;
        self.usage.bytes += record.size(&key);
        let length = key.len();
        if let Some(old) = self.finished.insert(key, record) {
            self.usage.entries -= 1;
            self.usage.bytes -= length + old.record.len();
        }
    }

    /// Evicts the oldest records where there are too many, and remembers their hashes if it is to.
    pub(super) fn make_room(&mut self, remembering: bool) {
        while self.usage.entries > self.caps.entries || self.usage.bytes > self.caps.bytes {
            let Some(evicted) = self.pop_oldest() else { return };
            self.usage.evicted += 1;
            if remembering {
                self.evicted.insert(evicted.hash, evicted.expires);
            }
        }
        while self.evicted.len() > self.caps.evicted {
            self.evicted.pop_front();
        }
    }

    fn pop_oldest(&mut self) -> Option<Finished> {
        let (key, oldest) = self.finished.pop_front()?;
        self.usage.entries -= 1;
        self.usage.bytes -= oldest.size(&key);
        Some(oldest)
    }
}

// === impl Claimed ===

impl Claimed {
    pub(super) const fn new(fingerprint: u128, token: u128, until: Instant) -> Self {
        Self { fingerprint, token, until, end: None }
    }
}

// === impl Finished ===

impl Finished {
    pub(super) fn new(fingerprint: u128, expires: Instant, hash: u64, record: &[u8]) -> Self {
        Self { fingerprint, expires, hash, record: record.into() }
    }

    fn size(&self, key: &[u8]) -> usize {
        key.len() + self.record.len()
    }
}
