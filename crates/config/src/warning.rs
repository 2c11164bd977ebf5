//! What is valid in a service config, and does not act as it says.

use std::fmt;

/// Something in a service config that is valid and does not act as it says; `Display` is its path
/// and its text, on one line.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Warning {
    /// The place, such as `methodConfig[0].retryPolicy.perAttemptRecvTimeout`.
    pub path: String,
    /// What does not act, and what to do, such as `is unknown, and ignored as in gRPC; maxAttempts
    /// is the field that is known`.
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
