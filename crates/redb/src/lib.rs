//! An idempotency store in one file ([redb]): acknowledged records survive `kill -9` and a loss of
//! power.
//!
//! # Rule
//!
//! * One process has the file open at a time. Claims live in that process: after a crash the open
//!   ones have lapsed, and no call waits for their leases.
//! * One thread writes everything, in groups: writes that arrive during a commit are in the next
//!   one. So a single call waits for one commit, and a thousand concurrent ones for about two.
//! * The file is checked when it is opened (redb has a checksum of each page), and a damaged one is
//!   refused. A last commit of which only a part is on disk is rolled back, unless it was
//!   acknowledged, according to a number in a file beside it (`PATH.last`, which survives the
//!   process, but not always a loss of power). To replace the file by an older copy or an empty
//!   one, remove that as well. A file that was removed while open is not created anew when it is
//!   reopened: the store stays failed. Records and values have their own checksums (8 bytes each):
//!   data damaged while the file is open is not served; reads fail with `DATA_LOSS`, and claims
//!   fail.
//! * After a failure (no space is left, for example) the file is closed, and reopened before the
//!   next write, at most ten times a second: acknowledged records are there. Until then all calls
//!   fail, and [`RedbStore::failure`] returns the cause until a write has succeeded.
//! * A change of state that panics fails with `INTERNAL`, changes nothing and affects no other.
//! * Records that this process has recently written or read are answered from memory.
//!
//! # The handler's own state
//!
//! A record in this file and an effect elsewhere are two writes, and a crash can come between them.
//! There are three remedies:
//!
//! 1. *Keep the state in this store*: [`RedbStore`] is a [`State`](cinchona_idempotency::State),
//!    whose changes commit in the same transaction as the record. With `Guarantee::AtLeastOnce`
//!    every effect happens exactly once, and [`Options::durable_claims`] can be switched off, which
//!    saves one commit per call.
//! 2. *Durable claims* (the default) and `Guarantee::AtMostOnce`: a call that had begun when the
//!    process crashed is never executed again; the caller gets `UNKNOWN`.
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

mod file;
mod last;
mod options;
mod seal;
mod state;
mod tables;
mod writer;

pub use options::Options;

use bytes::Bytes;
use cinchona_core::BoxError;
use cinchona_idempotency::{Claim, MemoryStore, Store};
use file::{File, Place};
use futures_util::FutureExt;
use last::Last;
use std::{
    collections::HashSet,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tables::{Found, Limits, Reading, Tables};
use uuid::Uuid;
use writer::Writer;

/// A store and a state in one file; clones share it. Dropping the last one closes the file, and
/// waits for that.
#[derive(Clone, Debug)]
pub struct RedbStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    file: Arc<File>,
    name: u128,
    writer: Writer,
    /// The claims, and recently used records.
    memory: MemoryStore,
    /// Calls that have not begun although the file may have their claims, which could not be
    /// removed.
    unbegun: Mutex<HashSet<Vec<u8>>>,
    options: Options,
}

const DAMAGED: &str = "what the file has of it is not what was written";

/// How many records are kept in memory as well.
const CACHED: usize = 100_000;
const CACHED_BYTES: usize = 64 << 20;

/// The bytes that a probe writes.
const ROOM: usize = 1 << 20;

// === impl RedbStore ===

impl RedbStore {
    /// Opens the file at `path`, or creates it. All of it is read and checked: 300 MB with 400,000
    /// records, in the page cache, take 0.4 s (0.7 s after a crash).
    ///
    /// # Errors
    /// When another process has the file open, it is not such a file or is damaged, or an option is
    /// outside its range.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, BoxError> {
        let path = path.as_ref().to_owned();
        let is_new = matches!(path.try_exists(), Ok(false));
        let last = Last::beside(&path);
        if is_new {
            // A missing file is created here, but not when it is reopened.
            last.set(0);
        }
        let open = Box::new(move |builder: &redb::Builder| builder.create(&path));
        Self::over(Place { open, last }, options)
    }

    fn over(place: Place, options: Options) -> Result<Self, BoxError> {
        let options = options.checked()?;
        let file = Arc::new(File::open(place, Limits::from(options))?);
        let name = file.commit(|tables| tables.prepare(Uuid::new_v4().as_u128()))?;
        let writer = Writer::start(file.clone())?;
        let memory =
            MemoryStore::new().as_cache().with_ttl(options.ttl)?.with_caps(CACHED, CACHED_BYTES)?;
        let unbegun = Mutex::default();
        Ok(Self { shared: Arc::new(Shared { file, name, writer, memory, unbegun, options }) })
    }

    /// Why the store cannot be written to, if so: the last write failed (a full disk, for example),
    /// or the file could not be reopened, which is tried with each call, at most ten times a
    /// second. `None` once a write has succeeded. For health checks.
    pub fn failure(&self) -> Option<Arc<str>> {
        self.shared.file.failure()
    }

    /// Whether there is room for 1 MiB, which is written and removed again in two commits: for
    /// health checks, while there is a [`failure`](Self::failure) and no call writes. A smaller
    /// write may still find room in the file.
    ///
    /// # Errors
    /// When there is none.
    pub async fn probe(&self) -> Result<(), BoxError> {
        for room in [ROOM, 0] {
            self.shared.writer.run(move |tables| tables.takes_room(room), |()| ()).await?;
        }
        Ok(())
    }

    /// How many records there are on disk.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn entries(&self) -> Result<u64, BoxError> {
        self.look_up(Reading::entries)
    }

    fn look_up<T>(
        &self,
        read: impl FnOnce(&Reading) -> Result<T, redb::Error>,
    ) -> Result<T, BoxError> {
        let found = self.shared.file.read(read);
        found.inspect_err(|why| self.shared.writer.reopen(why))
    }

    fn unbegun(&self) -> MutexGuard<'_, HashSet<Vec<u8>>> {
        self.shared.unbegun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes a claim from memory, once the writer no longer needs it.
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
        let found = self.look_up(|reading| reading.find(key, fingerprint));
        let is_unbegun = self.unbegun().remove(key);
        let answered = match found.inspect_err(|_| self.forget(key, token))? {
            Found::Nothing => None,
            Found::Begun => {
                lapsed |= !is_unbegun;
                None
            }
            Found::Damaged => {
                self.forget(key, token);
                return Err(DAMAGED.into());
            }
            Found::Answered(record) => Some(Claim::Done(record)),
            Found::Other => Some(Claim::Mismatch),
            Found::Evicted if self.shared.options.refusing_evicted => Some(Claim::Evicted),
            Found::Full => Some(Claim::Full),
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
        if self.shared.writer.run(write, |()| ()).await.is_err() {
            // No other call has to wait for that.
            let mut unbegun = self.unbegun();
            if unbegun.len() < CACHED {
                unbegun.insert(key.clone());
            }
        }
        memory.release(&key, token).await
    }

    fn instance(&self) -> usize {
        Arc::as_ptr(&self.shared) as usize
    }

    /// Since the store was opened.
    fn evicted(&self) -> u64 {
        self.shared.writer.evicted()
    }

    /// A random number stored in the file when it is created: the file keeps its domain wherever it
    /// is moved, and no other machine's file at the same path has it. A copy of the file has it,
    /// too: name servers with copies by `DedupSettings::with_domain`.
    fn domain(&self) -> Option<String> {
        Some(format!("redb-{:032x}", self.shared.name))
    }
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests;
