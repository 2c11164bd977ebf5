//! Whether each of the layers of a client or a server is on.

use cinchona_core::{Mode, Switch};

/// A mode for each of `N` parts, by index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Modes<const N: usize>(pub(crate) [Mode; N]);

/// A switch for each of `N` parts, by index.
#[derive(Clone, Debug)]
pub(crate) struct Switches<const N: usize>([Switch; N]);

// === impl Modes ===

impl<const N: usize> Modes<N> {
    pub(crate) const fn get(&self, part: usize) -> Mode {
        self.0[part]
    }

    pub(crate) const fn set(&mut self, part: usize, mode: Mode) {
        self.0[part] = mode;
    }

    pub(crate) fn switches(&self) -> Switches<N> {
        Switches(self.0.map(Switch::new))
    }
}

// === impl Switches ===

impl<const N: usize> Switches<N> {
    pub(crate) const fn get(&self, part: usize) -> &Switch {
        &self.0[part]
    }
}
