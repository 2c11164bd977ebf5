//! What a layer sees, and where an attempt stands among those of its call.

use cinchona_core::{Attempt, AttemptKind, Call};
use std::time::Duration;

/// An attempt among those of its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// From 1.
    pub(crate) number: u32,
    pub(crate) kind: AttemptKind,
    /// How long none was under way before it.
    pub(crate) waited: Duration,
}

/// What a layer sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Role {
    /// A call of a client, outside of all that repeats it.
    #[default]
    Call,
    /// An attempt at it.
    Attempt,
    /// A call that a server got.
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

/// How long no attempt was under way before each of them, in the order in which they began.
pub(crate) fn idle(attempts: &[Attempt]) -> Vec<Duration> {
    let mut ended = attempts.first().map(|first| first.began);
    let idle = |attempt: &Attempt| {
        let idle = ended.map(|ended| attempt.began.saturating_duration_since(ended));
        // While one is under way there is no end.
        ended = ended.and_then(|ended| Some(ended.max(attempt.ended?)));
        idle.unwrap_or_default()
    };
    attempts.iter().map(idle).collect()
}
