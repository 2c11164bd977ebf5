//! Functions of users: one that panics has said nothing, and costs nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// What `callback` says; nothing where it panics.
pub(crate) fn call<T>(what: &'static str, callback: impl FnOnce() -> T) -> Option<T> {
    // What it may have left half done is its own.
    let said = catch_unwind(AssertUnwindSafe(callback)).ok();
    if said.is_none() {
        tracing::error!(target: "cinchona_observe", what, "a function of the application panicked");
    }
    said
}
