//! Whether a method may be executed twice.

/// Whether a method may be executed more than once for one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Safety {
    /// It changes nothing.
    NoSideEffects,
    /// Executing it twice has the same effect as executing it once.
    Idempotent,
    /// It is not declared safe.
    Unknown,
}

// === impl Safety ===

impl Safety {
    /// Whether executing the method twice is harmless.
    pub const fn allows_repeating(self) -> bool {
        matches!(self, Self::NoSideEffects | Self::Idempotent)
    }
}
