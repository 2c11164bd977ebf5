//! A counter, and what is said of a future that has ended.

use std::{
    error::Error,
    sync::atomic::{AtomicU64, Ordering},
};

/// How often something has happened.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

/// What a future fails with that is polled after it had completed, which no caller may do: an
/// error of that call, and no panic.
pub fn polled_again() -> Box<dyn Error + Send + Sync> {
    "polled after it had completed".into()
}

// === impl Count ===

impl Count {
    /// Counts one more: how many there were before.
    pub fn count(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts so many more.
    pub fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }

    /// Takes so many back.
    pub fn subtract(&self, less: usize) {
        self.0.fetch_sub(less as u64, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
