//! Why a call was not retried.

use std::fmt;

/// Why a call was not retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stop {
    /// It succeeded.
    Succeeded,
    /// All attempts of the policy were made.
    Exhausted,
    /// The policy does not retry this code.
    NotRetryable,
    /// The call's deadline has passed, or would before the next attempt could start.
    Deadline,
    /// The request has outgrown the replay buffer.
    BodyTooLarge,
    /// The service may have executed it, and it is not known to be safe to execute twice.
    NotIdempotent,
    /// The server forbade retries by `grpc-retry-pushback-ms`.
    Pushback,
    /// The server fails too often: gRPC's throttle is at half or below.
    Throttled,
    /// The [`Budget`](super::Budget) of all calls has no tokens for another attempt of this method.
    Budget,
    /// This call serves one that is itself a retry: only the first caller of a chain retries.
    Chained,
    /// The client itself failed: its request's body failed, or its HTTP/2 library reset the stream.
    Local,
}

// === impl Stop ===

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Succeeded => "succeeded",
            Self::Exhausted => "exhausted",
            Self::NotRetryable => "not retryable",
            Self::Deadline => "deadline",
            Self::BodyTooLarge => "body too large",
            Self::NotIdempotent => "method not known to be idempotent",
            Self::Pushback => "server pushback",
            Self::Throttled => "throttled",
            Self::Budget => "budget used up",
            Self::Chained => "serving a retry",
            Self::Local => "failed in this client",
        })
    }
}
