//! Whether a method may be executed twice.

/// Whether a method may be executed more than once for one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Safety {
    /// It changes nothing.
    NoSideEffects,
    /// Executing it twice leaves what executing it once does.
    Idempotent,
    /// Nothing says that it may.
    Unknown,
}

// === impl Safety ===

impl Safety {
    /// Whether executing the method twice does no harm.
    pub const fn allows_repeating(self) -> bool {
        matches!(self, Self::NoSideEffects | Self::Idempotent)
    }
}
