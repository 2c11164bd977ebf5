//! A function of a user's, in settings that are compared.

use std::{fmt, ops::Deref, sync::Arc};

/// A function of a user's, in settings: equal to its clones alone, as nobody can tell whether two
/// functions do the same.
pub struct Callback<F: ?Sized>(pub Arc<F>);

// === impl Callback ===

impl<F: ?Sized> Clone for Callback<F> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<F: ?Sized> Deref for Callback<F> {
    type Target = F;

    fn deref(&self) -> &F {
        &self.0
    }
}

impl<F: ?Sized> PartialEq for Callback<F> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<F: ?Sized> fmt::Debug for Callback<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callback_is_equal_to_its_clones_alone() {
        let one = Callback::<dyn Fn() -> u8>(Arc::new(|| 1));
        assert_eq!((one(), one == one.clone()), (1, true));
        assert_ne!(one, Callback::<dyn Fn() -> u8>(Arc::new(|| 1)));
    }
}
