//! The slices of a window of time, and the sums at their beginnings.

use super::parts::SLICES;
use crate::{
    clock::nanos,
    sync::{AtomicBool, AtomicU64, Ordering},
};
use std::time::Duration;

/// How many calls ever had each outcome. The sums only grow: the window's content is the difference
/// to the sums at its beginning, so nothing is lost to a reset.
pub(super) type Sums = [u64; 4];

/// The sums at the beginning of each of the latest slices of time.
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
        let slice = nanos(window) / SLICES;
        Self {
            slice,
            ends: AtomicU64::new(slice),
            is_moving: AtomicBool::new(false),
            starts: std::array::from_fn(|_| Default::default()),
        }
    }

    /// Begins the slices up to that of `at`, unless another thread is doing so.
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

    /// Whether no other thread is doing so.
    fn begins_to_move(&self) -> bool {
        let (success, failure) = (Ordering::Acquire, Ordering::Relaxed);
        self.is_moving.compare_exchange(false, true, success, failure).is_ok()
    }

    /// Begins the window with these sums.
    pub(super) fn clear(&self, sums: Sums) {
        self.starts.iter().for_each(|start| write(start, sums));
    }

    /// The sums at the beginning of the window, `SLICES - 1` before the current slice.
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
