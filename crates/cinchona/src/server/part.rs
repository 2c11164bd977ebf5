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
    /// Numbers and span of a call.
    Call,
    /// How large a status may be.
    Status,
    /// Panics that are answered.
    Panics,
    /// How much each caller may ask for.
    Quota,
    /// How many calls there are at a time.
    Shed,
    /// The callers' deadlines.
    Deadline,
    /// Faults that are injected.
    Faults,
    /// Calls that are recognised.
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

    /// What needs a number, a store or a fault from its user is off.
    pub(super) fn modes() -> Modes<{ Self::ALL.len() }> {
        Modes(Self::ALL.map(|part| match part {
            Self::Quota | Self::Faults | Self::Dedup => Mode::Off,
            _ => Mode::Enforce,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_has_a_mode_and_a_switch_of_its_own() {
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
