//! How an attempt spent its time.

use crate::timeout;
use http::HeaderMap;
use std::time::Duration;

/// The time that an attempt is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    limit: Option<Duration>,
    is_of_attempt: bool,
}

/// How an attempt spent its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// What it was given.
    pub allowed: Allowed,
    /// How long it took.
    pub took: Duration,
    /// How long the server usually takes, if that is known.
    pub usual: Option<Duration>,
}

/// Less than this is not held against a server of which nothing is known.
const LEAST: Duration = Duration::from_millis(100);

// === impl Allowed ===

impl Allowed {
    /// What a request with these headers is given, whose call has so much time left: its
    /// `grpc-timeout`, which is the limit of the attempt where that of the call is longer.
    pub fn of(headers: &HeaderMap, call: Option<Duration>) -> Self {
        match timeout::parse_timeout(headers).ok().flatten() {
            None => Self { limit: call, is_of_attempt: false },
            Some(limit) => {
                let is_of_attempt = call.is_some_and(|call| limit + 2 * timeout::SLACK < call);
                Self { limit: Some(limit), is_of_attempt }
            }
        }
    }

    /// The limit, if there is one.
    pub const fn limit(self) -> Option<Duration> {
        self.limit
    }

    /// Whether the limit is that of an attempt, and the call has more time.
    pub const fn is_of_attempt(self) -> bool {
        self.is_of_attempt
    }
}

// === impl Spent ===

impl Spent {
    /// Whether all of the time that was given has passed.
    pub fn is_over(&self) -> bool {
        self.allowed.limit.is_some_and(|limit| timeout::is_why(limit, self.took))
    }

    /// Whether a server that has not answered in this time can be blamed for it.
    pub fn was_enough(&self) -> bool {
        let Some(limit) = self.allowed.limit else { return true };
        // A server that gives up before that has its own reasons.
        self.allowed.is_of_attempt || !self.is_over() || limit >= self.usual.unwrap_or(LEAST)
    }
}
