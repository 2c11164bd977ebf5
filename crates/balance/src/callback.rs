//! Callbacks of users: one that panics has failed, and costs nothing else.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// What `callback` gives.
///
/// # Errors
/// With the words of its panic.
pub(crate) fn call<T>(what: &str, callback: impl FnOnce() -> T) -> Result<T, String> {
    // What it may have left half done is its own.
    catch_unwind(AssertUnwindSafe(callback))
        .map_err(|panic| format!("{what} panicked: {}", words(&*panic)))
}

/// The words of a panic.
pub(crate) fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a word")
}
