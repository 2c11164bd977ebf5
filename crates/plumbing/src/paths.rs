//! Look-ups by the path of a call.

use hashbrown::HashMap;
use std::sync::Arc;

/// A value for each path, such as `/calculator.Calculator/Add`; clones share it.
#[derive(Clone, Debug)]
pub struct Paths<T>(Arc<Entries<T>>);

#[derive(Debug)]
enum Entries<T> {
    /// Comparing with all of them is faster than hashing.
    Few(Vec<(Box<str>, T)>),
    Many(HashMap<Box<str>, T>),
}

/// With more paths than these hashing is faster.
const FEW: usize = 8;

// === impl Paths ===

impl<T> Paths<T> {
    /// The value of `path`.
    #[inline]
    pub fn get(&self, path: &str) -> Option<&T> {
        match &*self.0 {
            Entries::Few(few) => few.iter().find(|(own, _)| **own == *path).map(|(_, own)| own),
            Entries::Many(many) => many.get(path),
        }
    }

    /// How many paths have a value.
    pub fn len(&self) -> usize {
        match &*self.0 {
            Entries::Few(few) => few.len(),
            Entries::Many(many) => many.len(),
        }
    }

    /// Whether no path has one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same values, and one more.
    #[must_use]
    pub fn with(&self, path: &str, value: T) -> Self
    where
        T: Clone,
    {
        let own: Vec<_> = match &*self.0 {
            Entries::Few(few) => few.iter().map(|(path, own)| (&**path, own)).collect(),
            Entries::Many(many) => many.iter().map(|(path, own)| (&**path, own)).collect(),
        };
        own.into_iter().map(|(path, own)| (path, own.clone())).chain([(path, value)]).collect()
    }
}

impl<T> Default for Paths<T> {
    fn default() -> Self {
        Self::from_iter([])
    }
}

impl<'a, T> FromIterator<(&'a str, T)> for Paths<T> {
    /// Of several values for one path the last counts.
    fn from_iter<I: IntoIterator<Item = (&'a str, T)>>(values: I) -> Self {
        let boxed = |(path, value): (&str, T)| (path.into(), value);
        let all: HashMap<Box<str>, T> = values.into_iter().map(boxed).collect();
        Self(Arc::new(match all.len() <= FEW {
            true => Entries::Few(all.into_iter().collect()),
            false => Entries::Many(all),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_finds_what_a_map_finds(
            entries in prop::collection::vec(("/[ab]{0,3}", any::<u8>()), 0..20),
            more in ("/[ab]{0,3}", any::<u8>()),
            wanted in "/[ab]{0,3}",
        ) {
            let mut map: HashMap<String, u8> = entries.iter().cloned().collect();
            let paths: Paths<u8> = entries.iter().map(|(path, own)| (&**path, *own)).collect();
            prop_assert_eq!(paths.get(&wanted), map.get(&wanted));
            let paths = paths.with(&more.0, more.1);
            map.insert(more.0, more.1);
            prop_assert_eq!(paths.get(&wanted), map.get(&wanted));
            prop_assert_eq!((paths.len(), paths.is_empty()), (map.len(), map.is_empty()));
        }
    }
}
