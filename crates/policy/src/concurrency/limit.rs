//! The limit, and the queue before it.

use super::adaptive::Adaptive;
use crate::Invalid;
use std::time::Duration;

/// How many calls may be in flight.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Limit {
    /// A fixed number; at least 1.
    Fixed(u32),
    /// Adapts to the capacity of the service.
    Adaptive(Adaptive),
}

/// Which calls wait for a place, and for how long: a CoDel queue as Meta uses it ([Fail at Scale]).
///
/// [Fail at Scale]: https://queue.acm.org/detail.cfm?id=2839461
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// The most calls that wait. Default 100.
    pub capacity: u32,
    /// The longest wait of each. Default 100 ms; `Duration::MAX` for as long as its caller waits.
    pub longest: Duration,
    /// The longest wait of each while the queue is overloaded. Default 5 ms. The newest is admitted
    /// if all have waited for longer.
    pub target: Duration,
    /// The queue is overloaded when it has not been empty for this long and each place was given
    /// five times meanwhile: a slow service has a queue for longer without overload. Default 100
    /// ms.
    pub interval: Duration,
}

// === impl Limit ===

impl Limit {
    /// Checks the ranges of all values.
    ///
    /// # Errors
    /// Names the field outside its range.
    #[doc(hidden)]
    pub fn checked(self) -> Result<Self, Invalid> {
        match self {
            Self::Fixed(0) => Err(Invalid::new("limit", 0, "at least 1")),
            Self::Fixed(limit) => Ok(Self::Fixed(limit)),
            Self::Adaptive(settings) => settings.checked().map(Self::Adaptive),
        }
    }

    /// The limit at the beginning.
    #[doc(hidden)]
    pub const fn initial(&self) -> u32 {
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
    /// No call waits.
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
