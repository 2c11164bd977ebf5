//! The bucket of the throttle, which all calls share.

use crate::sync::{AtomicU64, Ordering};

/// A token bucket, in thousandths of a token.
#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) max: u64,
    /// The deposit of a success.
    pub(super) ratio: u64,
    tokens: AtomicU64,
}

pub(super) const TOKEN: u64 = 1000;

// === impl Bucket ===

impl Bucket {
    pub(super) fn new(max: u64, ratio: u64, tokens: u64) -> Self {
        Self { max, ratio, tokens: AtomicU64::new(tokens) }
    }

    pub(super) fn left(&self) -> u64 {
        self.tokens.load(Ordering::Relaxed)
    }

    /// Takes a token, or the rest of one.
    pub(super) fn take(&self) {
        self.update(|tokens| tokens.saturating_sub(TOKEN));
    }

    /// Adds the deposit of a success, up to the limit.
    pub(super) fn give(&self) {
        self.update(|tokens| tokens.saturating_add(self.ratio).min(self.max));
    }

    fn update(&self, to: impl Fn(u64) -> u64) {
        // Usually it is full, and nothing is written.
        let to = |tokens| Some(to(tokens)).filter(|to| *to != tokens);
        _ = self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, to);
    }
}
