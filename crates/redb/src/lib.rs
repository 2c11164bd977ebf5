//! An idempotency store in one file ([redb]): what it says it has kept survives `kill -9` and a
//! loss of power.
//!
//! # Rule
//!
//! * One process has the file at a time. Claims live in that process: after a crash those that were
//!   open have lapsed, and nobody waits for their leases.
//! * Everything is written by one thread, in groups: what arrives while a commit is on its way to
//!   the disk is in the next one. So a lone call waits for one commit, and a thousand at once wait
//!   for about two.
//! * Records that this process has written or read lately are answered from memory.
//!
//! # What the handler's own state needs
//!
//! A record in this file and an effect elsewhere are two writes, and a crash can come between
//! them. Three ways to live with that:
//!
//! 1. *Keep the state in this store*: [`RedbStore`] is a [`State`], whose changes commit in the
//!    same transaction as the record. With `Guarantee::AtLeastOnce` every effect happens exactly
//!    once, and [`Options::durable_claims`] can be switched off, which saves a commit a call.
//! 2. *Durable claims* (the default) and `Guarantee::AtMostOnce`: a call that had begun when the
//!    process crashed is never executed again; its caller is told that the outcome is unknown.
//! 3. `Guarantee::AtLeastOnce` where executing again is acceptable.
//!
//! # Example
//!
//! ```
//! use cinchona_idempotency::State;
//! use cinchona_redb::{Options, RedbStore};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("calls.redb");
//! let store = RedbStore::open(&path, Options::default())?;
//! store.update(&["greeting"], |values| {
//!     values[0] = Some("hello".into());
//!     Ok(())
//! }).await?;
//! drop(store);
//!
//! let reopened = RedbStore::open(&path, Options::default())?;
//! assert_eq!(reopened.read("greeting").await?.as_deref(), Some(&b"hello"[..]));
//! # Ok(())
//! # }
//! ```
//!
//! [redb]: https://docs.rs/redb

mod tables;
mod writer;

use bytes::Bytes;
use cinchona_core::{BoxError, Invalid};
use cinchona_idempotency::{Claim, Execution, MemoryStore, State, Store, fenced, record};
use futures_util::FutureExt;
use prost::Message;
use redb::{Database, ReadableDatabase};
use std::{path::Path, sync::Arc, time::Duration};
use tables::{Found, Limits, Reading, Tables};
use tonic::Status;
use uuid::Uuid;
use writer::Writer;

/// A store and a state in one file; its clones are the same store. With the last of them the file
/// is closed, for which that one waits.
#[derive(Clone, Debug)]
pub struct RedbStore {
    shared: Arc<Shared>,
}

/// What a store keeps, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long a record is kept. Default 300 s; at least 1 ms, and for ever by `Duration::MAX`.
    pub ttl: Duration,
    /// How many records there are at most; the oldest make room. Default 1,000,000; at least 1.
    pub entries: u64,
    /// How many bytes they have at most, with their keys. Default 256 MiB; at least 1.
    pub bytes: u64,
    /// Whether a call whose record had to make room is refused for the rest of the record's time,
    /// instead of being executed again. Default false.
    pub refusing_evicted: bool,
    /// Whether a claim is on disk before the call is executed, so that a call during which the
    /// process crashes is known to have begun. Default true.
    pub durable_claims: bool,
}

#[derive(Debug)]
struct Shared {
    database: Arc<Database>,
    name: u128,
    writer: Writer,
    /// The claims, and lately used records.
    memory: MemoryStore,
    options: Options,
}

/// Of the records, so many are kept in memory as well.
const CACHED: usize = 100_000;
const CACHED_BYTES: usize = 64 << 20;

// === impl RedbStore ===

impl RedbStore {
    /// Opens the file at `path`, or makes it.
    ///
    /// # Errors
    /// When another process has the file, it is no such file, or an option is outside its range.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, BoxError> {
        let options = options.checked()?;
        let database = Arc::new(Database::create(path)?);
        let limits = Limits::from(options);
        let name = tables::prepare(&database, &limits, Uuid::new_v4().as_u128())?;
        let writer = Writer::start(database.clone(), limits)?;
        let memory = MemoryStore::new().with_ttl(options.ttl)?.with_caps(CACHED, CACHED_BYTES)?;
        Ok(Self { shared: Arc::new(Shared { database, name, writer, memory, options }) })
    }

    /// How many records there are on disk.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn entries(&self) -> Result<u64, BoxError> {
        Ok(self.reading()?.entries()?)
    }

    /// How many records have made room for others since the store was opened.
    pub fn evicted(&self) -> u64 {
        self.shared.writer.evicted()
    }

    fn reading(&self) -> Result<Reading, redb::Error> {
        Reading::new(&self.shared.database.begin_read()?)
    }

    /// Removes a claim from memory, once the writer has nothing to do with it any more.
    fn forget(&self, key: &[u8], token: u128) {
        // The store in memory never waits.
        drop(self.shared.memory.release(key, token).now_or_never());
    }
}

