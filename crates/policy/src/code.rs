//! The status codes of gRPC.

/// A status code of gRPC, by its number.
///
/// Settings take any type of code that is such a number: `impl Into<i32>`, as tonic's is.
///
/// ```
/// use cinchona_policy::Code;
///
/// assert_eq!(Code::from(14), Code::Unavailable);
/// assert_eq!((Code::DataLoss as i32, Code::DataLoss.name()), (15, "DATA_LOSS"));
/// assert_eq!(Code::from(99), Code::Unknown);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Code {
    /// The call has succeeded.
    Ok = 0,
    /// It was given up.
    Cancelled = 1,
    /// Nothing else is known of the failure.
    Unknown = 2,
    /// The request is wrong, whatever the state of the service.
    InvalidArgument = 3,
    /// The deadline has passed.
    DeadlineExceeded = 4,
    /// It names something that does not exist.
    NotFound = 5,
    /// It creates something that exists.
    AlreadyExists = 6,
    /// The caller is known, and may not do this.
    PermissionDenied = 7,
    /// A quota or another resource is used up.
    ResourceExhausted = 8,
    /// The state of the service does not allow it.
    FailedPrecondition = 9,
    /// Another call has interfered.
    Aborted = 10,
    /// It goes beyond a valid range.
    OutOfRange = 11,
    /// The service does not have the method.
    Unimplemented = 12,
    /// The service is broken.
    Internal = 13,
    /// The service cannot be reached now.
    Unavailable = 14,
    /// Data are lost.
    DataLoss = 15,
    /// The caller is not known.
    Unauthenticated = 16,
}

// === impl Code ===

impl Code {
    /// Every code, in the order of their numbers.
    pub const ALL: [Self; 17] = [
        Self::Ok,
        Self::Cancelled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    /// The code with this number; `Unknown` for any other number than 0 to 16.
    #[inline]
    pub const fn from_number(number: i32) -> Self {
        match number {
            0..=16 => Self::ALL[number as usize],
            _ => Self::Unknown,
        }
    }

    /// Its name as gRPC writes it: `DEADLINE_EXCEEDED`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Cancelled => "CANCELLED",
            Self::Unknown => "UNKNOWN",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Aborted => "ABORTED",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
            Self::DataLoss => "DATA_LOSS",
            Self::Unauthenticated => "UNAUTHENTICATED",
        }
    }
}

impl From<i32> for Code {
    #[inline]
    fn from(number: i32) -> Self {
        Self::from_number(number)
    }
}

impl From<Code> for i32 {
    #[inline]
    fn from(code: Code) -> Self {
        code as Self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_number_from_0_to_16_is_a_code_with_a_name_of_its_own_and_others_are_unknown() {
        let names: HashSet<_> = Code::ALL.map(Code::name).into();
        assert_eq!(names.len(), 17);
        for (number, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!((Code::from(number as i32), code as usize), (code, number));
        }
        assert!([-1, 17, i32::MAX, i32::MIN].iter().all(|n| Code::from(*n) == Code::Unknown));
    }
}
