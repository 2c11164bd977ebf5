//! Warns of a layer in a harmful place.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Whether the warning was logged; clones log it once together.
#[derive(Clone, Debug, Default)]
pub struct Misplaced(Arc<AtomicBool>);

/// Warns, once in a process, that the address of a peer is not known where it is wanted.
#[cold]
pub fn warn_of_unknown_peer() {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if !WARNED.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            "a request has no address of its peer, so that all callers without credentials are \
             one: put tonic's `TcpConnectInfo` into the extensions of requests, or name callers"
        );
    }
}

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
