//! What becomes of a key once its call has been executed.

use crate::Guarantee;
use tonic::Code;

/// What an answer says of how far its handler came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// To its end, which a repetition would meet again.
    Ended,
    /// It has not begun, or has undone what it began: it says so itself.
    NotBegun,
    /// By what its code means it has not begun; but nothing keeps a handler from such a code after
    /// an effect, as where a call of its own has failed.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// How far the handler came that answered `code`, by what gRPC's [status codes] mean.
///
/// [status codes]: https://github.com/grpc/grpc/blob/master/doc/statuscodes.md
pub(crate) const fn reach(code: Code) -> Reach {
    match code {
        Code::Unavailable | Code::Aborted | Code::ResourceExhausted | Code::Unauthenticated => {
            Reach::Refused
        }
        Code::Internal
        | Code::Unknown
        | Code::DataLoss
        | Code::DeadlineExceeded
        | Code::Cancelled => Reach::Unknown,
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented => Reach::Ended,
    }
}

// === impl Reach ===

impl Reach {
    /// Whether the answer is kept; else the next call with the key is executed.
    pub(crate) const fn is_kept(self, guarantee: Guarantee) -> bool {
        match self {
            Self::Ended => true,
            Self::NotBegun => false,
            Self::Refused | Self::Unknown => matches!(guarantee, Guarantee::AtMostOnce),
        }
    }
}
