//! How often something was injected.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// The counters of a [`FaultLayer`](crate::FaultLayer), shared by its clones and services.
#[derive(Clone, Debug, Default)]
pub struct Counters(Arc<Cells>);

/// What the counters said at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Requests that could be hit.
    pub matched: u64,
    /// Requests that could not: health checks, reflection, other paths.
    pub exempt: u64,
    /// Requests that were delayed, or are being.
    pub delayed: u64,
    /// Requests answered with the failure and not executed.
    pub failed_before: u64,
    /// Requests executed and answered with the failure all the same.
    pub failed_after: u64,
    /// Requests handed to the service, of those that could be hit.
    pub executed: u64,
    /// Requests whose caller went away before there was an answer, of those that could be hit.
    pub abandoned: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Cells {
    pub(crate) requests: Cell,
    pub(crate) matched: Cell,
    pub(crate) exempt: Cell,
    pub(crate) delayed: Cell,
    pub(crate) failed_before: Cell,
    pub(crate) failed_after: Cell,
    pub(crate) executed: Cell,
    pub(crate) abandoned: Cell,
}

#[derive(Debug, Default)]
pub(crate) struct Cell(AtomicU64);

// === impl Counters ===

impl Counters {
    /// What they say now.
    pub fn snapshot(&self) -> Snapshot {
        let Cells { matched, exempt, delayed, .. } = &*self.0;
        let Cells { failed_before, failed_after, executed, abandoned, .. } = &*self.0;
        Snapshot {
            matched: matched.read(),
            exempt: exempt.read(),
            delayed: delayed.read(),
            failed_before: failed_before.read(),
            failed_after: failed_after.read(),
            executed: executed.read(),
            abandoned: abandoned.read(),
        }
    }

    pub(crate) fn cells(&self) -> &Cells {
        &self.0
    }
}

// === impl Cell ===

impl Cell {
    /// Counts one more, and returns how many there were before.
    pub(crate) fn count(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
