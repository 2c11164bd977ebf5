//! What a dedup layer is set to.

use cinchona_core::{Methods, PerMethod, Safety, Switch};
use http::{Extensions, HeaderMap, HeaderValue};
use std::{fmt, sync::Arc, time::Duration};

/// What happens to a call while another with the same key is being executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InFlight {
    /// It waits for the same answer, within its own deadline.
    #[default]
    Join,
    /// `ABORTED`, and `grpc-retry-pushback-ms` says to come back after so long.
    Reject(Duration),
}

/// What happens after an execution of which nobody knows how far it came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Guarantee {
    /// Its failure is kept: the call is not executed again under this key.
    #[default]
    AtMostOnce,
    /// The next attempt is executed. Over a [`State`](crate::State) this is *exactly once*, if
    /// nothing else is changed: what has no record has had no effect, and a late execution can
    /// change nothing.
    AtLeastOnce,
}

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) methods: Methods,
    pub(crate) in_flight: InFlight,
    pub(crate) guarantee: Guarantee,
    pub(crate) fail_open: bool,
    pub(crate) required: PerMethod<bool>,
    pub(crate) fragments: PerMethod<Vec<u8>>,
    pub(crate) caller: Option<Caller>,
    pub(crate) lease: Duration,
    pub(crate) request_limit: usize,
    pub(crate) record_limit: usize,
    pub(crate) domain: Option<HeaderValue>,
    pub(crate) switch: Switch,
}

pub(crate) type Caller = Arc<dyn Fn(&HeaderMap, &Extensions) -> Option<String> + Send + Sync>;

// === impl Settings ===

impl Settings {
    /// Under the name of the store's own, if it has one that is a header value.
    pub(crate) fn new(methods: Methods, domain: Option<&str>) -> Self {
        let random = || HeaderValue::from_str(&uuid::Uuid::new_v4().simple().to_string()).ok();
        let domain = domain.and_then(|domain| HeaderValue::from_str(domain).ok());
        Self {
            methods,
            in_flight: InFlight::default(),
            guarantee: Guarantee::default(),
            fail_open: false,
            required: PerMethod::new(),
            fragments: PerMethod::new(),
            caller: None,
            lease: Duration::from_secs(30),
            request_limit: 4 << 20,
            record_limit: 1 << 20,
            domain: domain.or_else(random),
            switch: Switch::default(),
        }
    }

    pub(crate) fn concern(&self, path: &str) -> bool {
        self.methods.is_unary(path) && self.methods.safety(path) != Safety::NoSideEffects
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("in_flight", &self.in_flight)
            .field("guarantee", &self.guarantee)
            .field("fail_open", &self.fail_open)
            .field("lease", &self.lease)
            .field("domain", &self.domain)
            .finish_non_exhaustive()
    }
}