impl Store for RedbStore {
    async fn claim(
        &self,
        key: &[u8],
        fingerprint: u128,
        token: u128,
        lease: Duration,
    ) -> Result<Claim, BoxError> {
        let memory = &self.shared.memory;
        let mut lapsed = match memory.claim(key, fingerprint, token, lease).await? {
            Claim::Granted { lapsed } => lapsed,
            other => return Ok(other),
        };
        let answered = match self.reading()?.find(key, fingerprint)? {
            Found::Nothing => None,
            Found::Begun => {
                lapsed = true;
                None
            }
            Found::Answered(record) => Some(Claim::Done(record)),
            Found::Other => Some(Claim::Mismatch),
            Found::Evicted if self.shared.options.refusing_evicted => Some(Claim::Evicted),
            Found::Evicted => None,
        };
        if let Some(answered) = answered {
            self.forget(key, token);
            return Ok(answered);
        }
        if self.shared.options.durable_claims {
            let key = key.to_vec();
            let begin = move |tables: &mut Tables<'_>| tables.begin(&key, fingerprint);
            self.shared.writer.run(begin, |()| ()).await?;
        }
        Ok(Claim::Granted { lapsed })
    }

    async fn finish(&self, key: &[u8], token: u128, record: &[u8]) -> Result<bool, BoxError> {
        let (memory, key) = (self.shared.memory.clone(), key.to_vec());
        let record = Bytes::copy_from_slice(record);
        let held = (memory.clone(), key.clone(), record.clone());
        let write = move |tables: &mut Tables<'_>| {
            let (memory, key, record) = held;
            let fingerprint = memory.fingerprint(&key, token);
            fingerprint.map_or(Ok(false), |fingerprint| tables.answer(&key, fingerprint, &record))
        };
        let committed = move |kept: bool| {
            if kept {
                drop(memory.finish(&key, token, &record).now_or_never());
            }
            kept
        };
        self.shared.writer.run(write, committed).await
    }

    async fn release(&self, key: &[u8], token: u128) -> Result<(), BoxError> {
        let (memory, key) = (self.shared.memory.clone(), key.to_vec());
        if memory.fingerprint(&key, token).is_none() || !self.shared.options.durable_claims {
            return memory.release(&key, token).await;
        }
        let held = key.clone();
        let write = move |tables: &mut Tables<'_>| tables.give_up(&held);
        let committed = move |()| drop(memory.release(&key, token).now_or_never());
        self.shared.writer.run(write, committed).await
    }

    fn instance(&self) -> usize {
        Arc::as_ptr(&self.shared) as usize
    }

    /// A random number that is in the file from its first opening on: so the file has the same
    /// domain wherever it is moved, and none that another machine has at the same path. A copy of
    /// the file has it, too: servers that each get one are to be named by
    /// `DedupLayer::with_domain`.
    fn domain(&self) -> Option<String> {
        Some(format!("redb-{:032x}", self.shared.name))
    }
}

impl State for RedbStore {
    async fn read(&self, key: &str) -> Result<Option<Bytes>, Status> {
        let read = || self.reading()?.value(key);
        read().map_err(|error| unavailable(&error.into()))
    }

    async fn update<T, F>(&self, keys: &[&str], change: F) -> Result<T, Status>
    where
        T: Message + 'static,
        F: Fn(&mut [Option<Bytes>]) -> Result<T, Status> + Send + Sync + 'static,
    {
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        let execution = Execution::current(self.instance());
        let memory = self.shared.memory.clone();
        let write = move |tables: &mut Tables<'_>| {
            let mut values = tables.values(&keys)?;
            let answer = match change(&mut values) {
                Ok(answer) => answer,
                Err(refused) => return Ok((Err(refused), None)),
            };
            let Some(execution) = execution else {
                tables.set_values(&keys, &values)?;
                return Ok((Ok(answer), None));
            };
            let record = record::of_message(&answer);
            let held = memory.fingerprint(execution.key(), execution.token());
            let kept = match held {
                Some(fingerprint) => tables.answer(execution.key(), fingerprint, &record)?,
                None => false,
            };
            if !kept {
                return Ok((Err(fenced()), None));
            }
            tables.set_values(&keys, &values)?;
            Ok((Ok(answer), Some((memory, execution, record))))
        };
        let committed = |(answer, answered): (_, Option<(MemoryStore, Arc<Execution>, Bytes)>)| {
            if let Some((memory, execution, record)) = answered {
                let (key, token) = (execution.key(), execution.token());
                drop(memory.finish(key, token, &record).now_or_never());
                execution.set_answered();
            }
            answer
        };
        let written = self.shared.writer.run(write, committed).await;
        written.map_err(|error| unavailable(&error))?
    }
}

fn unavailable(error: &BoxError) -> Status {
    Status::unavailable(format!("the state does not answer: {error}"))
}

// === impl Options ===

impl Options {
    fn checked(self) -> Result<Self, Invalid> {
        if self.ttl < Duration::from_millis(1) {
            return Err(Invalid::new("ttl", format!("{:?}", self.ttl), "at least 1ms"));
        }
        for (field, value) in [("entries", self.entries), ("bytes", self.bytes)] {
            if value == 0 {
                return Err(Invalid::new(field, value, "at least 1"));
            }
        }
        Ok(self)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(300),
            entries: 1_000_000,
            bytes: 256 << 20,
            refusing_evicted: false,
            durable_claims: true,
        }
    }
}

#[cfg(test)]
mod tests;
