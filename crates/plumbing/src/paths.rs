//! Look-ups by the path of a call.

use hashbrown::HashMap;
use std::sync::Arc;

/// A value for each path, such as `/calculator.Calculator/Add`; clones share it.
#[derive(Clone, Debug)]
pub struct Paths<T>(Arc<HashMap<Box<str>, T>>);

// === impl Paths ===

impl<T> Paths<T> {
    /// The value of `path`.
    #[inline]
    pub fn get(&self, path: &str) -> Option<&T> {
        self.0.get(path)
    }
}

impl<'a, T> FromIterator<(&'a str, T)> for Paths<T> {
    /// Of several values for one path the last counts.
    fn from_iter<I: IntoIterator<Item = (&'a str, T)>>(values: I) -> Self {
        let boxed = |(path, value): (&str, T)| (path.into(), value);
        Self(Arc::new(values.into_iter().map(boxed).collect()))
    }
}
