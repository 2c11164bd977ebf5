//! The file: checked when opened, and reopened after a failure.

use crate::{
    last::Last,
    tables::{self, Limits, Reading, Tables},
};
use cinchona_core::BoxError;
use redb::{Builder, Database, DatabaseError, Error, ReadableDatabase};
use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// A database, or why it is not open.
pub(crate) struct File {
    place: Place,
    current: RwLock<Result<Database, Arc<str>>>,
    /// Why the last write failed, if it did.
    unwritten: Mutex<Option<Arc<str>>>,
    limits: Limits,
}

/// The path, or the backend of a test.
pub(crate) struct Place {
    pub(crate) open: Box<Open>,
    pub(crate) last: Last,
}

type Open = dyn Fn(&Builder) -> Result<Database, DatabaseError> + Send + Sync;

/// When the file may be reopened.
#[derive(Debug, Default)]
pub(crate) struct Pace(Option<Instant>);

/// The least time between two attempts to reopen the file; an attempt takes at most half of all
/// time.
const PAUSE: Duration = Duration::from_millis(100);

// === impl File ===

impl File {
    /// Opens the file at `place`, now and after each failure.
    ///
    /// # Errors
    /// When it is missing, in use, or damaged.
    pub(crate) fn open(place: Place, limits: Limits) -> Result<Self, BoxError> {
        let database = opened(&place)?;
        let unwritten = Mutex::default();
        Ok(Self { place, current: RwLock::new(Ok(database)), unwritten, limits })
    }

    /// Why it cannot be written to, as far as is known.
    pub(crate) fn failure(&self) -> Option<Arc<str>> {
        self.closed().or_else(|| self.unwritten().clone())
    }

    /// Records that a write has succeeded, or failed.
    pub(crate) fn written(&self, why: Option<&BoxError>) {
        *self.unwritten() = why.map(|why| why.to_string().into());
    }

    fn unwritten(&self) -> MutexGuard<'_, Option<Arc<str>>> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error while it is not open.
    pub(crate) fn closed(&self) -> Option<Arc<str>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().err().cloned()
    }

    /// Reads as of the last commit.
    pub(crate) fn read<T>(
        &self,
        read: impl FnOnce(&Reading) -> Result<T, Error>,
    ) -> Result<T, BoxError> {
        let begun = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            current.as_ref().map_err(|why| unusable(why))?.begin_read()?
        };
        caught(|| Ok(read(&Reading::new(&begun, self.limits)?)?))
    }

    /// Writes in one transaction; returns the result of `write` once that is committed.
    pub(crate) fn commit<T>(
        &self,
        write: impl FnOnce(&mut Tables<'_>) -> Result<T, Error>,
    ) -> Result<T, BoxError> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let database = current.as_ref().map_err(|why| unusable(why))?;
        caught(|| {
            let transaction = database.begin_write()?;
            let (written, number) = {
                let mut tables = Tables::new(&transaction, self.limits)?;
                (write(&mut tables)?, tables.count()?)
            };
            transaction.commit()?;
            self.place.last.set(number);
            Ok(written)
        })
    }

    /// Closes the file, if it is open, because of `why`.
    pub(crate) fn fail(&self, why: &BoxError) {
        if self.closed().is_none() {
            tracing::error!(%why, "the file has failed, and is opened again");
            self.set(Err(why.to_string().into()));
        }
    }

    /// Reopens a file that has failed, if it is time to. Meanwhile reads and writes fail with the
    /// cause.
    pub(crate) fn reopen(&self, pace: &mut Pace) {
        let began = Instant::now();
        if pace.0.is_some_and(|next| began < next) {
            return;
        }
        let opened = opened(&self.place);
        if opened.is_ok() {
            tracing::info!("the file is open again");
        }
        let now = Instant::now();
        pace.0 = Some(now + (now - began).max(PAUSE));
        self.set(opened.map_err(|error| error.to_string().into()));
    }

    /// The old database is closed first, in its own statement: no task waits for the disk while it
    /// waits for the lock.
    fn set(&self, next: Result<Database, Arc<str>>) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let last = std::mem::replace(&mut *current, next);
        drop(current);
        // redb may panic over pages that it could not write before.
        _ = caught(|| {
            drop(last);
            Ok(())
        });
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("failure", &self.failure()).finish_non_exhaustive()
    }
}

fn unusable(why: &str) -> BoxError {
    format!("the file cannot be used: {why}").into()
}

/// Opens a database and checks it. redb checks all pages after an unclean shutdown; after a clean
/// one, that is done here.
fn opened(place: &Place) -> Result<Database, BoxError> {
    let is_checked = Arc::new(AtomicBool::new(false));
    let checked = is_checked.clone();
    caught(move || {
        let mut builder = Database::builder();
        builder.set_repair_callback(move |_| checked.store(true, Ordering::Relaxed));
        let mut database = (place.open)(&builder)?;
        if !is_checked.load(Ordering::Relaxed) && !database.check_integrity()? {
            return Err("the file is damaged: it is not what was written".into());
        }
        let (there, acknowledged) = (tables::commits(&database)?, place.last.get());
        // A file without commits is new only if none was acknowledged: else it was emptied, or
        // removed while open and created anew.
        if there < acknowledged {
            let lacks = "the file is damaged, emptied or an old one: it has";
            let anew = "where that is meant, remove the file `.last` beside it";
            return Err(format!("{lacks} {there} of {acknowledged} commits; {anew}").into());
        }
        place.last.set(there);
        Ok(database)
    })
}

/// redb panics over some damages of a file.
fn caught<T>(run: impl FnOnce() -> Result<T, BoxError>) -> Result<T, BoxError> {
    let said = |panic: Box<dyn Any + Send>| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        said.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no words").to_owned()
    };
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|panic| Err(format!("the file is damaged: {}", said(panic)).into()))
}
