//! Callbacks of users: a panic yields no value, and affects nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// The result of `callback`; `None` if it panics.
pub(crate) fn call<T>(what: &'static str, callback: impl FnOnce() -> T) -> Option<T> {
    // State left inconsistent by a panic is the callback's own.
    let said = catch_unwind(AssertUnwindSafe(callback)).ok();
    if said.is_none() {
        tracing::error!(target: "cinchona_observe", what, "a function of the application panicked");
    }
    said
}
