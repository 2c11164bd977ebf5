//! Whether each of the layers of a client or a server is on.

use cinchona_core::{Mode, Switch};

/// A mode for each of `N` parts, by index, and whether the user has set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Modes<const N: usize>([(Mode, bool); N]);

/// A switch for each of `N` parts, by index.
#[derive(Clone, Debug)]
pub(crate) struct Switches<const N: usize>([Switch; N]);

// === impl Modes ===

impl<const N: usize> Modes<N> {
    /// The defaults.
    pub(crate) fn new(defaults: [Mode; N]) -> Self {
        Self(defaults.map(|mode| (mode, false)))
    }

    pub(crate) const fn get(&self, part: usize) -> Mode {
        self.0[part].0
    }

    pub(crate) const fn set(&mut self, part: usize, mode: Mode) {
        self.0[part] = (mode, true);
    }

    /// Turns a part on that has been configured, unless its mode was set.
    pub(crate) const fn turn_on(&mut self, part: usize) {
        if let (mode, false) = &mut self.0[part] {
            *mode = Mode::Enforce;
        }
    }

    pub(crate) fn switches(&self) -> Switches<N> {
        Switches(self.0.map(|(mode, _)| Switch::new(mode)))
    }
}

// === impl Switches ===

impl<const N: usize> Switches<N> {
    pub(crate) const fn get(&self, part: usize) -> &Switch {
        &self.0[part]
    }
}
