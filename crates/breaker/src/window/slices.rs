//! When the slices of a window of time began, and what the sums were then.

use super::parts::SLICES;
use crate::sync::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How many calls ever came to what. They only grow: what is in the window is the difference to
/// what they were when it began, so nothing is ever lost to a reset.
pub(super) type Sums = [u64; 4];

/// What the sums were when each of the latest slices of time began.
#[derive(Debug)]
pub(super) struct Slices {
    /// In nanoseconds.
    slice: u64,
    /// When the current slice ends, a multiple of `slice`.
    ends: AtomicU64,
    is_moving: AtomicBool,
    /// By the number of the slice, modulo their count. One more than are in the window: a reader
    /// must not see the next one being written.
    starts: [[AtomicU64; 4]; SLICES as usize + 1],
}

// === impl Slices ===

impl Slices {
    pub(super) fn new(window: Duration) -> Self {
        let slice = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX) / SLICES;
        Self {
            slice,
            ends: AtomicU64::new(slice),
            is_moving: AtomicBool::new(false),
            starts: std::array::from_fn(|_| Default::default()),
        }
    }

    /// Begins the slices up to the one that `at` is in, unless another thread is at it.
    pub(super) fn move_to(&self, at: u64, sums: impl FnOnce() -> Sums) {
        if at < self.ends.load(Ordering::Relaxed) || !self.begins_to_move() {
            return;
        }
        let (ends, sums) = (self.ends.load(Ordering::Relaxed), sums());
        if at >= ends {
            let (next, current) = (ends / self.slice, at / self.slice);
            for slice in next.max(current.saturating_sub(SLICES))..=current {
                write(&self.starts[(slice % (SLICES + 1)) as usize], sums);
            }
            self.ends.store((current + 1).saturating_mul(self.slice), Ordering::Release);
        }
        self.is_moving.store(false, Ordering::Release);
    }

    /// Whether no other thread is at it.
    fn begins_to_move(&self) -> bool {
        let (success, failure) = (Ordering::Acquire, Ordering::Relaxed);
        self.is_moving.compare_exchange(false, true, success, failure).is_ok()
    }

    /// The window begins with these sums.
    pub(super) fn clear(&self, sums: Sums) {
        self.starts.iter().for_each(|start| write(start, sums));
    }

    /// What the sums were when the window began, `SLICES - 1` before the current slice.
    pub(super) fn start(&self) -> Sums {
        let current = self.ends.load(Ordering::Acquire) / self.slice - 1;
        let first = current + 2; // modulo SLICES + 1
        read(&self.starts[(first % (SLICES + 1)) as usize])
    }
}

pub(super) fn read(cells: &[AtomicU64; 4]) -> Sums {
    std::array::from_fn(|what| cells[what].load(Ordering::Relaxed))
}

fn write(cells: &[AtomicU64; 4], sums: Sums) {
    for (cell, sum) in cells.iter().zip(sums) {
        cell.store(sum, Ordering::Relaxed);
    }
}
