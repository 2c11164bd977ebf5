//! The layers by name, and whether each is on.

use crate::parts::Modes;
use cinchona_core::Mode;

/// A layer of a server, outermost first.
///
/// [`Drain`](cinchona_drain::Drain) has no switch, so it is no part. Its layer changes no call
/// until the program ends the server. Off at that moment, it would let calls outlive the grace that
/// `drain.serve` and `drain.incoming` keep. A program that ends its server in another way uses
/// neither of the two, and then the layer does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Part {
    /// Metrics and span of a call.
    Call,
    /// The limits of a status.
    Status,
    /// Panics answered with `INTERNAL`.
    Panics,
    /// The quota of each caller.
    Quota,
    /// The limit of calls in flight.
    Shed,
    /// The callers' deadlines.
    Deadline,
    /// Injected faults.
    Faults,
    /// Deduplication of repeated calls.
    Dedup,
}

// === impl Part ===

impl Part {
    /// All of them, outermost first.
    pub const ALL: [Self; 8] = [
        Self::Call,
        Self::Status,
        Self::Panics,
        Self::Quota,
        Self::Shed,
        Self::Deadline,
        Self::Faults,
        Self::Dedup,
    ];

    /// Off: layers that need a number, a store or a fault from the user.
    pub(super) fn modes() -> Modes<{ Self::ALL.len() }> {
        Modes::new(Self::ALL.map(|part| match part {
            Self::Quota | Self::Faults | Self::Dedup => Mode::Off,
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
