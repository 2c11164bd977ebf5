//! Status codes by their names.

use tonic::Code;

/// The name of `code` as gRPC writes it: `DEADLINE_EXCEEDED`.
pub const fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// The code called `name`, in any case, with `_` or `-` between the words.
///
/// ```
/// use cinchona_plumbing::code;
/// use tonic::Code;
///
/// assert_eq!(code::from_name("deadline-exceeded"), Some(Code::DeadlineExceeded));
/// assert_eq!(code::from_name("UNAVAILABLE"), Some(Code::Unavailable));
/// assert_eq!(code::from_name("oops"), None);
/// ```
pub fn from_name(name: &str) -> Option<Code> {
    let wanted = name.replace('-', "_").to_ascii_uppercase();
    all().find(|code| self::name(*code) == wanted)
}

/// Every code, from `OK` (0) to `UNAUTHENTICATED` (16).
pub fn all() -> impl Iterator<Item = Code> {
    (0..=16).map(Code::from_i32)
}
