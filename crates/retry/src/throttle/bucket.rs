//! The bucket of the throttle, which all calls share.

use crate::sync::{AtomicU64, Ordering};

/// A token bucket, in thousandths of a token.
#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) max: u64,
    /// What a success gives.
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

    /// Takes a token, or what is left of one.
    pub(super) fn take(&self) {
        self.update(|tokens| tokens.saturating_sub(TOKEN));
    }

    /// Gives what a success gives, as far as there is room.
    pub(super) fn give(&self) {
        self.update(|tokens| tokens.saturating_add(self.ratio).min(self.max));
    }

    fn update(&self, to: impl Fn(u64) -> u64) {
        // Most of the time it is full, and nobody has to write.
        let to = |tokens| Some(to(tokens)).filter(|to| *to != tokens);
        _ = self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, to);
    }
}
