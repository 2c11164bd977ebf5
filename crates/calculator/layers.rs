//! The layers of a client.

use crate::endpoints::Endpoints;
use cinchona::{
    breaker::BreakerLayer,
    config::MessageLimitsLayer,
    core::Invalid,
    deadline::{AttemptTimeoutLayer, CallDeadlineLayer},
    fallback::FallbackLayer,
    idempotency::IdempotencyKeyLayer,
    observe::{AttemptLayer, CallLayer, Metrics},
    retry::RetryLayer,
    shed::{AdaptiveThrottleLayer, BulkheadLayer},
};

/// The layers, which can still be changed while a client that was made of them is running.
#[derive(Clone, Debug)]
pub struct Layers {
    /// What is counted of calls and attempts, and of the layers: see [`register`](Self::register).
    pub metrics: Metrics,
    /// Numbers and span of a call.
    pub call: CallLayer,
    /// The name of the call.
    pub key: IdempotencyKeyLayer,
    /// How large a message may be, where a service config says so.
    pub limits: MessageLimitsLayer,
    /// The call's deadline.
    pub deadline: CallDeadlineLayer,
    /// Second answers; there are none until they are set.
    pub fallback: FallbackLayer,
    /// The calls under way.
    pub bulkhead: BulkheadLayer,
    /// Retries and hedges.
    pub retry: RetryLayer,
    /// Numbers and span of an attempt.
    pub attempt: AttemptLayer,
    /// Spares a server that turns calls away; off until its switch is turned.
    pub throttle: AdaptiveThrottleLayer,
    /// The time limit of an attempt.
    pub timeout: AttemptTimeoutLayer,
    /// Leaves endpoints alone that fail.
    pub breaker: BreakerLayer,
    /// Measures the attempts at each endpoint, for a dashboard; `None` until one is wanted.
    pub watched: Option<Endpoints>,
}

// === impl Layers ===

impl Layers {
    /// Shows what they count among `metrics`. Who replaces one of them registers them again.
    ///
    /// # Errors
    /// When one of the names was registered as something else.
    pub fn register(&self) -> Result<(), Invalid> {
        let Self { metrics, fallback, bulkhead, retry, throttle, breaker, .. } = self;
        metrics.register(fallback, &[])?;
        metrics.register(bulkhead, &[])?;
        metrics.register(retry, &[])?;
        metrics.register(throttle, &[])?;
        metrics.register(breaker, &[])
    }
}
