//! A layer that stands where it does harm.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Whether it was said that a layer stands in the wrong place; clones say it once.
#[derive(Clone, Debug, Default)]
pub struct Misplaced(Arc<AtomicBool>);

// === impl Misplaced ===

impl Misplaced {
    /// Warns, the first time, with what comes of it and what to do.
    #[cold]
    pub fn warn(&self, path: &str, what: &'static str) {
        if !self.0.swap(true, Ordering::Relaxed) {
            tracing::warn!(rpc.method = path, "{what}");
        }
    }
}
