//! A set of status codes.

use cinchona_core::{Invalid, Verdict};
use cinchona_plumbing::code;
use std::fmt;
use tonic::Code;

/// A set of codes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Codes(u32);

// === impl Codes ===

const CODES: &str = "codes that can become OK by trying again: CANCELLED, UNKNOWN, \
    DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ABORTED, INTERNAL, UNAVAILABLE \
    (with_forced_codes takes any)";

impl Codes {
    pub(crate) const fn contains(self, code: Code) -> bool {
        self.0 & (1 << code as u32) != 0
    }

    /// These codes, unless a retry cannot turn one of them into OK.
    pub(crate) fn retryable(self) -> Result<Self, Invalid> {
        let hopeless =
            |code: &Code| matches!(Verdict::of_code(*code), Verdict::Refused(_) | Verdict::Ok);
        match self.iter().find(hopeless) {
            Some(bad) => Err(Invalid::new("codes", code::name(bad), CODES)),
            None => Ok(self),
        }
    }

    fn iter(self) -> impl Iterator<Item = Code> {
        code::all().filter(move |code| self.contains(*code))
    }
}

impl FromIterator<Code> for Codes {
    fn from_iter<I: IntoIterator<Item = Code>>(codes: I) -> Self {
        Self(codes.into_iter().fold(0, |set, code| set | 1 << code as u32))
    }
}

impl fmt::Debug for Codes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
