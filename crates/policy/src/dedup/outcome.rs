//! How a key is settled once its call has been executed.

use crate::Code;

/// What happens after an execution that failed with an unknown effect; by code, see the
/// [table].
///
/// [table]: https://docs.rs/cinchona-idempotency/latest/cinchona_idempotency/#what-at-most-once-means
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Guarantee {
    /// Its failure is kept: once its handler has been called, a call is not executed again under
    /// this key, whatever the code, unless the answer declares that it has not begun.
    #[default]
    AtMostOnce,
    /// The next attempt is executed. Over a `State` this is *exactly once*, if
    /// nothing else is changed: without a record there was no effect, and a late execution can
    /// change nothing.
    AtLeastOnce,
}

/// How far the handler got, according to its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// To its end, which a repetition would reach again.
    Ended,
    /// It has not begun, or has undone its work, as it declares.
    NotBegun,
    /// By the meaning of its code it has not begun; but a handler may still answer so after an
    /// effect, as when it forwards the failure of its own call.
    Refused,
    /// Unknown.
    Unknown,
}

/// How far a handler got that answered `code`, by gRPC's [status codes].
///
/// [status codes]: https://github.com/grpc/grpc/blob/master/doc/statuscodes.md
pub const fn reach(code: Code) -> Reach {
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
    /// Whether the answer is kept; otherwise the next call with the key is executed.
    pub const fn is_kept(self, guarantee: Guarantee) -> bool {
        match self {
            Self::Ended => true,
            Self::NotBegun => false,
            Self::Refused | Self::Unknown => matches!(guarantee, Guarantee::AtMostOnce),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_begun_is_kept_where_a_call_is_executed_once_at_most() {
        for (reach, at_most_once, at_least_once) in [
            (Reach::Ended, true, true),
            (Reach::NotBegun, false, false),
            (Reach::Refused, true, false),
            (Reach::Unknown, true, false),
        ] {
            let kept = [Guarantee::AtMostOnce, Guarantee::AtLeastOnce].map(|it| reach.is_kept(it));
            assert_eq!(kept, [at_most_once, at_least_once], "{reach:?}");
        }
    }
}
