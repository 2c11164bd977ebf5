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
//! * The file is checked when it is opened (redb has a checksum of each page), and is refused if it
//!   is not what was written. A last commit of which only a part is there is taken back, unless it
//!   was acknowledged, as a number in a file beside it says (`PATH.last`, which outlives the
//!   process, but not always a loss of power). To put an older copy, or an empty file, in the
//!   place of a file, remove that as well. A file that was removed while it is open is not made
//!   anew when it is opened again: the store stays failed. Records and values have a checksum of
//!   their own, too (8 bytes each): what is damaged while the file is open is not served, but
//!   answered with `DATA_LOSS`, or by the failure of the claim.
//! * A file that has failed (no space is left, say) is closed and opened again, before the next
//!   write and at most ten times a second: what was acknowledged is there. Until then all calls
//!   fail, and [`RedbStore::failure`] says why, until a write has succeeded.
//! * A change of state that panics fails with `INTERNAL`, changes nothing and harms no other.
//! * Records that this process has written or read lately are answered from memory.
//!
//! # What the handler's own state needs
//!
//! A record in this file and an effect elsewhere are two writes, and a crash can come between
//! them. Three ways to live with that:
//!
//! 1. *Keep the state in this store*: [`RedbStore`] is a
//!    [`State`](cinchona_idempotency::State), whose changes commit in the same transaction as the
//!    record. With `Guarantee::AtLeastOnce` every effect happens exactly
//!    once, and [`Options::durable_claims`] can be switched off, which saves a commit a call.
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

/// A store and a state in one file; its clones are the same store. With the last of them the file
/// is closed, for which that one waits.
#[derive(Clone, Debug)]
pub struct RedbStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    file: Arc<File>,
    name: u128,
    writer: Writer,
    /// The claims, and lately used records.
    memory: MemoryStore,
    /// Calls that have not begun, though the file may say so: that could not be taken back.
    unbegun: Mutex<HashSet<Vec<u8>>>,
    options: Options,
}

const DAMAGED: &str = "what the file has of it is not what was written";

/// Of the records, so many are kept in memory as well.
const CACHED: usize = 100_000;
const CACHED_BYTES: usize = 64 << 20;

/// What a probe writes.
const ROOM: usize = 1 << 20;

// === impl RedbStore ===

impl RedbStore {
    /// Opens the file at `path`, or makes it. All of it is read and checked: 300 MB with 400,000
    /// records, which the system has in memory, take 0.4 s (0.7 s after a crash).
    ///
    /// # Errors
    /// When another process has the file, it is no such file or is damaged, or an option is outside
    /// its range.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, BoxError> {
        let path = path.as_ref().to_owned();
        let is_new = matches!(path.try_exists(), Ok(false));
        let last = Last::beside(&path);
        if is_new {
            // Whoever has moved the file away begins anew; not so when it is opened again.
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

    /// Why the store cannot be written to, if so: the last write failed (the disk is full, say), or
    /// the file could not be opened again, which is tried with each call, at most ten times a
    /// second. It is over once a write has succeeded. For health checks.
    pub fn failure(&self) -> Option<Arc<str>> {
        self.shared.file.failure()
    }

    /// Whether there is room for 1 MiB, which is written and removed again, in two commits: for
    /// health checks, while there is a [`failure`](Self::failure) and nobody else writes. A smaller
    /// write may find room in the file where a larger one does not.
    ///
    /// # Errors
    /// When it cannot.
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
            // Nobody else is to wait for that.
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

    /// A random number that is in the file from its first opening on: so the file has the same
    /// domain wherever it is moved, and none that another machine has at the same path. A copy of
    /// the file has it, too: servers that each get one are to be named by
    /// `DedupLayer::with_domain`.
    fn domain(&self) -> Option<String> {
        Some(format!("redb-{:032x}", self.shared.name))
    }
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests;
