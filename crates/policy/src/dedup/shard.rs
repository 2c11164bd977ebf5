//! One part of the store in memory, under one lock.

use super::{
    claim::{Claim, Wait},
    records::{Record, Records, Scarce},
};
use bytes::Bytes;
use hashlink::{DefaultHashBuilder, LinkedHashMap};
use std::collections::HashMap;
use tokio::{sync::watch, time::Instant};

/// Claims, records, and the evicted calls.
#[derive(Debug)]
pub struct Shard {
    claimed: HashMap<Box<[u8]>, Claimed, DefaultHashBuilder>,
    records: Records,
    /// When they would have expired, by the hash of the key: 64 bits are enough to refuse a call.
    evicted: LinkedHashMap<u64, Instant>,
    caps: Caps,
}

/// The most that a shard may hold.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// How many records.
    pub entries: usize,
    /// The bytes of them and of their keys.
    pub bytes: usize,
    /// How many evicted calls are remembered.
    pub evicted: usize,
}

/// What happens to a call whose record was evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evicting {
    /// It is refused.
    Refuses,
    /// It is executed again.
    Repeats,
    /// Nothing: its record is kept elsewhere.
    Nothing,
}

/// A key that is being executed.
#[derive(Debug)]
pub struct Claimed {
    fingerprint: u128,
    token: u128,
    until: Instant,
    /// Dropped with the claim, which wakes the waiting calls; created for the first of them.
    end: Option<watch::Sender<()>>,
}

// === impl Shard ===

impl Shard {
    /// Without any.
    pub fn new(caps: Caps) -> Self {
        Self {
            claimed: HashMap::default(),
            records: Records::new(),
            evicted: LinkedHashMap::new(),
            caps,
        }
    }

    /// Its records.
    pub const fn records(&self) -> &Records {
        &self.records
    }

    /// How many keys are being executed.
    pub fn claims(&self, now: Instant) -> usize {
        self.claimed.values().filter(|claimed| claimed.until > now).count()
    }

    /// Removes expired entries.
    pub fn expire(&mut self, now: Instant) {
        while self.records.pop_expired(now).is_some() {}
        while self.evicted.front().is_some_and(|(_, expires)| *expires <= now) {
            self.evicted.pop_front();
        }
    }

    /// Claims `key`, whose hash is this.
    pub fn claim(&mut self, key: &[u8], hash: u64, fresh: Claimed, now: Instant) -> Claim {
        if let Some(record) = self.records.get(key, hash) {
            return match record.fingerprint == fresh.fingerprint {
                true => Claim::Done(Bytes::copy_from_slice(&record.answer)),
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
            None if self.evicted.get(&hash).is_some_and(|expires| *expires > now) => Claim::Evicted,
            None if self.evicted.len() >= self.caps.evicted => Claim::Full,
            None => {
                self.claimed.insert(key.into(), fresh);
                Claim::Granted { lapsed: false }
            }
        }
    }

    /// The fingerprint under which `key` is claimed by `token`.
    pub fn fingerprint(&self, key: &[u8], token: u128) -> Option<u128> {
        let claimed = self.claimed.get(key).filter(|claimed| claimed.token == token)?;
        Some(claimed.fingerprint)
    }

    /// Ends the claim with `token`; its key and fingerprint.
    pub fn end(&mut self, key: &[u8], token: u128) -> Option<(Box<[u8]>, u128)> {
        let fingerprint = self.fingerprint(key, token)?;
        Some((self.claimed.remove_entry(key)?.0, fingerprint))
    }

    /// Keeps a record of a call by `caller`; returns how many were evicted for it.
    pub fn keep(&mut self, record: Record, caller: u64, evicting: Evicting) -> usize {
        self.records.push(record, caller);
        let mut evicted = 0;
        while let Some(record) =
            self.scarce().and_then(|scarce| self.records.pop_for(caller, scarce))
        {
            evicted += 1;
            if evicting == Evicting::Refuses {
                self.evicted.insert(record.hash, record.expires);
            }
        }
        evicted
    }

    fn scarce(&self) -> Option<Scarce> {
        match (self.records.len() > self.caps.entries, self.records.bytes() > self.caps.bytes) {
            (true, _) => Some(Scarce::Entries),
            (_, true) => Some(Scarce::Bytes),
            _ => None,
        }
    }
}

// === impl Claimed ===

impl Claimed {
    /// Until then, unless it is ended before.
    pub const fn new(fingerprint: u128, token: u128, until: Instant) -> Self {
        Self { fingerprint, token, until, end: None }
    }
}
