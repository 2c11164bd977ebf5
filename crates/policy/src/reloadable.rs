//! Settings that can be replaced while calls run.

use arc_swap::{ArcSwap, Guard};
use std::sync::Arc;

/// A value that all clones share and that can be replaced without a lock.
///
/// ```
/// use cinchona_policy::Reloadable;
///
/// let setting = Reloadable::new(1);
/// let shared = setting.clone();
/// setting.set(2);
/// assert_eq!(**shared.get(), 2);
/// ```
#[derive(Debug)]
pub struct Reloadable<T>(Arc<ArcSwap<T>>);

// === impl Reloadable ===

impl<T> Reloadable<T> {
    /// The initial value.
    pub fn new(value: T) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(value)))
    }

    /// The current value.
    pub fn get(&self) -> Guard<Arc<T>> {
        self.0.load()
    }

    /// Replaces the value; calls that have begun keep the old one.
    pub fn set(&self, value: T) {
        self.0.store(Arc::new(value));
    }
}

impl<T> Clone for Reloadable<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> From<T> for Reloadable<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}
