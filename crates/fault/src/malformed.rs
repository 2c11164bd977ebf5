//! The error of a rule, with its place.

use std::{error::Error, fmt, ops::Range};

/// A rule that was not understood: the place, and what is allowed there.
///
/// It is shown as several lines, with carets below the place:
///
/// ```text
/// line 3: not a share
///   method=* rate=3 status=UNAVAILABLE
///                 ^
///   allowed: 0 to 1, or 0% to 100%
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    line: Option<usize>,
    text: String,
    at: Range<usize>,
    what: String,
    allowed: String,
}

// === impl Malformed ===

impl Malformed {
    pub(crate) fn new(
        text: &str,
        at: Range<usize>,
        what: impl Into<String>,
        allowed: impl Into<String>,
    ) -> Self {
        let (what, allowed) = (what.into(), allowed.into());
        Self { line: None, text: text.to_owned(), at, what, allowed }
    }

    /// As an error of a file: in that line, where the rule begins after `before`.
    pub(crate) fn in_line(self, line: usize, text: &str, before: usize) -> Self {
        let at = self.at.start + before..self.at.end + before;
        Self { line: Some(line), text: text.to_owned(), at, ..self }
    }

    /// The line of the file, from 1, if it is from a file.
    pub const fn line(&self) -> Option<usize> {
        self.line
    }

    /// The place, in bytes of the rule or of the line.
    pub fn at(&self) -> Range<usize> {
        self.at.clone()
    }

    /// What is wrong.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What is allowed there.
    pub fn allowed(&self) -> &str {
        &self.allowed
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, text, at, what, allowed } = self;
        if let Some(line) = line {
            write!(f, "line {line}: ")?;
        }
        let shown: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let width = |range: Range<usize>| text.get(range).map_or(0, |part| part.chars().count());
        let carets = "^".repeat(width(at.clone()).max(1));
        let before = " ".repeat(width(0..at.start));
        write!(f, "{what}\n  {shown}\n  {before}{carets}\n  allowed: {allowed}")
    }
}

impl Error for Malformed {}
