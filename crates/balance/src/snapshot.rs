//! An endpoint at some moment.

use crate::State;
use cinchona_core::Target;
use std::time::Duration;

/// The state of an endpoint when [`Balance::states`](crate::Balance::states) was called.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Its address.
    pub target: Target,
    /// The state of its connection.
    pub state: State,
    /// The method of its ejection (`success_rate`, `failure_percentage` or `consecutive_failures`),
    /// and the least remaining time; the next comparison of the endpoints after that readmits it
    /// ([`OutlierDetection::interval`](crate::OutlierDetection::interval)).
    pub ejected: Option<(&'static str, Duration)>,
    /// Calls in flight; one counts until its response body has ended.
    pub in_flight: usize,
    /// The peak EWMA of its latency as of its last answer: a fast failure counts as 5 s. `None`
    /// before the first.
    pub latency: Option<Duration>,
    /// Calls that have ended since it was found. Calls dropped by their callers count only if their
    /// `grpc-timeout` had passed.
    pub calls: u64,
    /// How many of them were not OK, whatever the code (gRFC A50).
    pub failures: u64,
}
