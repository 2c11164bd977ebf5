//! The client's stack.

use crate::{
    methods,
    pb::{calculator_client::CalculatorClient, store_client::StoreClient},
    watch::endpoints::Endpoints,
};
use cinchona::{
    balance::{self, Balance},
    breaker::{BreakerLayer, BreakerPolicy},
    core::{Discover, Invalid, Mode, Rng, Switch, Target},
    deadline::{AttemptTimeout, AttemptTimeoutLayer, CallDeadline, CallDeadlineLayer},
    fallback::{Fallback, FallbackLayer},
    idempotency::{IdempotencyKey, IdempotencyKeyLayer},
    retry::{Retry, RetryLayer, RetryPolicy},
    shed::{Bulkhead, BulkheadLayer, Throttle, ThrottleLayer},
};
use std::{sync::Arc, time::Duration};
use tonic::transport::Channel;
use tower::ServiceBuilder;

/// A calculator client that withstands faults around it.
pub type Client<C = Channel> = CalculatorClient<Stack<C>>;

/// The layers around a channel, outermost first.
pub type Stack<C> =
    IdempotencyKey<CallDeadline<Fallback<Bulkhead<Retry<Throttle<AttemptTimeout<C>>>>>>>;

/// What the layers are set to.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a call may take in all, unless it says so itself (`Request::set_timeout`); `None`
    /// for as long as its attempts take.
    pub deadline: Option<Duration>,
    /// How long one attempt may take. Default 2 s.
    pub timeout: Duration,
    /// What is tried again, how often, and after how long.
    pub retry: RetryPolicy,
    /// When an endpoint is left alone for a while. Default: never.
    pub breaker: Option<BreakerPolicy>,
    /// How many calls are under way at most. Default 1,000.
    pub bulkhead: BulkheadLayer,
    /// Where the jitter comes from.
    pub rng: Rng,
}

/// The layers, which can still be changed while a client that was made of them is running.
#[derive(Clone, Debug)]
pub struct Layers {
    /// The name of the call.
    pub key: IdempotencyKeyLayer,
    /// The call's deadline.
    pub deadline: CallDeadlineLayer,
    /// Second answers; there are none until they are set.
    pub fallback: FallbackLayer,
    /// The calls under way.
    pub bulkhead: BulkheadLayer,
    /// Retries and hedges.
    pub retry: RetryLayer,
    /// Spares a server that turns calls away; off until its switch is turned.
    pub throttle: ThrottleLayer,
    /// The time limit of an attempt.
    pub attempt: AttemptTimeoutLayer,
    /// Leaves endpoints alone that fail.
    pub breaker: BreakerLayer,
    /// Measures the attempts at each endpoint, for a dashboard; `None` until one is wanted.
    pub watched: Option<Endpoints>,
}

/// Puts the layers around `channel`.
pub fn stack<C: Clone>(channel: C, layers: &Layers) -> Stack<C> {
    let Layers { key, deadline, fallback, bulkhead, retry, throttle, attempt, .. } = layers.clone();
    ServiceBuilder::new()
        // Around the retries, so that the server recognises them.
        .layer(key)
        // Whatever goes on below, the caller gets an answer in time.
        .layer(deadline)
        // Around the retries: the second answer is for when they have given up.
        .layer(fallback)
        // Waits between attempts count as well: they too hold what the caller has.
        .layer(bulkhead)
        // Around the timeout, so that an attempt which takes too long is one that failed.
        .layer(retry)
        // Within the retries, since each of them is a request to the server.
        .layer(throttle)
        // Innermost: waiting for the channel, and for a connection, counts as well.
        .layer(attempt)
        .service(channel)
}

/// A channel over all servers, each behind a breaker of its own: who fails is not asked.
///
/// # Errors
/// When an option is outside its range.
///
/// # Panics
/// Outside a tokio runtime.
pub fn endpoints(
    servers: impl Discover,
    layers: &Layers,
    options: balance::Options,
) -> Result<Balance, Invalid> {
    let (breaker, watched) = (layers.breaker.clone(), layers.watched.clone());
    let gate = move |server: &Target| {
        let gate = breaker.endpoint(server.uri.to_string());
        watched.iter().fold(gate, |gate, watched| watched.gate(server, gate))
    };
    Balance::new(servers, balance::Options { gate: Some(Arc::new(gate)), ..options })
}

/// A client over `channel`.
pub fn client(channel: Channel, layers: &Layers) -> Client {
    CalculatorClient::new(stack(channel, layers))
}

/// A client of the store beside the calculator.
pub fn store(channel: Channel, layers: &Layers) -> StoreClient<Stack<Channel>> {
    StoreClient::new(stack(channel, layers))
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            deadline: None,
            timeout: Duration::from_secs(2),
            retry: RetryPolicy::default(),
            breaker: None,
            bulkhead: BulkheadLayer::default(),
            rng: Rng::from_os(),
        }
    }
}

// === impl Layers ===

impl From<Settings> for Layers {
    fn from(settings: Settings) -> Self {
        let Settings { deadline, timeout, retry, breaker, bulkhead, rng } = settings;
        let whole = CallDeadlineLayer::new();
        let off = || Switch::new(Mode::Off);
        let breaks = breaker.map_or_else(off, |_| Switch::default());
        let breaker = BreakerLayer::new(breaker.unwrap_or_default());
        Self {
            key: IdempotencyKeyLayer::new(methods()),
            deadline: deadline.map_or(whole.clone(), |limit| whole.with_limit(limit)),
            fallback: FallbackLayer::new(methods()),
            bulkhead,
            // What has an effect has a key.
            retry: RetryLayer::new(retry, methods().keyed()).with_rng(rng.clone()),
            throttle: ThrottleLayer::default().with_switch(off()).with_rng(rng.clone()),
            attempt: AttemptTimeoutLayer::new(timeout),
            breaker: breaker.with_rng(rng).with_switch(breaks),
            watched: None,
        }
    }
}
