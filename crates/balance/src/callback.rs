//! Callbacks of users: a panic is a failure, and affects nothing else.

use cinchona_core::BoxError;
use std::{
    any::Any,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
};

/// The result of `callback`.
///
/// # Errors
/// With the message of its panic.
pub(crate) fn call<T>(what: &str, callback: impl FnOnce() -> T) -> Result<T, String> {
    // State left inconsistent by a panic is the callback's own.
    catch_unwind(AssertUnwindSafe(callback))
        .map_err(|panic| format!("{what} panicked: {}", words(&*panic)))
}

/// The result of `future`, which may panic as well.
pub(crate) async fn catch<T>(
    what: &str,
    future: impl Future<Output = Result<T, BoxError>>,
) -> Result<T, BoxError> {
    let mut future = pin!(future);
    poll_fn(|cx| match call(what, || future.as_mut().poll(cx)) {
        Ok(poll) => poll,
        Err(panic) => Poll::Ready(Err(panic.into())),
    })
    .await
}

/// The message of a panic.
pub(crate) fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a word")
}
