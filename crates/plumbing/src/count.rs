//! A counter, and the error of a future that is polled again.

use std::{
    error::Error,
    sync::atomic::{AtomicU64, Ordering},
};

/// How often something has happened.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

/// The error of a future that is polled after it has completed, a mistake of the caller: an error
/// of that call instead of a panic.
pub fn polled_again() -> Box<dyn Error + Send + Sync> {
    "polled after it had completed".into()
}

// === impl Count ===

impl Count {
    /// Counts one more; returns how many there were before.
    #[inline]
    pub fn count(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts so many more; returns how many there were before.
    #[inline]
    pub fn add(&self, more: u64) -> u64 {
        self.0.fetch_add(more, Ordering::Relaxed)
    }

    /// Subtracts so many.
    #[inline]
    pub fn subtract(&self, less: u64) {
        self.0.fetch_sub(less, Ordering::Relaxed);
    }

    /// How many there were.
    #[inline]
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
