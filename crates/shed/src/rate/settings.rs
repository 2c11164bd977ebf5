//! The settings of a quota.

use cinchona_core::{Invalid, Switch};
use cinchona_plumbing::{Callback, warn_of_unknown_peer};
use http::{Extensions, HeaderMap, HeaderName};
use std::{num::NonZeroU32, sync::Arc};
use tonic::transport::server::TcpConnectInfo;

/// Identifies the caller of a request.
pub(super) type Caller = dyn Fn(&HeaderMap, &Extensions) -> String + Send + Sync;

/// The settings of a [`RateLimitLayer`](super::RateLimitLayer). By default 100 calls a second, and
/// bursts of as many.
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimitSettings {
    pub(super) quota: (NonZeroU32, NonZeroU32),
    pub(super) callers: Callers,
    pub(super) switch: Option<Switch>,
}

/// How callers are told apart.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Callers {
    ByPeer,
    ByHeader(HeaderName),
    By(Callback<Caller>),
}

// === impl RateLimitSettings ===

impl RateLimitSettings {
    /// Allows each caller `per_second` calls in the long run, and bursts of up to `burst`; both at
    /// least 1. A caller is an IP address by default.
    ///
    /// # Errors
    /// When one of them is 0.
    pub fn new(per_second: u32, burst: u32) -> Result<Self, Invalid> {
        let at_least_1 = |field, value| {
            NonZeroU32::new(value).ok_or_else(|| Invalid::new(field, value, "at least 1"))
        };
        let quota = (at_least_1("per_second", per_second)?, at_least_1("burst", burst)?);
        Ok(Self { quota, ..Self::default() })
    }

    /// Distinguishes callers by this header; a caller without it by its address.
    ///
    /// The header must have been verified before, by a layer outside of this one: a value that
    /// anyone can choose identifies nobody. As a second defence, each call with a new value also
    /// counts against the quota of its address, and the value is not remembered beyond that quota:
    /// so an address can invent only as many names a second as it may make calls.
    #[must_use]
    pub fn by_header(self, name: HeaderName) -> Self {
        Self { callers: Callers::ByHeader(name), ..self }
    }

    /// Distinguishes callers by the result of `caller` for a request. A call for which it panics is
    /// refused with `INTERNAL`.
    #[must_use]
    pub fn by(
        self,
        caller: impl Fn(&HeaderMap, &Extensions) -> String + Send + Sync + 'static,
    ) -> Self {
        Self { callers: Callers::By(Callback(Arc::new(caller))), ..self }
    }

    /// Sets the switch that decides whether calls are refused, only counted, or passed through.
    #[must_use]
    pub fn with_switch(self, switch: Switch) -> Self {
        Self { switch: Some(switch), ..self }
    }
}

impl Default for RateLimitSettings {
    fn default() -> Self {
        let hundred = NonZeroU32::MIN.saturating_add(99);
        Self { quota: (hundred, hundred), callers: Callers::ByPeer, switch: None }
    }
}

// === impl Callers ===

impl Callers {
    pub(super) fn caller(&self) -> Arc<Caller> {
        match self {
            Self::ByPeer => Arc::new(peer),
            Self::By(caller) => caller.0.clone(),
            Self::ByHeader(name) => {
                let name = name.clone();
                Arc::new(move |headers, extensions| match headers.get(&name) {
                    Some(value) => String::from_utf8_lossy(value.as_bytes()).into_owned(),
                    None => peer(headers, extensions),
                })
            }
        }
    }
}

/// The address of the peer, without its port.
pub(super) fn peer(_: &HeaderMap, extensions: &Extensions) -> String {
    let address = extensions.get().and_then(|info: &TcpConnectInfo| info.remote_addr());
    address.map_or_else(
        || {
            warn_of_unknown_peer();
            String::new()
        },
        |address| address.ip().to_string(),
    )
}
