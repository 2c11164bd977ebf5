//! The client's stack.

pub use crate::layers::Layers;

use crate::{
    methods,
    pb::{calculator_client::CalculatorClient, store_client::StoreClient},
};
use bytes::Bytes;
use cinchona::{
    balance::{self, Balance},
    breaker::{BreakerLayer, BreakerPolicy},
    config::{LimitMessages, MessageLimitsLayer},
    core::{BoxError, Discover, Invalid, Mode, Rng, Switch, Target},
    deadline::{AttemptTimeout, AttemptTimeoutLayer, CallDeadline, CallDeadlineLayer},
    fallback::{Fallback, FallbackLayer},
    idempotency::{IdempotencyKey, IdempotencyKeyLayer},
    observe::{AttemptLayer, CallLayer, Metrics, Observed},
    retry::{Ledger, Retry, RetryLayer, RetryPolicy},
    shed::{AdaptiveThrottle, AdaptiveThrottleLayer, Bulkhead, BulkheadLayer},
};
use cinchona_plumbing::cause::find_cause;
use http::Extensions;
use http_body::Body as HttpBody;
use std::{error::Error, sync::Arc, time::Duration};
use tonic::{body::Body, client::GrpcService, transport::Channel};
use tower::ServiceBuilder;

/// A calculator client that withstands faults around it.
pub type Client<C = Channel> = CalculatorClient<Stack<C>>;

/// The layers around a channel, outermost first.
pub type Stack<C> = Observed<
    IdempotencyKey<LimitMessages<CallDeadline<Fallback<Bulkhead<Retry<Observed<Attempt<C>>>>>>>>,
>;

/// Those of them that an attempt goes through.
type Attempt<C> = AdaptiveThrottle<AttemptTimeout<C>>;

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
    /// What the calls are to, in metrics. Default `calculator`.
    pub target: String,
}

/// Puts the layers around `channel`.
pub fn stack<C: Clone>(channel: C, layers: &Layers) -> Stack<C> {
    let Layers { call, key, limits, deadline, fallback, bulkhead, .. } = layers.clone();
    let Layers { retry, attempt, throttle, timeout, .. } = layers.clone();
    ServiceBuilder::new()
        // Outermost: sees what the application sees.
        .layer(call)
        // Around the retries, so that the server recognises them.
        .layer(key)
        // Around the retries: what is too large is so each time.
        .layer(limits)
        // Whatever goes on below, the caller gets an answer in time.
        .layer(deadline)
        // Around the retries: the second answer is for when they have given up.
        .layer(fallback)
        // Waits between attempts count as well: they too hold what the caller has.
        .layer(bulkhead)
        // Around the timeout, so that an attempt which takes too long is one that failed.
        .layer(retry)
        // Within the retries, so that each of them is seen.
        .layer(attempt)
        // Within the retries, since each of them is a request to the server.
        .layer(throttle)
        // Innermost: waiting for the channel, and for a connection, counts as well.
        .layer(timeout)
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
        let gate = breaker.endpoint(server.to_string());
        watched.iter().fold(gate, |gate, watched| watched.gate(server, gate))
    };
    Balance::new(servers, balance::Options { gate: Some(Arc::new(gate)), ..options })
}

/// A client over `channel`: a [`Balance`], or tonic's own.
pub fn client<C: Clone>(channel: C, layers: &Layers) -> Client<C>
where
    Stack<C>: GrpcService<Body, ResponseBody: HttpBody<Data = Bytes, Error: Into<BoxError> + Send>>,
    <Stack<C> as GrpcService<Body>>::ResponseBody: Send + 'static,
{
    CalculatorClient::new(stack(channel, layers))
}

/// A client of the store beside the calculator.
pub fn store<C: Clone>(channel: C, layers: &Layers) -> StoreClient<Stack<C>>
where
    Stack<C>: GrpcService<Body, ResponseBody: HttpBody<Data = Bytes, Error: Into<BoxError> + Send>>,
    <Stack<C> as GrpcService<Body>>::ResponseBody: Send + 'static,
{
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
            target: "calculator".to_owned(),
        }
    }
}

// === impl Layers ===

impl From<Settings> for Layers {
    fn from(settings: Settings) -> Self {
        let Settings { deadline, timeout, retry, breaker, bulkhead, rng, target } = settings;
        let whole = CallDeadlineLayer::new();
        let off = || Switch::new(Mode::Off);
        let breaks = breaker.map_or_else(off, |_| Switch::default());
        let breaker = BreakerLayer::new(breaker.unwrap_or_default());
        let metrics = Metrics::new(methods());
        let layers = Self {
            call: CallLayer::new(&metrics, &target).with_story(stopped),
            key: IdempotencyKeyLayer::new(methods()),
            limits: MessageLimitsLayer::new(),
            deadline: deadline.map_or(whole.clone(), |limit| whole.with_limit(limit)),
            fallback: FallbackLayer::new(methods()),
            bulkhead,
            // What has an effect has a key.
            retry: RetryLayer::new(retry, methods().keyed()).with_rng(rng.clone()),
            throttle: AdaptiveThrottleLayer::default().with_switch(off()).with_rng(rng.clone()),
            attempt: AttemptLayer::new(&metrics, &target),
            timeout: AttemptTimeoutLayer::new(timeout),
            breaker: breaker.with_rng(rng).with_switch(breaks),
            watched: None,
            metrics,
        };
        let registered = layers.register();
        debug_assert!(registered.is_ok(), "the names are all different: {registered:?}");
        layers
    }
}

/// Why a call was not tried again.
fn stopped(outcome: Result<&Extensions, &(dyn Error + 'static)>) -> Option<String> {
    let ledger = match outcome {
        Ok(extensions) => extensions.get::<Ledger>(),
        Err(error) => find_cause::<Ledger>(error),
    };
    ledger.map(|ledger| ledger.stopped().to_string())
}
