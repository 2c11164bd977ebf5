//! What the services keep between calls.

pub use cinchona::idempotency::{MemoryStore as Memory, State};

use bytes::Bytes;
use std::str::{self, FromStr};
use tonic::Status;

/// A value as text.
///
/// # Errors
/// `DATA_LOSS` when it is none.
pub fn text(value: &Option<Bytes>) -> Result<Option<&str>, Status> {
    let text = value.as_deref().map(str::from_utf8).transpose();
    text.map_err(|_| Status::data_loss("the value is no text"))
}

/// A value as a number, 0 where there is none.
///
/// # Errors
/// `FAILED_PRECONDITION` when it is a text that is none.
pub fn number<T: FromStr + Default>(value: &Option<Bytes>) -> Result<T, Status> {
    let Some(text) = text(value)? else { return Ok(T::default()) };
    let wrong = |_| Status::failed_precondition(format!("{} is no number", brief(text)));
    text.parse().map_err(wrong)
}

/// The text, quoted and cut to the 64 characters that an error may repeat.
pub fn brief(text: &str) -> String {
    match text.char_indices().nth(64) {
        Some((end, _)) => format!("{:?}... ({} bytes)", &text[..end], text.len()),
        None => format!("{text:?}"),
    }
}
