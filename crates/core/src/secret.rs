//! Secrets, which are never shown.

use crate::Invalid;
use cinchona_plumbing::secret::is_same;
use std::{fmt, str::FromStr};

/// A token, a password, or a URL that may contain one: `Debug` and `Display` print `***`, so it
/// cannot get into a log, an error, a page or a metric by accident.
///
/// It is never empty, nor only white space: otherwise an unset variable or an empty file would be a
/// secret known to all. Only [`expose`](Self::expose) returns its text, and only [`is`](Self::is)
/// compares it. It is kept in memory like any other text, and is not erased.
///
/// ```
/// use cinchona_core::Secret;
///
/// let url = Secret::new("redis://:hunter2@db:6379")?;
/// assert_eq!(format!("{url} {url:?}"), "*** ***");
/// assert_eq!(url.expose(), "redis://:hunter2@db:6379");
/// assert!(Secret::new(" ").is_err());
/// # Ok::<_, cinchona_core::Invalid>(())
/// ```
#[derive(Clone)]
pub struct Secret(Box<str>);

// === impl Secret ===

impl Secret {
    /// A secret with this text, unchanged.
    ///
    /// # Errors
    /// When there is nothing in it but white space.
    pub fn new(text: impl Into<Box<str>>) -> Result<Self, Invalid> {
        let text = text.into();
        if text.chars().all(|c| c.is_whitespace() || c.is_control()) {
            let allowed = "a text that is not empty, nor white space alone";
            return Err(Invalid::new("secret", "an empty text", allowed));
        }
        Ok(Self(text))
    }

    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `said` is the same text, in constant time wherever the first difference is.
    pub fn is(&self, said: &[u8]) -> bool {
        is_same(self.0.as_bytes(), said)
    }
}

impl TryFrom<String> for Secret {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::new(text)
    }
}

impl TryFrom<&str> for Secret {
    type Error = Invalid;

    fn try_from(text: &str) -> Result<Self, Invalid> {
        Self::new(text)
    }
}

/// For options of a command line: its error repeats nothing, as parsers show it.
impl FromStr for Secret {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::new(text)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_secret_is_not_shown_in_any_format() {
        let secret = Secret::new("hunter2").unwrap();
        let shown = format!("{secret} {secret:?} {secret:#?} {secret:>20} {:?}", Some(&secret));
        assert!(!shown.contains("hunter"), "{shown}");
        assert!(!shown.contains('7'), "nor how long it is: {shown}");
    }

    // catalogue: S-E6
    #[test]
    fn an_empty_or_blank_text_is_no_secret() {
        for blank in ["", " ", "\t", "\r\n", " \n\t ", "\0", "\u{a0}", "\u{3000}"] {
            let error = Secret::new(blank).unwrap_err();
            assert_eq!(error.field(), "secret", "{blank:?}");
            assert!(error.to_string().contains("not empty"), "{error}");
            assert!(blank.parse::<Secret>().is_err() && Secret::try_from(blank).is_err());
        }
    }

    proptest! {
        // catalogue: S-E6
        #[test]
        fn a_secret_is_itself_alone(own in "\\PC*[a-z]", said: Vec<u8>, at: prop::sample::Index) {
            let secret: Secret = own.parse().unwrap();
            prop_assert!(secret.is(own.as_bytes()));
            prop_assert_eq!(secret.is(&said), own.as_bytes() == said);
            let mut other = own.clone().into_bytes();
            let at = at.index(other.len());
            other[at] ^= 1;
            prop_assert!(!secret.is(&other));
            prop_assert!(!secret.is(&own.as_bytes()[1..]) && !secret.is(b""));
        }
    }
}
