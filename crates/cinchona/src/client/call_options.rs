//! The options of one call.

use cinchona_core::{IDEMPOTENCY_KEY, Invalid};
use cinchona_deadline::AttemptLimit;
use cinchona_plumbing::Avoid;
use cinchona_retry::{HedgePolicy, Policy};
use http::{HeaderValue, Request};
use std::{sync::Arc, time::Duration};

/// The options of one call, as an extension of its request.
///
/// | option | effect on the call | layer |
/// |---|---|---|
/// | [`once`](Self::once) | is not retried | `Retry` |
/// | [`with_policy`](Self::with_policy) | has another policy than its method | `Retry` |
/// | [`with_hedge`](Self::with_hedge) | is hedged, if it may be executed twice | `Retry` |
/// | [`with_attempt_limit`](Self::with_attempt_limit) | has this limit for each attempt | `Timeout`
///   |
/// | [`without_attempt_limit`](Self::without_attempt_limit) | has no limit of attempts but its
///   deadline | `Timeout` |
/// | [`with_key`](Self::with_key) | has this `idempotency-key` | none |
/// | [`avoiding`](Self::avoiding) | goes to another endpoint, if there is one | the balancer |
/// | `Request::set_timeout` | has this deadline, or an earlier one of its settings | `Deadline` |
///
/// ```
/// use cinchona::client::CallOptions;
/// use std::time::Duration;
///
/// let mut request = tonic::Request::new(());
/// request.extensions_mut().insert(
///     CallOptions::new().once().with_attempt_limit(Duration::from_secs(3)).with_key("order-7")?,
/// );
/// # Ok::<_, cinchona::core::Invalid>(())
/// ```
///
/// A layer that is off ignores its options.
#[derive(Clone, Debug, Default)]
pub struct CallOptions {
    policy: Option<Policy>,
    attempt_limit: Option<AttemptLimit>,
    key: Option<HeaderValue>,
    avoid: Option<Avoid>,
}

// === impl CallOptions ===

impl CallOptions {
    /// No options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Does not retry and does not hedge.
    #[must_use]
    pub fn once(self) -> Self {
        self.with_policy(Policy::default())
    }

    /// Retries, or hedges, by `policy`. A method that may not be executed twice is not hedged, nor
    /// retried if it may have been executed.
    #[must_use]
    pub fn with_policy(self, policy: impl Into<Policy>) -> Self {
        Self { policy: Some(policy.into()), ..self }
    }

    /// Hedges by `policy`.
    #[must_use]
    pub fn with_hedge(self, policy: HedgePolicy) -> Self {
        self.with_policy(policy)
    }

    /// Limits each attempt. Any duration is valid; `Duration::MAX` is as long as the call.
    #[must_use]
    pub fn with_attempt_limit(self, limit: Duration) -> Self {
        Self { attempt_limit: Some(AttemptLimit(Some(limit))), ..self }
    }

    /// Lets each attempt take as long as the call.
    #[must_use]
    pub fn without_attempt_limit(self) -> Self {
        Self { attempt_limit: Some(AttemptLimit(None)), ..self }
    }

    /// Sends `key` as `idempotency-key`, by which the server recognises a repetition, also one by
    /// another call or another process.
    ///
    /// # Errors
    /// When it is empty, not visible ASCII, or longer than 255 bytes: no server of ours takes more.
    pub fn with_key(self, key: &str) -> Result<Self, Invalid> {
        let allowed = "1 to 255 bytes of visible ASCII";
        let refused = || Invalid::new("key", format!("{key:?}"), allowed);
        let fits = (1..=255).contains(&key.len());
        let is_visible = fits && key.bytes().all(|byte| byte.is_ascii_graphic());
        let mut value =
            HeaderValue::from_str(key).ok().filter(|_| is_visible).ok_or_else(refused)?;
        value.set_sensitive(true);
        Ok(Self { key: Some(value), ..self })
    }

    /// Uses no endpoint of this name, in the form of `core::Attempt::endpoint` (`10.0.0.1:50051`),
    /// while another is usable.
    #[must_use]
    pub fn avoiding(self, endpoint: impl Into<Arc<str>>) -> Self {
        Self { avoid: Some(Avoid(endpoint.into())), ..self }
    }
}

/// Adds each layer's options to the request.
pub(super) fn spread<B>(request: &mut Request<B>) {
    let Some(options) = request.extensions_mut().remove::<CallOptions>() else { return };
    let CallOptions { policy, attempt_limit, key, avoid } = options;
    if let Some(key) = key {
        request.headers_mut().insert(IDEMPOTENCY_KEY, key);
    }
    let extensions = request.extensions_mut();
    policy.into_iter().for_each(|policy| _ = extensions.insert(policy));
    attempt_limit.into_iter().for_each(|limit| _ = extensions.insert(limit));
    avoid.into_iter().for_each(|avoid| _ = extensions.insert(avoid));
}
