//! The position of a layer, and of an attempt in its call.

use cinchona_core::{Attempt, AttemptKind, Call};
use std::time::Duration;

/// The position of an attempt in its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// From 1.
    pub(crate) number: u32,
    pub(crate) kind: AttemptKind,
    /// The time before it without an attempt in flight.
    pub(crate) waited: Duration,
}

/// The position of a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Role {
    /// At a client's calls, outside of all layers that repeat them.
    #[default]
    Call,
    /// At a client's attempts.
    Attempt,
    /// At a server's calls.
    Served,
}

// === impl Place ===

impl Place {
    pub(crate) fn of(attempt: &Call) -> Option<Self> {
        let (kind, number) = attempt.with_attempt(|own, number| (own.kind, number))?;
        let waited = match number {
            1 => Duration::ZERO,
            _ => idle(&attempt.attempts()).last().copied().unwrap_or_default(),
        };
        Some(Self { number, kind, waited })
    }
}

/// The time before each of them without an attempt in flight, in the order in which they began.
pub(crate) fn idle(attempts: &[Attempt]) -> Vec<Duration> {
    let mut ended = attempts.first().map(|first| first.began);
    let idle = |attempt: &Attempt| {
        let idle = ended.map(|ended| attempt.began.saturating_duration_since(ended));
        // While one is in flight there is no end.
        ended = ended.and_then(|ended| Some(ended.max(attempt.ended?)));
        idle.unwrap_or_default()
    };
    attempts.iter().map(idle).collect()
}
