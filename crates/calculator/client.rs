//! The client's stack.

use crate::{
    methods,
    pb::{calculator_client::CalculatorClient, store_client::StoreClient},
};
use cinchona::{
    core::Rng,
    deadline::{AttemptTimeout, AttemptTimeoutLayer, CallDeadline, CallDeadlineLayer},
    idempotency::{IdempotencyKey, IdempotencyKeyLayer},
    retry::{Retry, RetryLayer, RetryPolicy},
};
use std::time::Duration;
use tonic::transport::Channel;
use tower::ServiceBuilder;

/// A calculator client that withstands faults around it.
pub type Client<C = Channel> = CalculatorClient<Stack<C>>;

/// The layers around a channel, outermost first.
pub type Stack<C> = IdempotencyKey<CallDeadline<Retry<AttemptTimeout<C>>>>;

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
    /// Retries and hedges.
    pub retry: RetryLayer,
    /// The time limit of an attempt.
    pub attempt: AttemptTimeoutLayer,
}

/// Puts the layers around `channel`.
pub fn stack<C: Clone>(channel: C, layers: &Layers) -> Stack<C> {
    let Layers { key, deadline, retry, attempt } = layers.clone();
    ServiceBuilder::new()
        // Around the retries, so that the server recognises them.
        .layer(key)
        // Whatever goes on below, the caller gets an answer in time.
        .layer(deadline)
        // Around the timeout, so that an attempt which takes too long is one that failed.
        .layer(retry)
        // Innermost: waiting for the channel, and for a connection, counts as well.
        .layer(attempt)
        .service(channel)
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
            rng: Rng::from_os(),
        }
    }
}

// === impl Layers ===

impl From<Settings> for Layers {
    fn from(settings: Settings) -> Self {
        let Settings { deadline, timeout, retry, rng } = settings;
        let whole = CallDeadlineLayer::new();
        Self {
            key: IdempotencyKeyLayer::new(methods()),
            deadline: deadline.map_or(whole.clone(), |limit| whole.with_limit(limit)),
            // What has an effect has a key.
            retry: RetryLayer::new(retry, methods().keyed()).with_rng(rng),
            attempt: AttemptTimeoutLayer::new(timeout),
        }
    }
}
