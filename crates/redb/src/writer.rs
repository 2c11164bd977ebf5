//! The thread that writes: what arrives during a commit is in the next one.

use crate::tables::{Limits, Tables};
use cinchona_core::BoxError;
use redb::{Database, Error};
use std::{
    iter,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};
use tokio::sync::{mpsc, oneshot};

/// Hands writes to the thread; when it is dropped it waits for what it has handed over.
#[derive(Debug)]
pub(crate) struct Writer {
    /// Until it is dropped.
    thread: Option<(mpsc::UnboundedSender<Job>, thread::JoinHandle<()>)>,
    evicted: Arc<AtomicU64>,
}

/// Writes, and says what is to be done once that is committed.
type Job = Box<dyn FnOnce(&mut Tables<'_>) -> Result<Committed, Error> + Send>;
type Committed = Box<dyn FnOnce() + Send>;

/// The most writes in one transaction.
const MOST: usize = 4096;

// === impl Writer ===

impl Writer {
    pub(crate) fn start(database: Arc<Database>, limits: Limits) -> Result<Self, BoxError> {
        let (jobs, waiting) = mpsc::unbounded_channel();
        let evicted = Arc::new(AtomicU64::new(0));
        let count = evicted.clone();
        let write = move || write(&database, limits, waiting, &count);
        let thread = thread::Builder::new().name("cinchona-redb".to_owned()).spawn(write)?;
        Ok(Self { thread: Some((jobs, thread)), evicted })
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Runs `write` in a transaction and, once it is on disk, `committed`, whether or not anybody
    /// still waits for it.
    pub(crate) async fn run<W, T, U>(
        &self,
        write: W,
        committed: impl FnOnce(T) -> U + Send + 'static,
    ) -> Result<U, BoxError>
    where
        W: FnOnce(&mut Tables<'_>) -> Result<T, Error> + Send + 'static,
        T: Send + 'static,
        U: Send + 'static,
    {
        let (reply, replied) = oneshot::channel();
        let job = |tables: &mut Tables<'_>| {
            let written = write(tables)?;
            let done = move || drop(reply.send(committed(written)));
            Ok(Box::new(done) as Committed)
        };
        let (jobs, _) = self.thread.as_ref().ok_or(STOPPED)?;
        jobs.send(Box::new(job)).map_err(|_| STOPPED)?;
        Ok(replied.await.map_err(|_| FAILED)?)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let Some((jobs, thread)) = self.thread.take() else { return };
        drop(jobs);
        if thread.join().is_err() {
            tracing::error!("the thread that writes has panicked");
        }
    }
}

const STOPPED: &str = "the store has stopped";
const FAILED: &str = "the write could not be committed";

fn write(
    database: &Database,
    limits: Limits,
    mut waiting: mpsc::UnboundedReceiver<Job>,
    evicted: &AtomicU64,
) {
    while let Some(first) = waiting.blocking_recv() {
        let others = iter::from_fn(|| waiting.try_recv().ok());
        let jobs = iter::once(first).chain(others).take(MOST);
        // Those who wait are told as their channels close.
        if let Err(error) = commit(database, limits, jobs, evicted) {
            tracing::error!(%error, "a commit failed");
        }
    }
}

/// Commits all `jobs` in one transaction, and counts the records that were evicted.
fn commit(
    database: &Database,
    limits: Limits,
    jobs: impl Iterator<Item = Job>,
    evicted: &AtomicU64,
) -> Result<(), Error> {
    let transaction = database.begin_write()?;
    let mut committed = Vec::new();
    let room = {
        let mut tables = Tables::new(&transaction, limits)?;
        for job in jobs {
            committed.push(job(&mut tables)?);
        }
        tables.sweep(2 * committed.len())?
    };
    transaction.commit()?;
    evicted.fetch_add(room, Ordering::Relaxed);
    for done in committed {
        done();
    }
    Ok(())
}
