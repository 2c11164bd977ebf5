//! The layers by name, and whether each is on.

use crate::parts::Modes;
use cinchona_core::Mode;

/// A layer of a client, outermost first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Part {
    /// Metrics and span of a call.
    Call,
    /// The idempotency key of a call.
    Key,
    /// The limits of message sizes.
    Limits,
    /// The deadline of a call.
    Deadline,
    /// Second answers.
    Fallback,
    /// The limit of calls in flight.
    Bulkhead,
    /// Retries and hedges.
    Retry,
    /// Metrics and span of an attempt.
    Attempt,
    /// Adaptive throttling towards a server that refuses calls.
    Throttle,
    /// The time limit of an attempt.
    Timeout,
    /// The breaker of each endpoint.
    Breaker,
}

// === impl Part ===

impl Part {
    /// All of them, outermost first.
    pub const ALL: [Self; 11] = [
        Self::Call,
        Self::Key,
        Self::Limits,
        Self::Deadline,
        Self::Fallback,
        Self::Bulkhead,
        Self::Retry,
        Self::Attempt,
        Self::Throttle,
        Self::Timeout,
        Self::Breaker,
    ];

    /// Off: layers that need the server's support, or can fail a call that would succeed.
    pub(super) fn modes() -> Modes<{ Self::ALL.len() }> {
        Modes::new(Self::ALL.map(|part| match part {
            Self::Key | Self::Throttle => Mode::Off,
            _ => Mode::Enforce,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_has_its_own_mode_and_switch() {
        for (at, part) in Part::ALL.into_iter().enumerate() {
            assert_eq!(part as usize, at);
            let mut modes = Part::modes();
            modes.set(at, Mode::Shadow);
            let modes = Part::ALL.map(|part| modes.switches().get(part as usize).mode());
            let shadowed = |part: &Part| modes[*part as usize] == Mode::Shadow;
            assert_eq!(Part::ALL.into_iter().filter(shadowed).collect::<Vec<_>>(), [part]);
        }
    }
}
