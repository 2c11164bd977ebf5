//! Counts the datagrams that were ignored.

use cinchona_plumbing::Count;
use std::{
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// How many datagrams were ignored, by reason.
#[derive(Debug, Default)]
pub(crate) struct Ignored {
    pub(crate) garbage: Count,
    pub(crate) strangers: Count,
    pub(crate) forged: Count,
    /// When the last warning about another secret was logged.
    warned: Mutex<Option<Instant>>,
}

/// A node with another secret sends several datagrams a second, without end.
const WARNING: Duration = Duration::from_secs(60);

// === impl Ignored ===

impl Ignored {
    /// Datagrams that are not gossip.
    pub(crate) fn garbage(&self) -> u64 {
        self.garbage.read()
    }

    /// Messages of and to other clusters.
    pub(crate) fn strangers(&self) -> u64 {
        self.strangers.read()
    }

    /// Datagrams without a valid seal, and impossible claims.
    pub(crate) fn forged(&self) -> u64 {
        self.forged.read()
    }

    /// The usual cause is a node that is configured with another secret, not an attack.
    pub(crate) fn warn(&self, from: SocketAddr) {
        let now = Instant::now();
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|warned| now.saturating_duration_since(warned) >= WARNING) {
            *warned = Some(now);
            tracing::warn!(%from, "datagrams sealed with none of the secrets are ignored");
        }
    }
}
