//! The settings of a dedup layer.

use crate::{authorize::Authorize, caller::Callers};
use cinchona_core::{IDEMPOTENCY_KEY, Methods, PerMethod, Switch};
use cinchona_policy::dedup::{Guarantee, InFlight};
use http::{HeaderValue, Request};
use std::{fmt, time::Duration};
use tonic::Code;

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) methods: Methods,
    pub(crate) in_flight: InFlight,
    pub(crate) guarantee: Guarantee,
    pub(crate) fail_open: bool,
    pub(crate) required: PerMethod<bool>,
    pub(crate) fragments: PerMethod<Vec<u8>>,
    pub(crate) key_alone: PerMethod<bool>,
    pub(crate) callers: Callers,
    pub(crate) authorize: Option<Authorize>,
    /// The codes by which handlers declare that they have not begun.
    pub(crate) released: Vec<Code>,
    pub(crate) lease: Duration,
    pub(crate) request_limit: usize,
    pub(crate) record_limit: usize,
    pub(crate) domain: Option<&'static HeaderValue>,
    pub(crate) switch: Switch,
}

// === impl Settings ===

impl Settings {
    /// Under the store's own name, if it has one that is a header value.
    pub(crate) fn new(methods: Methods, domain: Option<&str>) -> Self {
        let random = || lasting(&uuid::Uuid::new_v4().simple().to_string());
        let domain = domain.and_then(lasting);
        Self {
            methods,
            in_flight: InFlight::default(),
            guarantee: Guarantee::default(),
            fail_open: false,
            required: PerMethod::new(),
            fragments: PerMethod::new(),
            key_alone: PerMethod::new(),
            callers: Callers::default(),
            authorize: None,
            released: Vec::new(),
            lease: Duration::from_secs(30),
            request_limit: 4 << 20,
            record_limit: 1 << 20,
            domain: domain.or_else(random),
            switch: Switch::default(),
        }
    }

    /// Whether a call may have a key, or must have one.
    pub(crate) fn concern<B>(&self, request: &Request<B>) -> bool {
        let path = request.uri().path();
        let may_have_one = || {
            request.headers().contains_key(IDEMPOTENCY_KEY)
                || self.methods.request_id_field(path).is_some()
                || self.required.get(path) == Some(&true)
        };
        self.methods.is_unary_with_effects(path) && may_have_one()
    }
}

/// The header value, leaked: there are few, all answers have them, and a reference count would be
/// contended by all threads.
pub(crate) fn lasting(domain: &str) -> Option<&'static HeaderValue> {
    HeaderValue::from_str(domain).ok()?;
    let domain: &'static str = Box::leak(domain.into());
    Some(Box::leak(Box::new(HeaderValue::from_static(domain))))
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("in_flight", &self.in_flight)
            .field("guarantee", &self.guarantee)
            .field("fail_open", &self.fail_open)
            .field("callers", &self.callers)
            .field("lease", &self.lease)
            .field("domain", &self.domain)
            .finish_non_exhaustive()
    }
}
