//! What came to the gossip port and was no gossip of this cluster, counted.

use std::{
    net::SocketAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// How many datagrams were ignored.
#[derive(Debug, Default)]
pub(crate) struct Ignored {
    pub(crate) garbage: AtomicU64,
    pub(crate) strangers: AtomicU64,
    pub(crate) forged: AtomicU64,
    /// When it was last said that some are sealed with another secret.
    warned: Mutex<Option<Instant>>,
}

/// A node with another secret sends several datagrams a second, for ever.
const WARNING: Duration = Duration::from_secs(60);

// === impl Ignored ===

impl Ignored {
    /// Datagrams that are no gossip.
    pub(crate) fn garbage(&self) -> u64 {
        self.garbage.load(Ordering::Relaxed)
    }

    /// Messages of and from other clusters.
    pub(crate) fn strangers(&self) -> u64 {
        self.strangers.load(Ordering::Relaxed)
    }

    /// Datagrams without a seal, and claims that cannot be.
    pub(crate) fn forged(&self) -> u64 {
        self.forged.load(Ordering::Relaxed)
    }

    /// Mostly it is a node that was given another secret, and not an attack.
    pub(crate) fn warn(&self, from: SocketAddr) {
        let now = Instant::now();
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|warned| now.saturating_duration_since(warned) >= WARNING) {
            *warned = Some(now);
            tracing::warn!(%from, "datagrams that are sealed with none of the secrets are ignored");
        }
    }
}
