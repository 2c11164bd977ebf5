//! Why an attempt is made, and what a server says about the next.

use std::{fmt, time::Duration};

/// Why an attempt was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttemptKind {
    /// It was the first.
    First,
    /// The one before had failed.
    Retry,
    /// The one before had not reached the service (gRFC A6, transparent retries).
    Transparent,
    /// Earlier ones were still in flight, or one of them had failed early (gRFC A6, hedging).
    Hedge,
}

/// A server's pushback on the next retry, from `grpc-retry-pushback-ms` (gRFC A6) or a
/// `google.rpc.RetryInfo` in the details of its status ([AIP-194]).
///
/// [AIP-194]: https://google.aip.dev/194
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushback {
    /// Retry after exactly this long, without jitter; at most 2³¹ − 1 ms, some 25 days.
    After(Duration),
    /// Do not retry: the header's value was negative, not a 32-bit integer, or given twice.
    Stop,
}

// === impl AttemptKind ===

impl AttemptKind {
    /// As gRPC's own metrics and traces name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::First => "original",
            Self::Retry => "retry",
            Self::Transparent => "transparent_retry",
            Self::Hedge => "hedge",
        }
    }
}

impl fmt::Display for AttemptKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "first",
            Self::Retry => "retry",
            Self::Transparent => "transparent retry",
            Self::Hedge => "hedge",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::AttemptKind::{First, Hedge, Retry, Transparent};

    #[test]
    fn an_attempt_has_the_name_that_grpc_gives_it() {
        let names = [First, Retry, Transparent, Hedge].map(|kind| kind.name());
        assert_eq!(names, ["original", "retry", "transparent_retry", "hedge"]);
    }
}
