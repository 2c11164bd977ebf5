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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);
    const LEASE: Duration = Duration::from_secs(10);
    const MANY: Caps = Caps { entries: 100, bytes: 1000, evicted: 100 };

    fn claim(shard: &mut Shard, key: &str, (request, token): (u128, u128), now: Instant) -> Claim {
        shard.claim(key.as_bytes(), 1, Claimed::new(request, token, now + LEASE), now)
    }

    /// Three bytes with its key of one.
    fn keep(shard: &mut Shard, key: &str, evicting: Evicting, expires: Instant) -> usize {
        let (key, hash) = (key.as_bytes().into(), u64::from(key.as_bytes()[0]));
        let record = Record { key, hash, fingerprint: 1, expires, answer: [7, 8].into() };
        shard.keep(record, 1, evicting)
    }

    #[test]
    fn a_key_is_granted_to_one_call_until_it_ends_or_its_lease_does() {
        let (mut shard, now) = (Shard::new(MANY), Instant::now());
        let granted = claim(&mut shard, "a", (1, 7), now);
        assert!(matches!(granted, Claim::Granted { lapsed: false }));
        // Of the same hash.
        let other = claim(&mut shard, "b", (1, 7), now + SECOND);
        assert!(matches!(other, Claim::Granted { lapsed: false }));
        let busy = claim(&mut shard, "a", (1, 8), now + 9 * SECOND);
        assert!(matches!(busy, Claim::Busy(_)));
        let mismatch = claim(&mut shard, "a", (2, 8), now + 9 * SECOND);
        assert!(matches!(mismatch, Claim::Mismatch));
        assert_eq!([9, 10, 11].map(|second| shard.claims(now + second * SECOND)), [2, 1, 0]);
        let lapsed = claim(&mut shard, "a", (1, 8), now + LEASE);
        assert!(matches!(lapsed, Claim::Granted { lapsed: true }));

        assert_eq!([7, 8].map(|token| shard.fingerprint(b"a", token)), [None, Some(1)]);
        assert_eq!(shard.end(b"a", 7), None);
        assert_eq!(shard.end(b"a", 8), Some((b"a"[..].into(), 1)));
        let again = claim(&mut shard, "a", (2, 9), now + LEASE);
        assert!(matches!(again, Claim::Granted { lapsed: false }));
    }

    #[test]
    fn an_answer_is_replayed_to_its_own_request_until_it_expires() {
        let (mut shard, now) = (Shard::new(MANY), Instant::now());
        let expires = now + 60 * SECOND;
        let record = Record {
            key: b"a"[..].into(),
            hash: 1,
            fingerprint: 1,
            expires,
            answer: [7, 8].into(),
        };
        assert!(shard.records().is_empty());
        assert_eq!(shard.keep(record, 1, Evicting::Refuses), 0);
        assert_eq!((shard.records().len(), shard.records().is_empty()), (1, false));
        shard.expire(expires - SECOND);
        let done = claim(&mut shard, "a", (1, 7), now);
        assert!(matches!(done, Claim::Done(answer) if answer == [7, 8][..]));
        assert!(matches!(claim(&mut shard, "a", (2, 7), now), Claim::Mismatch));
        let other = claim(&mut shard, "b", (1, 7), now);
        assert!(matches!(other, Claim::Granted { lapsed: false }), "of the same hash");
        shard.expire(expires);
        assert!(matches!(claim(&mut shard, "a", (1, 7), expires), Claim::Granted { .. }));
    }

    #[test]
    fn what_was_evicted_is_refused_until_it_would_have_expired_or_is_executed_again() {
        let now = Instant::now();
        let expires = now + 60 * SECOND;
        let second = |evicting| {
            let mut shard = Shard::new(Caps { entries: 1, ..MANY });
            assert_eq!(keep(&mut shard, "\u{1}", evicting, expires), 0);
            assert_eq!(keep(&mut shard, "b", evicting, expires), 1);
            shard
        };
        let mut refuses = second(Evicting::Refuses);
        let early = expires - SECOND;
        refuses.expire(early);
        assert!(matches!(claim(&mut refuses, "\u{1}", (1, 7), early), Claim::Evicted));
        assert!(matches!(claim(&mut refuses, "\u{1}", (1, 7), expires), Claim::Granted { .. }));
        let mut repeats = second(Evicting::Repeats);
        assert!(matches!(claim(&mut repeats, "\u{1}", (1, 7), now), Claim::Granted { .. }));
    }

    /// Whatever came next could be evicted without being remembered.
    #[test]
    fn where_no_more_evicted_calls_can_be_remembered_no_new_key_is_granted() {
        let now = Instant::now();
        let mut shard = Shard::new(Caps { entries: 1, evicted: 2, ..MANY });
        let expires = now + 60 * SECOND;
        for (key, claimed) in [("b", "x"), ("c", "y")] {
            keep(&mut shard, key, Evicting::Refuses, expires);
            assert!(matches!(claim(&mut shard, claimed, (1, 7), now), Claim::Granted { .. }));
        }
        assert_eq!(keep(&mut shard, "d", Evicting::Refuses, expires), 1);
        assert!(matches!(claim(&mut shard, "z", (1, 7), now), Claim::Full));
        shard.expire(expires);
        assert!(matches!(claim(&mut shard, "z", (1, 7), expires), Claim::Granted { .. }));
    }

    #[test]
    fn a_shard_holds_as_much_as_its_caps_and_no_more() {
        let expires = Instant::now() + 60 * SECOND;
        for caps in [Caps { entries: 2, ..MANY }, Caps { bytes: 6, ..MANY }] {
            let mut shard = Shard::new(caps);
            let evicted =
                ["a", "b", "c", "d"].map(|key| keep(&mut shard, key, Evicting::Nothing, expires));
            assert_eq!(evicted, [0, 0, 1, 1], "{caps:?}");
            assert_eq!((shard.records().len(), shard.records().bytes()), (2, 6));
        }
    }
}
