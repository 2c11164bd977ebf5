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
    text.parse().map_err(|_| Status::failed_precondition(format!("{text:?} is no number")))
}
