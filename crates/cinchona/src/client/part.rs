//! The layers by name, and whether each is on.

use cinchona_core::{Mode, Switch};

/// A layer of a client, outermost first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Part {
    /// Numbers and span of a call.
    Call,
    /// The idempotency key of a call.
    Key,
    /// How large messages may be.
    Limits,
    /// The deadline of a call.
    Deadline,
    /// Second answers.
    Fallback,
    /// How many calls are under way.
    Bulkhead,
    /// Retries and hedges.
    Retry,
    /// Numbers and span of an attempt.
    Attempt,
    /// Spares a server that turns calls away.
    Throttle,
    /// The time limit of an attempt.
    Timeout,
    /// The breaker of each endpoint.
    Breaker,
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
    /// What needs the server's help, or can fail a call that would succeed, is off.
    fn default() -> Self {
        Self(Part::ALL.map(|part| match part {
            Part::Key | Part::Throttle => Mode::Off,
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
        let mut modes = Modes::default();
        for (at, part) in Part::ALL.into_iter().enumerate() {
            assert_eq!(part as usize, at);
            modes.set(part, Mode::Shadow);
        }
        let switches = Switches::new(&modes);
        switches.get(Part::Retry).set(Mode::Off);
        let off = Part::ALL.into_iter().filter(|part| switches.get(*part).mode() == Mode::Off);
        assert_eq!(off.collect::<Vec<_>>(), [Part::Retry]);
    }
}
