//! The code of a status in headers.

use crate::headers;
use http::HeaderMap;
use tonic::{Code, Status};

/// The code in `grpc-status`, if there is one; a value that is no known number is `UNKNOWN`.
pub fn code(headers: &HeaderMap) -> Option<Code> {
    headers::get(headers, &Status::GRPC_STATUS).map(|value| Code::from_bytes(value.as_bytes()))
}
