//! The client's stack: the library's, with the calculator's settings.

pub use cinchona::client::Layers;

use crate::{
    methods,
    pb::{calculator_client::CalculatorClient, store_client::StoreClient},
};
use bytes::Bytes;
use cinchona::{
    breaker::BreakerPolicy,
    client::{self, Part},
    core::{BoxError, Invalid, Mode, Rng},
    fallback::FallbackSettings,
    retry::{Budget, RetryPolicy},
    shed::BulkheadSettings,
};
use http_body::Body as HttpBody;
use std::time::Duration;
use tonic::{body::Body, client::GrpcService, transport::Channel};

/// A calculator client that withstands faults around it.
pub type Client<C = Channel> = CalculatorClient<Stack<C>>;

/// The layers around a channel; [`cinchona::client`] has their order, and why.
pub type Stack<C> = cinchona::Channel<C>;

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
    /// How many attempts all calls together may add; `None` for any number.
    pub budget: Option<Budget>,
    /// Whether each call tells what became of its attempts. Default no.
    pub explained: bool,
    /// When an endpoint is left alone for a while. Default: never.
    pub breaker: Option<BreakerPolicy>,
    /// How many calls are under way at most. Default 1,000.
    pub bulkhead: BulkheadSettings,
    /// Second answers. Default: none.
    pub fallback: FallbackSettings,
    /// Where the jitter comes from.
    pub rng: Rng,
    /// What the calls are to, in metrics. Default `calculator`.
    pub target: String,
}

/// Puts the layers around `channel`.
pub fn stack<C: Clone>(channel: C, layers: &Layers) -> Stack<C> {
    layers.around(channel)
}

/// A client over `channel`: a [`Balance`](cinchona::balance::Balance), or tonic's own.
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

impl Settings {
    /// The layers.
    ///
    /// # Errors
    /// When a number is outside its range.
    pub fn layers(self) -> Result<Layers, Invalid> {
        self.of_client().layers()
    }

    /// The library's settings, with these: what has an effect has a key, by which the calculator's
    /// server recognises it.
    fn of_client(self) -> client::Settings {
        let Self { deadline, timeout, retry, budget, explained, breaker, .. } = self;
        let Self { bulkhead, fallback, rng, target, .. } = self;
        let breaks = if breaker.is_some() { Mode::Enforce } else { Mode::Off };
        let mut settings = client::Settings::new(methods())
            .with_keys()
            .with_timeout(timeout)
            .with_retry(retry)
            .with_budget(budget)
            .with_breaker(breaker.unwrap_or_default())
            .with_mode(Part::Breaker, breaks)
            .with_bulkhead(bulkhead)
            .with_fallback(fallback)
            .with_rng(rng)
            .with_target(target);
        (settings.deadline, settings.explained) = (deadline, explained);
        settings
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            deadline: None,
            timeout: Duration::from_secs(2),
            retry: RetryPolicy::default(),
            budget: Some(Budget::default()),
            explained: false,
            breaker: None,
            bulkhead: BulkheadSettings::default(),
            fallback: FallbackSettings::new(methods()),
            rng: Rng::from_os(),
            target: "calculator".to_owned(),
        }
    }
}
