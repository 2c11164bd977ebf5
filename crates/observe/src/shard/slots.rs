//! Which thread has which shard, and how it counts there.

use crate::sync::{AtomicU64, Ordering};

/// How many threads at a time have their own shard; all others share one more.
pub(super) const OWN: usize = u64::BITS as usize;

/// A bit for each shard in use.
#[derive(Debug)]
pub(super) struct Slots(AtomicU64);

/// A number that only grows, written by one thread or by all.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

/// Whether this thread is the only writer of a shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writer {
    is_alone: bool,
}

// === impl Slots ===

impl Slots {
    pub(super) const fn new(taken: AtomicU64) -> Self {
        Self(taken)
    }

    /// A free shard, or [`OWN`] if none is free.
    pub(super) fn take(&self) -> usize {
        let mut taken = self.0.load(Ordering::Relaxed);
        loop {
            let free = taken.trailing_ones() as usize;
            if free == OWN {
                return OWN;
            }
            // Acquires the writes of the shard's earlier thread.
            let (with, order) = (taken | 1 << free, Ordering::Acquire);
            match self.0.compare_exchange_weak(taken, with, order, Ordering::Relaxed) {
                Ok(_) => return free,
                Err(others) => taken = others,
            }
        }
    }

    pub(super) fn give_back(&self, slot: usize) {
        if slot < OWN {
            self.0.fetch_and(!(1 << slot), Ordering::Release);
        }
    }
}

// === impl Writer ===

impl Writer {
    /// The thread that has taken that slot.
    pub(super) const fn of(slot: usize) -> Self {
        Self { is_alone: slot < OWN }
    }
}

// === impl Count ===

impl Count {
    #[inline]
    pub(crate) fn add(&self, more: u64, writer: Writer) {
        if writer.is_alone {
            let sum = self.0.load(Ordering::Relaxed).wrapping_add(more);
            self.0.store(sum, Ordering::Relaxed);
        } else {
            self.0.fetch_add(more, Ordering::Relaxed);
        }
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
