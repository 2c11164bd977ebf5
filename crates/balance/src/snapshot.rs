//! An endpoint at some moment.

use crate::State;
use cinchona_core::Target;
use std::time::Duration;

/// An endpoint as it was when [`Balance::states`](crate::Balance::states) was asked.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Where it is.
    pub target: Target,
    /// The state of its connection.
    pub state: State,
    /// By which method it is ejected (`success_rate`, `failure_percentage` or
    /// `consecutive_failures`), and for how long at least; the next comparison of the endpoints
    /// after that readmits it ([`OutlierDetection::interval`](crate::OutlierDetection::interval)).
    pub ejected: Option<(&'static str, Duration)>,
    /// Calls that it has; one counts until its response body has ended.
    pub in_flight: usize,
    /// The peak EWMA of its latency as of its last answer: a failure that comes fast counts for
    /// 5 s. `None` before the first.
    pub latency: Option<Duration>,
    /// Calls that it has ended since it was found. Those that their caller gave up count only if
    /// their `grpc-timeout` had passed.
    pub calls: u64,
    /// How many of them were not OK, whatever the code (gRFC A50).
    pub failures: u64,
}
