//! What is never shown.

use std::{convert::Infallible, fmt, str::FromStr};

/// A token, a password, or a URL that may hold one: `Debug` and `Display` say `***`, so it cannot
/// get into a log, an error, a page or a metric by accident.
///
/// Its text is had by [`expose`](Self::expose) alone, and compared by [`is`](Self::is) alone. It
/// is kept in memory as any other text is, and is not erased from there.
///
/// ```
/// use cinchona_core::Secret;
///
/// let url = Secret::from("redis://:hunter2@db:6379");
/// assert_eq!(format!("{url} {url:?}"), "*** ***");
/// assert_eq!(url.expose(), "redis://:hunter2@db:6379");
/// ```
#[derive(Clone, Default)]
pub struct Secret(Box<str>);

// === impl Secret ===

impl Secret {
    /// The text, for whoever needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `said` is the same text; never, where that is empty. Takes as long wherever the
    /// first difference is.
    pub fn is(&self, said: &[u8]) -> bool {
        let own = self.0.as_bytes();
        let differing = own.iter().zip(said).fold(0, |all, (a, b)| all | (a ^ b));
        !own.is_empty() && own.len() == said.len() && std::hint::black_box(differing) == 0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

/// For options of a command line: it never fails, as their parsers repeat what they refuse.
impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.into())
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

    #[test]
    fn a_secret_is_not_shown_in_any_format() {
        let secret = Secret::from("hunter2");
        let shown = format!("{secret} {secret:?} {secret:#?} {secret:>20} {:?}", Some(&secret));
        assert!(!shown.contains("hunter"), "{shown}");
        assert!(!shown.contains('7'), "nor how long it is: {shown}");
    }

    #[test]
    fn a_secret_is_itself_alone_and_an_empty_one_is_nobodys() {
        let secret: Secret = "s3cret".parse().unwrap();
        assert!(secret.is(b"s3cret"));
        for other in ["", "s3cre", "s3cret1", "S3cret", "xxxxxx"] {
            assert!(!secret.is(other.as_bytes()), "{other}");
        }
        assert!(!Secret::default().is(b""));
    }
}
