//! Boxes that a thread keeps for reuse, as a call that allocates little is fast.

use std::{cell::RefCell, thread::LocalKey};

/// Boxes of values that were used before and are empty again.
#[derive(Debug, Default)]
pub struct Kept<T>(RefCell<Vec<Box<T>>>);

/// How many of a type a thread keeps.
const MOST: usize = 64;

// === impl Kept ===

impl<T: Default> Kept<T> {
    /// None yet.
    pub const fn new() -> Self {
        Self(RefCell::new(Vec::new()))
    }

    /// A kept one of this thread, or a new one.
    #[inline]
    pub fn take(own: &'static LocalKey<Self>) -> Box<T> {
        // A thread that is exiting keeps none.
        own.try_with(|own| own.0.borrow_mut().pop()).ok().flatten().unwrap_or_default()
    }

    /// Keeps one that is empty again, if there are few.
    #[inline]
    pub fn keep(own: &'static LocalKey<Self>, value: Box<T>) {
        _ = own.try_with(|own| {
            let mut own = own.0.borrow_mut();
            if own.len() < MOST {
                own.push(value);
            }
        });
    }
}
