//! The mistakes of a service config.

use std::fmt;

/// Every mistake of a service config; at least one. `Display` writes one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors(pub(crate) Vec<Error>);

/// One mistake: its place, the value there, and the rule.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Error {
    /// The place, such as `methodConfig[0].retryPolicy.maxAttempts`; "" for the whole config.
    pub path: String,
    /// The value there, as JSON and cut after 80 characters; `absent` where there is none; for a
    /// text that is not JSON, its line and column.
    pub value: String,
    /// The rule that the value breaks, such as `an integer of at least 2`.
    pub rule: &'static str,
}

// === impl Errors ===

impl Errors {
    /// The mistakes, entry by entry.
    pub fn as_slice(&self) -> &[Error] {
        &self.0
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let end_of_last = if index == 0 { "" } else { "\n" };
            write!(f, "{end_of_last}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

// === impl Error ===

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, value, rule } = self;
        let place = if path.is_empty() { "service config" } else { path };
        write!(f, "{place}: must be {rule}, not {value}")
    }
}

impl std::error::Error for Error {}
