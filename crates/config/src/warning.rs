//! Valid settings of a service config that lack their usual effect.

use std::fmt;

/// A valid setting of a service config that lacks its usual effect; `Display` is its path and its
/// text, on one line.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Warning {
    /// The place, such as `methodConfig[0].retryPolicy.perAttemptRecvTimeout`.
    pub path: String,
    /// The lack, and the remedy, such as `is unknown, and ignored as in gRPC; maxAttempts is the
    /// field that is known`.
    pub text: String,
}

// === impl Warning ===

impl Warning {
    pub(crate) fn new(path: &str, text: impl Into<String>) -> Self {
        Self { path: path.to_owned(), text: text.into() }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.text)
    }
}
