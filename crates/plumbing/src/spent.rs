//! The time of an attempt.

use crate::{headers, timeout};
use http::{HeaderMap, HeaderValue};
use std::time::Duration;

/// The time allowed for an attempt; parsed on demand, which is after a failure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Its `grpc-timeout`.
    sent: Option<HeaderValue>,
    call: Option<Duration>,
}

/// The time of an attempt, allowed and used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// The time allowed.
    pub allowed: Allowed,
    /// The time it took.
    pub took: Duration,
    /// The server's usual time, if known.
    pub usual: Option<Duration>,
}

/// A shorter limit is not held against a server whose usual time is unknown.
const LEAST: Duration = Duration::from_millis(100);

// === impl Allowed ===

impl Allowed {
    /// The time allowed for a request with these headers, whose call has this much time left: its
    /// `grpc-timeout`, which is the limit of the attempt if that of the call is longer.
    pub fn of(headers: &HeaderMap, call: Option<Duration>) -> Self {
        Self { sent: headers::get(headers, &timeout::GRPC_TIMEOUT).cloned(), call }
    }

    /// The limit, if there is one.
    pub fn limit(&self) -> Option<Duration> {
        self.sent().or(self.call)
    }

    /// Whether the limit is that of an attempt, and the call has more time.
    pub fn is_of_attempt(&self) -> bool {
        let sent = self.sent();
        sent.zip(self.call).is_some_and(|(sent, call)| sent + 2 * timeout::SLACK < call)
    }

    fn sent(&self) -> Option<Duration> {
        self.sent.as_ref().and_then(|sent| timeout::read_timeout(sent).ok())
    }
}

// === impl Spent ===

impl Spent {
    /// Whether all of the allowed time has passed.
    pub fn is_over(&self) -> bool {
        self.allowed.limit().is_some_and(|limit| timeout::is_why(limit, self.took))
    }

    /// Whether a server that has not answered in this time can be blamed for it.
    pub fn was_enough(&self) -> bool {
        let Some(limit) = self.allowed.limit() else { return true };
        // A server that gives up earlier has its own reasons.
        self.allowed.is_of_attempt() || !self.is_over() || limit >= self.usual.unwrap_or(LEAST)
    }
}
