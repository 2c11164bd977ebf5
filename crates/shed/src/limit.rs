//! How many calls, and which wait.

use crate::Adaptive;
use cinchona_core::Invalid;
use std::time::Duration;

/// How many calls may be in progress.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Limit {
    /// So many; at least 1.
    Fixed(u32),
    /// As many as the service can do.
    Adaptive(Adaptive),
}

/// Which calls wait for a place, and for how long: a CoDel queue as Meta runs it ([Fail at Scale]).
///
/// [Fail at Scale]: https://queue.acm.org/detail.cfm?id=2839461
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// How many wait at most. Default 100.
    pub capacity: u32,
    /// How long each waits at most. Default 100 ms; `Duration::MAX` for as long as its caller does.
    pub longest: Duration,
    /// How long each waits at most while the queue does not get empty. Default 5 ms. The newest is
    /// let in where all have waited for longer.
    pub target: Duration,
    /// After how long without being empty that is, if each place was given five times meanwhile: a
    /// service that is slow by itself has a queue for longer. Default 100 ms.
    pub interval: Duration,
}

// === impl Limit ===

impl Limit {
    pub(crate) fn checked(self) -> Result<Self, Invalid> {
        match self {
            Self::Fixed(0) => Err(Invalid::new("limit", 0, "at least 1")),
            Self::Fixed(limit) => Ok(Self::Fixed(limit)),
            Self::Adaptive(settings) => settings.checked().map(Self::Adaptive),
        }
    }

    pub(crate) const fn initial(&self) -> u32 {
        match self {
            Self::Fixed(limit) => *limit,
            Self::Adaptive(settings) => settings.initial,
        }
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self::Adaptive(Adaptive::default())
    }
}

// === impl Queue ===

impl Queue {
    /// Nobody waits.
    pub const fn none() -> Self {
        let none = Duration::ZERO;
        Self { capacity: 0, longest: none, target: none, interval: none }
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            capacity: 100,
            longest: Duration::from_millis(100),
            target: Duration::from_millis(5),
            interval: Duration::from_millis(100),
        }
    }
}
