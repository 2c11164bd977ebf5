//! The store in memory: sharded, bounded, on tokio's clock.

mod shard;

use crate::{Claim, Execution, State, Store, record, state};
use bytes::Bytes;
use cinchona_core::{BoxError, Invalid, clock::later};
use prost::Message;
use shard::{Claimed, Finished, Shard};
use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use tonic::Status;

/// Keeps claims, records and state in this process; what it keeps ends with it.
///
/// Defaults: records live 300 s, and there are at most 1,000,000 of them, of 256 MiB together. The
/// oldest make room for new ones; claims do not count, and are never evicted.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Each has its part of the caps, so that none has to look at another.
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    limits: Limits,
    state: Mutex<HashMap<String, Bytes>>,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    ttl: Duration,
    entries: usize,
    bytes: usize,
    remembers_evicted: bool,
}

/// Enough for their locks to be free mostly.
const MOST_SHARDS: usize = 64;
/// As keys fall on shards by chance, a shard that is full is so about when all are.
const LEAST_ENTRIES: usize = 1024;
const LEAST_BYTES: usize = 4 << 20;

// === impl MemoryStore ===

impl MemoryStore {
    /// A store with the defaults.
    pub fn new() -> Self {
        let limits = Limits {
            ttl: Duration::from_secs(300),
            entries: 1_000_000,
            bytes: 256 << 20,
            remembers_evicted: false,
        };
        Self::limited(limits)
    }

    fn limited(limits: Limits) -> Self {
        let Limits { entries, bytes, .. } = limits;
        let shards = (entries / LEAST_ENTRIES).min(bytes / LEAST_BYTES).clamp(1, MOST_SHARDS);
        let shard = || Mutex::new(Shard::new(entries / shards, bytes / shards));
        let shared = Shared {
            shards: (0..shards).map(|_| shard()).collect(),
            hasher: RandomState::new(),
            limits,
            state: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Keeps records for `ttl`, and for ever by `Duration::MAX`; an empty store of its own.
    ///
    /// # Errors
    /// When `ttl` is zero.
    pub fn with_ttl(self, ttl: Duration) -> Result<Self, Invalid> {
        if ttl.is_zero() {
            return Err(Invalid::new("ttl", "0s", "more than 0"));
        }
        Ok(Self::limited(Limits { ttl, ..self.shared.limits }))
    }

    /// Keeps at most so many records, of so many bytes together, their keys included; an empty
    /// store of its own.
    ///
    /// # Errors
    /// When either is zero.
    pub fn with_caps(self, entries: usize, bytes: usize) -> Result<Self, Invalid> {
        for (field, cap) in [("entries", entries), ("bytes", bytes)] {
            if cap == 0 {
                return Err(Invalid::new(field, cap, "at least 1"));
            }
        }
        Ok(Self::limited(Limits { entries, bytes, ..self.shared.limits }))
    }

    /// Whether a call whose record had to make room is refused with `FAILED_PRECONDITION` for the
    /// rest of the record's time, instead of being executed again (the default). What is remembered
    /// of it is 16 bytes, for as many calls as there may be entries.
    pub fn refusing_evicted(self, refusing: bool) -> Self {
        Self::limited(Limits { remembers_evicted: refusing, ..self.shared.limits })
    }

    /// The fingerprint under which `key` is claimed by `token` now, if it is: for stores that are
    /// built on this one.
    pub fn fingerprint(&self, key: &[u8], token: u128) -> Option<u128> {
        self.shared.shard(key).1.fingerprint(key, token)
    }

    /// How many records there are.
    pub fn entries(&self) -> usize {
        self.shared.sum(|shard| shard.usage().entries)
    }

    /// The bytes of all records and their keys.
    pub fn bytes(&self) -> usize {
        self.shared.sum(|shard| shard.usage().bytes)
    }

    /// How many records have made room for others before their time.
    pub fn evicted(&self) -> usize {
        self.shared.sum(|shard| shard.usage().evicted)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Store for MemoryStore {
    async fn claim(
        &self,
        key: &[u8],
        fingerprint: u128,
        token: u128,
        lease: Duration,
    ) -> Result<Claim, BoxError> {
        let now = Instant::now();
        let (hash, mut shard) = self.shared.shard(key);
        shard.expire(now);
        Ok(shard.claim(key, hash, Claimed::new(fingerprint, token, later(now, lease)), now))
    }

    async fn finish(&self, key: &[u8], token: u128, record: &[u8]) -> Result<bool, BoxError> {
        Ok(self.shared.finish(key, token, record, || ()))
    }

    async fn release(&self, key: &[u8], token: u128) -> Result<(), BoxError> {
        self.shared.shard(key).1.end(key, token);
        Ok(())
    }

    fn instance(&self) -> usize {
        Arc::as_ptr(&self.shared) as usize
    }
}

impl State for MemoryStore {
    async fn read(&self, key: &str) -> Result<Option<Bytes>, Status> {
        Ok(lock(&self.shared.state).get(key).cloned())
    }

    async fn update<T, F>(&self, keys: &[&str], change: F) -> Result<T, Status>
    where
        T: Message + 'static,
        F: Fn(&mut [Option<Bytes>]) -> Result<T, Status> + Send + Sync + 'static,
    {
        let mut state = lock(&self.shared.state);
        let mut values: Vec<_> = keys.iter().map(|key| state.get(*key).cloned()).collect();
        let answer = change(&mut values)?;
        let mut write = || {
            for (key, value) in keys.iter().zip(values.drain(..)) {
                match value {
                    Some(value) => drop(state.insert((*key).to_owned(), value)),
                    None => drop(state.remove(*key)),
                }
            }
        };
        let Some(execution) = Execution::current(self.instance()) else {
            write();
            return Ok(answer);
        };
        let record = record::of_message(&answer);
        if self.shared.finish(execution.key(), execution.token(), &record, write) {
            execution.set_answered();
            Ok(answer)
        } else {
            Err(state::fenced())
        }
    }
}

// === impl Shared ===

impl Shared {
    /// The shard of `key`, and the hash by which it was found.
    fn shard(&self, key: &[u8]) -> (u64, MutexGuard<'_, Shard>) {
        let hash = self.hasher.hash_one(key);
        (hash, lock(&self.shards[hash as usize % self.shards.len()]))
    }

    /// Ends the claim with `record`, and runs `effect` in between, if it is the key's own.
    fn finish(&self, key: &[u8], token: u128, record: &[u8], effect: impl FnOnce()) -> bool {
        let expires = later(Instant::now(), self.limits.ttl);
        let (hash, mut shard) = self.shard(key);
        let Some((key, fingerprint)) = shard.end(key, token) else { return false };
        effect();
        shard.keep(key, Finished::new(fingerprint, expires, hash, record));
        shard.make_room(self.limits.remembers_evicted);
        true
    }

    fn sum(&self, of: impl Fn(&Shard) -> usize) -> usize {
        self.shards.iter().map(|shard| of(&lock(shard))).sum()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
