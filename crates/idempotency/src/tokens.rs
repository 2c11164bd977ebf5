//! Tokens of claims.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

/// Unique tokens for claims, across processes.
#[derive(Debug)]
pub(crate) struct Tokens {
    process: u64,
    next: AtomicU64,
}

// === impl Tokens ===

impl Tokens {
    pub(crate) fn new() -> Self {
        Self { process: RandomState::new().hash_one(0), next: AtomicU64::new(0) }
    }

    pub(crate) fn next(&self) -> u128 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        u128::from(self.process) << 64 | u128::from(number)
    }
}
