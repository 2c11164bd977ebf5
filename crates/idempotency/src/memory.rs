//! The store in memory: sharded, bounded, on tokio's clock.

use crate::{Claim, Execution, State, Store, key::caller_of, record, state};
use bytes::Bytes;
use cinchona_core::{BoxError, Invalid};
use cinchona_plumbing::{Count, clock::later};
use cinchona_policy::dedup::{Caps, Claimed, Evicting, Record, Shard};
use prost::Message;
use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{task::yield_now, time::Instant};
use tonic::Status;

/// Keeps claims, records and state in the memory of this process.
///
/// Defaults: records live 300 s, and there are at most 1,000,000 of them, of 256 MiB together: more
/// than 3,000 new keys a second. Claims do not count, and are never evicted.
///
/// *When it is full*, old records are evicted: the oldest one, unless its caller has less than half
/// of the records of the new call's caller, or of the caller with the most; then that caller's
/// oldest one. So no caller loses a record to one that has more than twice as many. A call whose
/// record was evicted is refused (`FAILED_PRECONDITION`) until the record would have expired: it
/// has had its effect, and its answer is lost. Four times as many such calls are remembered as
/// there may be records, in 50 bytes each; beyond that, new calls are refused
/// (`RESOURCE_EXHAUSTED`). Evictions are counted ([`evicted`](Self::evicted)), and logged each time
/// that their number has doubled.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// All servers that share the store recognise each other's calls, and no others.
    domain: String,
    /// Each has its share of the limits, so that none has to look at another.
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    limits: Limits,
    evicted: Count,
    refused: Count,
    state: Mutex<HashMap<String, Bytes>>,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    ttl: Duration,
    entries: usize,
    bytes: usize,
    evicting: Evicting,
}

/// The result of a change of state.
enum Commit {
    Done,
    /// Another change was committed first.
    Outrun,
    /// The call has lost its claim.
    Fenced,
}

/// Enough shards for little contention on their locks.
const MOST_SHARDS: usize = 64;
/// Keys are spread evenly, so shards fill up at about the same time.
const LEAST_ENTRIES: usize = 1024;
const LEAST_BYTES: usize = 4 << 20;

/// How many evicted calls are remembered per allowed record.
const REMEMBERED: usize = 4;

/// How often a change is repeated after conflicts before it fails.
const MOST_TURNS: usize = 1000;

// === impl MemoryStore ===

impl MemoryStore {
    /// A store with the defaults.
    pub fn new() -> Self {
        let limits = Limits {
            ttl: Duration::from_secs(300),
            entries: 1_000_000,
            bytes: 256 << 20,
            evicting: Evicting::Refuses,
        };
        Self::limited(limits)
    }

