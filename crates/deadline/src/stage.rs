//! The stage of a call.

use std::fmt;

/// The event that a call waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// A place in a queue, or a connection.
    Readiness,
    Head,
    First,
    /// One message has arrived, and neither another nor the trailers.
    Second,
    Rest,
}

// === impl Stage ===

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Readiness => "a connection",
            Self::Head => "the response",
            Self::First => "the first message",
            Self::Second => "the end of the response, or its second message",
            Self::Rest => "the rest of the response",
        })
    }
}
