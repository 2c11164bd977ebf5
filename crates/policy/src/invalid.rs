//! The error of a setting.

use std::{error::Error, fmt};

/// A setting outside its allowed range.
///
/// Every constructor of cinchona that can refuse a value refuses it with this.
///
/// ```
/// let refused = cinchona_policy::Invalid::new("failure_rate", 1.5, "0 to 1");
/// assert_eq!(refused.to_string(), "failure_rate: 1.5 is not allowed; the range is 0 to 1");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    field: &'static str,
    value: String,
    allowed: &'static str,
}

// === impl Invalid ===

impl Invalid {
    /// `field` has the invalid value `value`, and only `allowed` is valid.
    pub fn new(field: &'static str, value: impl fmt::Display, allowed: &'static str) -> Self {
        Self { field, value: value.to_string(), allowed }
    }

    /// The name of the setting.
    pub const fn field(&self) -> &'static str {
        self.field
    }

    /// What is allowed.
    pub const fn allowed(&self) -> &'static str {
        self.allowed
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, value, allowed } = self;
        write!(f, "{field}: {value} is not allowed; the range is {allowed}")
    }
}

impl Error for Invalid {}
