//! Warns of a layer in a harmful place.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Whether the warning was logged; clones log it once together.
#[derive(Clone, Debug, Default)]
pub struct Misplaced(Arc<AtomicBool>);

// === impl Misplaced ===

impl Misplaced {
    /// Warns, the first time, with the effect and the remedy.
    #[cold]
    pub fn warn(&self, path: &str, what: &'static str) {
        if !self.0.swap(true, Ordering::Relaxed) {
            tracing::warn!(rpc.method = path, "{what}");
        }
    }
}
