//! How an attempt spent its time.

use crate::{headers, timeout};
use http::{HeaderMap, HeaderValue};
use std::time::Duration;

/// The time that an attempt is given; read where somebody asks, which is where it has failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Its `grpc-timeout`.
    told: Option<HeaderValue>,
    call: Option<Duration>,
}

/// How an attempt spent its time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
        Self { told: headers::get(headers, &timeout::GRPC_TIMEOUT).cloned(), call }
    }

    /// The limit, if there is one.
    pub fn limit(&self) -> Option<Duration> {
        self.told().or(self.call)
    }

    /// Whether the limit is that of an attempt, and the call has more time.
    pub fn is_of_attempt(&self) -> bool {
        let told = self.told();
        told.zip(self.call).is_some_and(|(told, call)| told + 2 * timeout::SLACK < call)
    }

    fn told(&self) -> Option<Duration> {
        self.told.as_ref().and_then(|told| timeout::read_timeout(told).ok())
    }
}

// === impl Spent ===

impl Spent {
    /// Whether all of the time that was given has passed.
    pub fn is_over(&self) -> bool {
        self.allowed.limit().is_some_and(|limit| timeout::is_why(limit, self.took))
    }

    /// Whether a server that has not answered in this time can be blamed for it.
    pub fn was_enough(&self) -> bool {
        let Some(limit) = self.allowed.limit() else { return true };
        // A server that gives up before that has its own reasons.
        self.allowed.is_of_attempt() || !self.is_over() || limit >= self.usual.unwrap_or(LEAST)
    }
}
