//! The store in memory: sharded, bounded, on tokio's clock.

mod shard;

use crate::{Claim, Execution, State, Store, record, state};
use bytes::Bytes;
use cinchona_core::{BoxError, Invalid};
use prost::Message;
use shard::{Finished, Shard};
use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
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
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    limits: Limits,
    entries: AtomicUsize,
    bytes: AtomicUsize,
    evicted: AtomicU64,
    state: Mutex<HashMap<String, Bytes>>,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    ttl: Duration,
    entries: usize,
    bytes: usize,
    remembers_evicted: bool,
}

const SHARDS: usize = 64;

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
        let shared = Shared {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            limits,
            entries: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            evicted: AtomicU64::new(0),
            state: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Keeps records for `ttl`; an empty store of its own.
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
        self.shared.entries.load(Ordering::Relaxed)
    }

    /// The bytes of all records and their keys.
    pub fn bytes(&self) -> usize {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// How many records have made room for others before their time.
    pub fn evicted(&self) -> u64 {
        self.shared.evicted.load(Ordering::Relaxed)
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
        let freed = shard.expire(now);
        let claim = shard.claim(key, hash, fingerprint, token, now, lease);
        drop(shard);
        self.shared.less(freed);
        Ok(claim)
    }

    async fn finish(&self, key: &[u8], token: u128, record: Bytes) -> Result<bool, BoxError> {
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
        if self.shared.finish(execution.key(), execution.token(), record, write) {
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
        (hash, lock(&self.shards[hash as usize % SHARDS]))
    }

    /// Ends the claim with `record`, and runs `effect` in between, if it is the key's own.
    fn finish(&self, key: &[u8], token: u128, record: Bytes, effect: impl FnOnce()) -> bool {
        let now = Instant::now();
        let (_, mut shard) = self.shard(key);
        let Some((key, fingerprint)) = shard.end(key, token) else { return false };
        effect();
        let finished = Finished::new(fingerprint, now + self.limits.ttl, record);
        let (added, replaced) = shard.keep(key, finished);
        drop(shard);
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(added, Ordering::Relaxed);
        self.less(replaced);
        self.make_room();
        true
    }

    /// Counts records that are gone, and their bytes.
    fn less(&self, (entries, bytes): (usize, usize)) {
        if entries > 0 {
            self.entries.fetch_sub(entries, Ordering::Relaxed);
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    fn is_full(&self) -> bool {
        self.entries.load(Ordering::Relaxed) > self.limits.entries
            || self.bytes.load(Ordering::Relaxed) > self.limits.bytes
    }

    /// Evicts, of each shard in turn, the oldest record.
    fn make_room(&self) {
        while self.is_full() {
            let turn = self.evicted.load(Ordering::Relaxed) as usize;
            let shards = (0..SHARDS).map(|n| &self.shards[(turn + n) % SHARDS]);
            let remembered = self.limits.remembers_evicted;
            let most = if remembered { self.limits.entries.div_ceil(SHARDS) } else { 0 };
            let evicted = shards
                .into_iter()
                .find_map(|shard| lock(shard).evict(|key| self.hasher.hash_one(key), most));
            let Some(bytes) = evicted else { return };
            self.evicted.fetch_add(1, Ordering::Relaxed);
            self.less((1, bytes));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
