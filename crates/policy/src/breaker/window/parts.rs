//! What a window of time is divided into.

/// How many slices it has.
pub(super) const SLICES: u64 = 64;
