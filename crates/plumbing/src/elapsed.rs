//! The error of a call that has run out of time.

use std::{error::Error, fmt, sync::Arc};
use tonic::Status;

/// A timer of this client ended a call or an attempt; its `source()` is the
/// `DEADLINE_EXCEEDED` status.
#[derive(Debug)]
pub struct Elapsed(Status);

// === impl Elapsed ===

impl Elapsed {
    /// Ends a call with `DEADLINE_EXCEEDED` and `message`.
    pub fn new(message: impl Into<String>) -> Self {
        Self(Status::deadline_exceeded(message))
    }
}

/// With the error as its source.
impl From<Elapsed> for Status {
    fn from(elapsed: Elapsed) -> Self {
        let mut status = Self::deadline_exceeded(elapsed.0.message());
        status.set_source(Arc::new(elapsed));
        status
    }
}

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.message())
    }
}

impl Error for Elapsed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}
