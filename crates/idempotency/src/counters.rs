//! What became of calls.

use std::sync::atomic::{AtomicU64, Ordering};

/// What became of the calls that carried a key, up to one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Handed to the service.
    pub executed: u64,
    /// Answered with the record of an earlier one.
    pub replayed: u64,
    /// Of those, the ones that waited for it to be executed.
    pub joined: u64,
    /// Refused: an earlier one was being executed, and it was not to be waited for.
    pub rejected: u64,
    /// Refused: the key had been used for another request.
    pub mismatched: u64,
    /// Refused: the record had made room for others.
    pub evicted: u64,
    /// Executed, and it is open with what effect: a panic, a lost lease, `INTERNAL` and its like.
    pub ambiguous: u64,
    /// Given up by their caller and executed to their end all the same.
    pub abandoned: u64,
    /// Refused, or executed unprotected, because the store did not answer.
    pub store_failures: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Cells {
    pub(crate) executed: Cell,
    pub(crate) replayed: Cell,
    pub(crate) joined: Cell,
    pub(crate) rejected: Cell,
    pub(crate) mismatched: Cell,
    pub(crate) evicted: Cell,
    pub(crate) ambiguous: Cell,
    pub(crate) abandoned: Cell,
    pub(crate) store_failures: Cell,
}

#[derive(Debug, Default)]
pub(crate) struct Cell(AtomicU64);

// === impl Cells ===

impl Cells {
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            executed: self.executed.read(),
            replayed: self.replayed.read(),
            joined: self.joined.read(),
            rejected: self.rejected.read(),
            mismatched: self.mismatched.read(),
            evicted: self.evicted.read(),
            ambiguous: self.ambiguous.read(),
            abandoned: self.abandoned.read(),
            store_failures: self.store_failures.read(),
        }
    }
}

// === impl Cell ===

impl Cell {
    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
