//! A set of status codes.

use crate::{Code, Invalid, Verdict};
use std::fmt;

/// A set of codes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Codes(u32);

// === impl Codes ===

const CODES: &str = "codes that can become OK by trying again: CANCELLED, UNKNOWN, \
    DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ABORTED, INTERNAL, UNAVAILABLE \
    (with_forced_codes takes any)";

impl Codes {
    /// Whether this code is one of them.
    #[inline]
    pub const fn contains(self, code: Code) -> bool {
        self.0 & (1 << code as u32) != 0
    }

    /// These codes, unless a retry cannot turn one of them into OK.
    pub(crate) fn retryable(self) -> Result<Self, Invalid> {
        let hopeless =
            |code: &Code| matches!(Verdict::of_code(*code), Verdict::Refused(_) | Verdict::Ok);
        match self.iter().find(hopeless) {
            Some(bad) => Err(Invalid::new("codes", bad.name(), CODES)),
            None => Ok(self),
        }
    }

    fn iter(self) -> impl Iterator<Item = Code> {
        Code::ALL.into_iter().filter(move |code| self.contains(*code))
    }
}

impl<C: Into<i32>> FromIterator<C> for Codes {
    fn from_iter<I: IntoIterator<Item = C>>(codes: I) -> Self {
        let codes = codes.into_iter().map(|code| Code::from_number(code.into()));
        Self(codes.fold(0, |set, code| set | 1 << code as u32))
    }
}

impl fmt::Debug for Codes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
