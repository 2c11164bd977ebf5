//! The time of day.

use cinchona_plumbing::clock::nanos;
use tokio::time::Instant;

/// The time of day, read once and advanced monotonically from then on.
#[derive(Debug)]
pub(crate) struct Clock {
    began: Instant,
    /// Nanoseconds since 1970.
    at: u64,
}

// === impl Clock ===

impl Clock {
    #[expect(clippy::disallowed_types, reason = "a collector asks for the time of day")]
    pub(crate) fn new() -> Self {
        let at = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        Self { began: Instant::now(), at: nanos(at) }
    }

    /// The time of day when it was read, in nanoseconds since 1970.
    pub(crate) const fn began(&self) -> u64 {
        self.at
    }

    /// Nanoseconds since 1970.
    pub(crate) fn now(&self) -> u64 {
        self.at.saturating_add(nanos(Instant::now().saturating_duration_since(self.began)))
    }
}
