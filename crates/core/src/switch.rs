//! Whether a layer acts, only counts what it would have done, or stands aside.

mod mode;
mod word;

pub use mode::Mode;

use cinchona_plumbing::Count;
use std::sync::Arc;
use word::Word;

/// The switch of a layer, shared by its clones and changed while calls run.
///
/// Observe a new policy before it acts: in [`Mode::Shadow`] the layer decides as usual and only
/// counts.
///
/// ```
/// use cinchona_core::{Mode, Switch};
///
/// let switch = Switch::default();
/// assert_eq!(switch.mode(), Mode::Enforce);
/// switch.set(Mode::Shadow);
/// assert_eq!((switch.mode(), switch.shadowed()), (Mode::Shadow, 0));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Switch(Arc<State>);

#[derive(Debug, Default)]
struct State {
    mode: Word,
    shadowed: Count,
}

// === impl Switch ===

impl Switch {
    /// A switch at `mode`.
    pub fn new(mode: Mode) -> Self {
        let switch = Self::default();
        switch.set(mode);
        switch
    }

    /// The current mode.
    pub fn mode(&self) -> Mode {
        self.0.mode.mode()
    }

    /// Sets the mode; calls that have begun keep theirs.
    pub fn set(&self, mode: Mode) {
        self.0.mode.set(mode);
    }

    /// How often it was turned to [`Mode::Off`]. State from before that may be outdated: the layer
    /// did not see the calls in between.
    ///
    /// ```
    /// use cinchona_core::{Mode, Switch};
    ///
    /// let switch = Switch::default();
    /// for mode in [Mode::Off, Mode::Off, Mode::Shadow, Mode::Off, Mode::Enforce] {
    ///     switch.set(mode);
    /// }
    /// assert_eq!((switch.times_off(), switch.mode()), (2, Mode::Enforce));
    /// ```
    pub fn times_off(&self) -> u64 {
        self.0.mode.times_off()
    }

    /// How often the layer would have acted in [`Mode::Shadow`].
    pub fn shadowed(&self) -> u64 {
        self.0.shadowed.read()
    }

    /// Counts a decision that is not acted on.
    pub fn count(&self) {
        self.0.shadowed.count();
    }
}

impl PartialEq for Switch {
    /// Clones are equal, as they are one switch, and no others, whatever their modes.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Switch {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_is_equal_to_its_clones_alone() {
        let switch = Switch::new(Mode::Off);
        assert_eq!(switch, switch.clone());
        assert_ne!(switch, Switch::new(Mode::Off));
    }

    #[test]
    fn clones_share_the_mode_and_the_count() {
        let switch = Switch::new(Mode::Off);
        let clone = switch.clone();
        clone.set(Mode::Shadow);
        clone.count();
        assert_eq!((switch.mode(), switch.shadowed()), (Mode::Shadow, 1));
    }

    #[test]
    fn it_counts_how_often_it_was_turned_off_and_what_it_did_not_act_on() {
        let switch = Switch::new(Mode::Shadow);
        for times in 0..5 {
            assert_eq!((switch.times_off(), switch.shadowed()), (times, times));
            switch.count();
            switch.set(Mode::Off);
            switch.set(Mode::Off);
            switch.set(Mode::Shadow);
        }
    }
}
