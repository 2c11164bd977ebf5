//! The clients that are compared.

use crate::{
    adapter::{Buffered, Whole},
    load::{Load, endpoint, plain},
    methods,
    pb::calculator_client::CalculatorClient,
};
use bytes::Bytes;
use cinchona::{
    balance::{Balance, Options},
    breaker::{BreakerLayer, BreakerPolicy},
    core::{BoxError, Target},
    deadline::{AttemptTimeoutLayer, CallDeadlineSettings},
    fallback::FallbackLayer,
    idempotency::IdempotencyKeyLayer,
    observe::{AttemptLayer, CallLayer, Metrics},
    retry::{RetryLayer, RetryPolicy},
    shed::BulkheadLayer,
};
use http::Response;
use http_body::Body as HttpBody;
use std::{future::Ready, sync::Arc, time::Duration};
use tonic::{
    Code,
    body::Body,
    client::GrpcService,
    transport::{Channel, Endpoint},
};
use tower::{ServiceBuilder, retry::Policy};
use tower_resilience_bulkhead::BulkheadLayer as TheirBulkhead;
use tower_resilience_circuitbreaker::CircuitBreakerLayer;
use tower_resilience_retry::RetryLayer as TheirRetry;
use tower_resilience_timelimiter::TimeLimiterLayer;

/// By name; the first is what the others are compared with.
pub const CLIENTS: [&str; 8] = [
    "tonic",
    "balancer of one endpoint",
    "tower: timeout, retry, limit",
    "tower-resilience: four layers",
    "core: deadline, retry, timeout",
    "observed: core, observe",
    "full: observed, key, fallback, bulkhead",
    "balanced: full, balancer, breaker",
];

/// What is measured of a client: what the process has used between its first calls, which connect,
/// and its last.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    pub load: Load,
    pub used: fn() -> u64,
}

/// tower's retry, of what failed without an answer.
#[derive(Clone, Copy, Debug)]
struct Thrice(u32);

const CALL: Duration = Duration::from_secs(600);
/// Long: a process under callgrind is slow, more so on a machine that has other work.
const ATTEMPT: Duration = Duration::from_secs(300);

/// Runs the client of that name against the server at `address`, and returns what was used.
///
/// # Errors
/// When there is no such name, or a call fails.
pub async fn run(name: &str, address: &str, job: Job) -> Result<u64, BoxError> {
    let endpoint = endpoint(address)?;
    match CLIENTS.iter().position(|client| *client == name) {
        Some(0) => job.run(plain(address)?).await,
        Some(1) => job.run(CalculatorClient::new(single(&endpoint)?)).await,
        Some(2) => of_tower(endpoint.connect_lazy(), job).await,
        Some(3) => of_tower_resilience(endpoint.connect_lazy(), job).await,
        Some(4) => core(single(&endpoint)?, job).await,
        Some(5) => observed(single(&endpoint)?, job).await,
        Some(6) => full(single(&endpoint)?, job).await,
        Some(7) => full(balanced(&endpoint)?, job).await,
        _ => Err(format!("clients: {CLIENTS:?}").into()),
    }
}

async fn of_tower(channel: Channel, job: Job) -> Result<u64, BoxError> {
    let stack = ServiceBuilder::new()
        .layer_fn(Buffered)
        .retry(Thrice(3))
        .timeout(ATTEMPT)
        .concurrency_limit(1000)
        .map_request(|request: Whole| request.map(Body::new))
        .service(channel);
    job.run(CalculatorClient::new(stack)).await
}

/// With their defaults, which take an error for a failure, but no status for one.
async fn of_tower_resilience(channel: Channel, job: Job) -> Result<u64, BoxError> {
    let limit = TimeLimiterLayer::builder().timeout_duration(ATTEMPT).build();
    let stack = ServiceBuilder::new()
        .layer_fn(Buffered)
        .layer(limit)
        .layer(TheirRetry::builder().max_attempts(3).build())
        .layer(CircuitBreakerLayer::builder().build()?)
        .layer(TheirBulkhead::builder().max_concurrent_calls(1000).build()?)
        .map_request(|request: Whole| request.map(Body::new))
        .service(channel);
    job.run(CalculatorClient::new(stack)).await
}

async fn core(below: Balance, job: Job) -> Result<u64, BoxError> {
    let stack = ServiceBuilder::new()
        .layer(CallDeadlineSettings::new().with_limit(CALL).layer())
        .layer(retry()?)
        .layer(AttemptTimeoutLayer::new(ATTEMPT))
        .service(below);
    job.run(CalculatorClient::new(stack)).await
}

async fn observed(below: Balance, job: Job) -> Result<u64, BoxError> {
    let metrics = Metrics::new(methods());
    let stack = ServiceBuilder::new()
        .layer(CallLayer::new(&metrics, "calculator"))
        .layer(CallDeadlineSettings::new().with_limit(CALL).layer())
        .layer(retry()?)
        .layer(AttemptLayer::new(&metrics, "calculator"))
        .layer(AttemptTimeoutLayer::new(ATTEMPT))
        .service(below);
    job.run(CalculatorClient::new(stack)).await
}

async fn full(below: Balance, job: Job) -> Result<u64, BoxError> {
    let metrics = Metrics::new(methods());
    let stack = ServiceBuilder::new()
        .layer(CallLayer::new(&metrics, "calculator"))
        .layer(IdempotencyKeyLayer::new(methods()))
        .layer(CallDeadlineSettings::new().with_limit(CALL).layer())
        .layer(FallbackLayer::new(methods()))
        .layer(BulkheadLayer::default())
        .layer(retry()?)
        .layer(AttemptLayer::new(&metrics, "calculator"))
        .layer(AttemptTimeoutLayer::new(ATTEMPT))
        .service(below);
    job.run(CalculatorClient::new(stack)).await
}

fn retry() -> Result<RetryLayer, BoxError> {
    let policy = RetryPolicy::default().with_codes([Code::Unavailable])?;
    Ok(RetryLayer::new(policy, methods()))
}

fn single(endpoint: &Endpoint) -> Result<Balance, BoxError> {
    Ok(Balance::new(vec![endpoint.uri().clone().into()], Options::of_one_endpoint())?)
}

fn balanced(endpoint: &Endpoint) -> Result<Balance, BoxError> {
    let breaker = BreakerLayer::new(BreakerPolicy::default());
    let gate = move |server: &Target| breaker.endpoint(server.uri.to_string());
    let options = Options { gate: Some(Arc::new(gate)), ..Options::default() };
    Ok(Balance::new(vec![endpoint.uri().clone().into()], options)?)
}

// === impl Job ===

impl Job {
    async fn run<C>(self, client: CalculatorClient<C>) -> Result<u64, BoxError>
    where
        C: GrpcService<Body> + Clone + Send + 'static,
        C::Error: Into<BoxError>,
        C::Future: Send,
        C::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
        <C::ResponseBody as HttpBody>::Error: Into<BoxError> + Send,
    {
        Load { calls: self.load.callers * 4, ..self.load }.run(&client).await?;
        let before = (self.used)();
        self.load.run(&client).await?;
        Ok((self.used)() - before)
    }
}

// === impl Thrice ===

impl<E> Policy<Whole, Response<Body>, E> for Thrice {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut Whole,
        result: &mut Result<Response<Body>, E>,
    ) -> Option<Ready<()>> {
        self.0 = self.0.checked_sub(1)?;
        result.is_err().then(|| std::future::ready(()))
    }

    fn clone_request(&mut self, request: &Whole) -> Option<Whole> {
        Some(request.clone())
    }
}
