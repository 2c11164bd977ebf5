//! Status codes by their names.

use tonic::Code;

/// The name of `code` as gRPC writes it: `DEADLINE_EXCEEDED`.
pub const fn name(code: Code) -> &'static str {
    cinchona_policy::Code::from_number(code as i32).name()
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
