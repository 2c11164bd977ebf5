//! The limits of a store.

use cinchona_core::Invalid;
use std::time::Duration;

/// The limits of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long a record is kept. Default 300 s; at least 1 ms; `Duration::MAX`: without end.
    pub ttl: Duration,
    /// The most records; the oldest are evicted. Default 1,000,000; at least 1.
    pub entries: u64,
    /// The most bytes of all records with their keys. Default 256 MiB; at least 1.
    pub bytes: u64,
    /// Whether a call whose record was evicted is refused for the rest of the record's time,
    /// instead of being executed again. Four times as many evicted calls are remembered as there
    /// may be records; beyond that, new calls are refused. Default true.
    pub refusing_evicted: bool,
    /// Whether a claim is on disk before the call is executed, so that a call during which the
    /// process crashes is known to have begun. Default true.
    pub durable_claims: bool,
}

// === impl Options ===

impl Options {
    pub(crate) fn checked(self) -> Result<Self, Invalid> {
        if self.ttl < Duration::from_millis(1) {
            return Err(Invalid::new("ttl", format!("{:?}", self.ttl), "at least 1ms"));
        }
        for (field, value) in [("entries", self.entries), ("bytes", self.bytes)] {
            if value == 0 {
                return Err(Invalid::new(field, value, "at least 1"));
            }
        }
        Ok(self)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(300),
            entries: 1_000_000,
            bytes: 256 << 20,
            refusing_evicted: true,
            durable_claims: true,
        }
    }
}