    fn limited(limits: Limits) -> Self {
        let Limits { entries, bytes, .. } = limits;
        let shards = (entries / LEAST_ENTRIES).min(bytes / LEAST_BYTES).clamp(1, MOST_SHARDS);
        let (entries, bytes) = (entries / shards, bytes / shards);
        let caps = Caps { entries, bytes, evicted: entries.saturating_mul(REMEMBERED) };
        let shard = || Mutex::new(Shard::new(caps));
        let shared = Shared {
            domain: uuid::Uuid::new_v4().simple().to_string(),
            shards: (0..shards).map(|_| shard()).collect(),
            hasher: RandomState::new(),
            limits,
            evicted: Count::default(),
            refused: Count::default(),
            state: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Keeps records for `ttl`; `Duration::MAX`: without end. Returns an empty store.
    ///
    /// # Errors
    /// When `ttl` is zero.
    pub fn with_ttl(self, ttl: Duration) -> Result<Self, Invalid> {
        if ttl.is_zero() {
            return Err(Invalid::new("ttl", "0s", "more than 0"));
        }
        Ok(Self::limited(Limits { ttl, ..self.shared.limits }))
    }

    /// Keeps at most so many records, of so many bytes together, including their keys; returns an
    /// empty store.
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

    /// Whether a call whose record was evicted is refused with `FAILED_PRECONDITION` until the
    /// record would have expired (the default), or executed again; returns an empty store.
    #[must_use]
    pub fn refusing_evicted(self, refusing: bool) -> Self {
        let evicting = if refusing { Evicting::Refuses } else { Evicting::Repeats };
        Self::limited(Limits { evicting, ..self.shared.limits })
    }

    /// Works as a cache, for stores built on this one that keep their records elsewhere: evicted
    /// records are neither remembered nor logged. Returns an empty store.
    #[must_use]
    pub fn as_cache(self) -> Self {
        Self::limited(Limits { evicting: Evicting::Nothing, ..self.shared.limits })
    }

    /// The fingerprint under which `key` is claimed by `token` now, if so: for stores built on this
    /// one.
    pub fn fingerprint(&self, key: &[u8], token: u128) -> Option<u128> {
        self.shared.shard(key).1.fingerprint(key, token)
    }

    /// How many records there are.
    pub fn entries(&self) -> usize {
        self.shared.sum(|shard, _| shard.records().len())
    }

    /// The bytes of all records and their keys.
    pub fn bytes(&self) -> usize {
        self.shared.sum(|shard, _| shard.records().bytes())
    }

    /// How many keys are claimed by calls in execution.
    pub fn claims(&self) -> usize {
        self.shared.sum(Shard::claims)
    }

    /// How many records were evicted before their time.
    pub fn evicted(&self) -> usize {
        usize::try_from(self.shared.evicted.read()).unwrap_or(usize::MAX)
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
        let claim =
            shard.claim(key, hash, Claimed::new(fingerprint, token, later(now, lease)), now);
        drop(shard);
        if matches!(claim, Claim::Full) {
            self.shared.note_refused();
        }
        Ok(claim)
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

    fn domain(&self) -> Option<String> {
        Some(self.shared.domain.clone())
    }

    fn evicted(&self) -> u64 {
        self.shared.evicted.read()
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
        for _ in 0..MOST_TURNS {
            let before = self.shared.values(keys);
            let mut values = before.clone();
            // Called without a lock: it may block, or panic.
            let answer = change(&mut values)?;
            match self.commit(keys, &before, values, &answer) {
                Commit::Done => return Ok(answer),
                Commit::Outrun => yield_now().await,
                Commit::Fenced => return Err(state::fenced()),
            }
        }
        Err(Status::aborted("the change conflicted with others at each attempt"))
    }
}

impl MemoryStore {
    /// Writes `values` if they are still as `before`, and the record of the call that this task
    /// executes, if any.
    fn commit(
        &self,
        keys: &[&str],
        before: &[Option<Bytes>],
        values: Vec<Option<Bytes>>,
        answer: &impl Message,
    ) -> Commit {
        let execution = Execution::current(self.instance());
        let record = execution.as_ref().map(|_| record::of_message(answer));
        let mut state = lock(&self.shared.state);
        if keys.iter().zip(before).any(|(key, before)| state.get(*key) != before.as_ref()) {
            return Commit::Outrun;
        }
        let write = || {
            for (key, value) in keys.iter().zip(values) {
                match value {
                    Some(value) => drop(state.insert((*key).to_owned(), value)),
                    None => drop(state.remove(*key)),
                }
            }
        };
        let Some((execution, record)) = execution.zip(record) else {
            write();
            return Commit::Done;
        };
        if !self.shared.finish(execution.key(), execution.token(), &record, write) {
            return Commit::Fenced;
        }
        execution.set_answered();
        Commit::Done
    }
}

// === impl Shared ===

impl Shared {
    /// The shard of `key`, and its hash.
    fn shard(&self, key: &[u8]) -> (u64, MutexGuard<'_, Shard>) {
        let hash = self.hasher.hash_one(key);
        (hash, lock(&self.shards[hash as usize % self.shards.len()]))
    }

    fn values(&self, keys: &[&str]) -> Vec<Option<Bytes>> {
        let state = lock(&self.state);
        keys.iter().map(|key| state.get(*key).cloned()).collect()
    }

    /// Ends the claim with `record`, and runs `effect` with it, if the claim is still held.
    fn finish(&self, key: &[u8], token: u128, record: &[u8], effect: impl FnOnce()) -> bool {
        let expires = later(Instant::now(), self.limits.ttl);
        let caller = self.hasher.hash_one(caller_of(key));
        let (hash, mut shard) = self.shard(key);
        let Some((key, fingerprint)) = shard.end(key, token) else { return false };
        effect();
        let record = Record { key, hash, fingerprint, expires, answer: record.into() };
        let evicted = shard.keep(record, caller, self.limits.evicting);
        drop(shard);
        if evicted > 0 {
            self.note_evicted(evicted as u64);
        }
        true
    }

    fn note_evicted(&self, evicted: u64) {
        let before = self.evicted.add(evicted);
        if self.limits.evicting != Evicting::Nothing && has_doubled(before, before + evicted) {
            tracing::warn!(
                evicted = before + evicted,
                calls_are_refused = self.limits.evicting == Evicting::Refuses,
                ttl = ?self.limits.ttl,
                "the store is full, and answers are forgotten before their time: raise its caps"
            );
        }
    }

    fn note_refused(&self) {
        let before = self.refused.count();
        if has_doubled(before, before + 1) {
            tracing::warn!(
                refused = before + 1,
                "the store has no room to remember more calls, and new ones are refused"
            );
        }
    }

    /// Sums over all shards, without expired entries.
    fn sum(&self, of: impl Fn(&Shard, Instant) -> usize) -> usize {
        let now = Instant::now();
        let of = |shard: &Mutex<Shard>| {
            let mut shard = lock(shard);
            shard.expire(now);
            of(&shard, now)
        };
        self.shards.iter().map(of).sum()
    }
}

/// Whether a count has passed a power of two between these two values.
fn has_doubled(before: u64, after: u64) -> bool {
    before.checked_ilog2() != after.checked_ilog2()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
