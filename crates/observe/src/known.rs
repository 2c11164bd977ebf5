//! Which methods have names in labels.

use crate::callback;
use cinchona_core::{Methods, Safety};
use std::{fmt, sync::OnceLock};

/// The methods with names in labels.
pub(crate) struct Known {
    pub(crate) methods: Methods,
    pub(crate) streams: Vec<Box<str>>,
    pub(crate) unlisted: OnceLock<Box<Filter>>,
}

pub(crate) type Filter = dyn Fn(&str) -> bool + Send + Sync;

// === impl Known ===

impl Known {
    /// Whether the method at `path` has its own name in labels.
    pub(crate) fn contains(&self, path: &str) -> bool {
        // A filter that panics counts as false.
        let passes = |filter: &Filter| callback::call("a filter of methods", || filter(path));
        self.lists(path) || self.unlisted.get().is_some_and(|filter| passes(filter) == Some(true))
    }

    /// `Methods` does not report whether a path is listed, but knows more of a listed one.
    fn lists(&self, path: &str) -> bool {
        self.methods.is_unary(path)
            || self.methods.safety(path) != self.methods.safety("")
            || self.methods.safety(path) == Safety::Unknown
                && self.streams.iter().any(|stream| **stream == *path)
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known").field("methods", &self.methods).finish_non_exhaustive()
    }
}
