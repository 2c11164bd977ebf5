//! The writer thread: writes that arrive during a commit are in the next one.

use crate::{
    file::{File, Pace},
    tables::Tables,
};
use cinchona_core::BoxError;
use cinchona_plumbing::Count;
use redb::{Error, StorageError};
use std::{iter, sync::Arc, thread};
use tokio::sync::{mpsc, oneshot};

/// Passes writes to the thread; dropping it waits for them.
#[derive(Debug)]
pub(crate) struct Writer {
    /// `None` once dropped.
    thread: Option<(mpsc::UnboundedSender<Job>, thread::JoinHandle<()>)>,
    evicted: Arc<Count>,
}

/// Writes, and returns what to do after the commit.
type Job = Box<dyn FnOnce(&mut Tables<'_>) -> Result<Committed, Error> + Send>;
type Committed = Box<dyn FnOnce() + Send>;

/// The most writes in one transaction.
const MOST: usize = 4096;

// === impl Writer ===

impl Writer {
    pub(crate) fn start(file: Arc<File>) -> Result<Self, BoxError> {
        let (jobs, waiting) = mpsc::unbounded_channel();
        let evicted = Arc::<Count>::default();
        let count = evicted.clone();
        let write = move || write(&file, waiting, &count);
        let thread = thread::Builder::new().name("cinchona-redb".to_owned()).spawn(write)?;
        Ok(Self { thread: Some((jobs, thread)), evicted })
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.evicted.read()
    }

    /// Runs `write` in a transaction and, once it is on disk, `committed`, whether or not the
    /// caller still waits. Neither may panic.
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
        self.send(Box::new(job))?;
        Ok(replied.await.map_err(|_| FAILED)?)
    }

    /// Has the file reopened after a failed read.
    pub(crate) fn reopen(&self, why: &BoxError) {
        let why = why.to_string();
        // If the thread has ended, there is no file to reopen.
        _ = self.send(Box::new(|_| Err(StorageError::Corrupted(why).into())));
    }

    fn send(&self, job: Job) -> Result<(), BoxError> {
        let (jobs, _) = self.thread.as_ref().ok_or(STOPPED)?;
        Ok(jobs.send(job).map_err(|_| STOPPED)?)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let Some((jobs, thread)) = self.thread.take() else { return };
        drop(jobs);
        if thread.join().is_err() {
            tracing::error!("the writer thread has panicked");
        }
    }
}

const STOPPED: &str = "the store has stopped";
const FAILED: &str = "the write could not be committed";

fn write(file: &File, mut waiting: mpsc::UnboundedReceiver<Job>, evicted: &Count) {
    let (mut pace, mut has_failed) = (Pace::default(), false);
    while let Some(first) = waiting.blocking_recv() {
        let others = iter::from_fn(|| waiting.try_recv().ok());
        let jobs = iter::once(first).chain(others).take(MOST);
        if file.closed().is_some() {
            file.reopen(&mut pace);
        }
        // The callers see their channels close.
        let committed = commit(file, jobs, evicted, has_failed);
        has_failed = committed.is_err();
        if let Err(error) = committed {
            file.written(Some(&error));
            // After a failure of the disk redb writes nothing more until it is reopened.
            file.fail(&error);
            file.reopen(&mut pace);
        }
    }
}

/// Logs the number of evicted records each time that it has doubled.
fn note_evicted(before: u64, room: u64) {
    let evicted = before.saturating_add(room);
    if evicted.checked_ilog2() > before.checked_ilog2() {
        const WHY: &str = "the file is full, and answers are forgotten before their time: \
                           raise its caps";
        tracing::warn!(evicted, "{WHY}");
    }
}

/// Commits all `jobs` in one transaction, and counts the evicted records. After a failure, a
/// success clears it before it answers the waiting callers.
fn commit(
    file: &File,
    jobs: impl Iterator<Item = Job>,
    evicted: &Count,
    had_failed: bool,
) -> Result<(), BoxError> {
    let (committed, room) = file.commit(|tables| {
        let committed: Vec<_> = jobs.map(|job| job(tables)).collect::<Result<_, _>>()?;
        let room = tables.sweep(2 * committed.len())?;
        Ok((committed, room))
    })?;
    note_evicted(evicted.add(room), room);
    if had_failed {
        file.written(None);
    }
    for done in committed {
        done();
    }
    Ok(())
}
