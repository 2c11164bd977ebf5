//! The layers by name, and whether each is on.

use cinchona_core::{Mode, Switch};

/// A layer of a server, outermost first.
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

/// Whether each part is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Modes([Mode; Part::ALL.len()]);

/// The switch of each part.
#[derive(Clone, Debug)]
pub(crate) struct Switches([Switch; Part::ALL.len()]);

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
}

// === impl Modes ===

impl Modes {
    pub(crate) const fn get(&self, part: Part) -> Mode {
        self.0[part as usize]
    }

    pub(crate) const fn set(&mut self, part: Part, mode: Mode) {
        self.0[part as usize] = mode;
    }
}

impl Default for Modes {
    /// What needs a number, a store or a fault from its user is off.
    fn default() -> Self {
        Self(Part::ALL.map(|part| match part {
            Part::Quota | Part::Faults | Part::Dedup => Mode::Off,
            _ => Mode::Enforce,
        }))
    }
}

// === impl Switches ===

impl Switches {
    pub(crate) fn new(modes: &Modes) -> Self {
        Self(modes.0.map(Switch::new))
    }

    pub(crate) const fn get(&self, part: Part) -> &Switch {
        &self.0[part as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_has_a_mode_and_a_switch_of_its_own() {
        for (at, part) in Part::ALL.into_iter().enumerate() {
            assert_eq!(part as usize, at);
        }
    }
}
