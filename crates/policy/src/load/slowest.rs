//! The slowest recent good answer.

use crate::sync::{AtomicU64, Ordering};

/// The slowest good answer, in nanoseconds, of the current window and of the one before.
#[derive(Debug, Default)]
pub(super) struct Slowest {
    slowest: [AtomicU64; 2],
    window: AtomicU64,
}

/// How long a slow good answer counts at least, in nanoseconds.
pub(super) const WINDOW: u64 = 30_000_000_000;

// === impl Slowest ===

impl Slowest {
    /// A good answer took so long, and arrived at `at` nanoseconds.
    #[inline]
    pub(super) fn record(&self, took: u64, at: u64) {
        let (window, known) = (at / WINDOW, self.window.load(Ordering::Relaxed));
        let order = Ordering::Relaxed;
        // One thread begins a window: a second one would clear the one before.
        if known < window && self.window.compare_exchange(known, window, order, order).is_ok() {
            let last = self.slowest[0].swap(0, Ordering::Relaxed);
            self.slowest[1].store(last, Ordering::Relaxed);
        }
        // Usually it is no slower, and nothing is written.
        if self.slowest[0].load(Ordering::Relaxed) < took {
            self.slowest[0].fetch_max(took, Ordering::Relaxed);
        }
    }

    #[inline]
    pub(super) fn get(&self) -> Option<u64> {
        let slowest = self.slowest.iter().map(|slowest| slowest.load(Ordering::Relaxed)).max();
        slowest.filter(|slowest| *slowest > 0)
    }
}
