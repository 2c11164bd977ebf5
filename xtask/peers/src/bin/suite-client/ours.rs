//! cinchona's whole stack, with what gRPC does not have set so that it takes no part: no budget of
//! retries, and no limit of an attempt.

use crate::calls::{Channel, Stack};
use cinchona::{
    balance::{Balance, Options},
    breaker::{BreakerLayer, BreakerPolicy},
    config::{Client, MessageLimitsLayer, ServiceConfig},
    core::{BoxError, Methods, Target},
    deadline::{AttemptTimeoutLayer, CallDeadlineLayer},
    fallback::FallbackLayer,
    idempotency::IdempotencyKeyLayer,
    observe::{AttemptLayer, CallLayer, Metrics},
    retry::{RetryPolicy, RetrySettings},
    shed::BulkheadLayer,
};
use cinchona_peers::suite::{Settings, Task};
use std::{sync::Arc, time::Duration};
use tonic::body::Body;
use tower::{ServiceBuilder, ServiceExt};

/// What it is able to do that tonic is not.
pub(crate) const ABILITIES: [&str; 11] = [
    "retry",
    "previous",
    "pushback",
    "retry-info",
    "throttling",
    "hedging",
    "wait-for-ready",
    "service-config",
    "balancing",
    "message-limits",
    "transparent",
];

pub(crate) fn channel(task: &Task) -> Result<Channel, BoxError> {
    let config = task.config.as_ref().map(ToString::to_string);
    let config = ServiceConfig::parse(config.as_deref().unwrap_or("{}"))?;
    let balance = Balance::new(targets(task)?, config.balance(options(task)))?;
    let watched = balance.clone();
    let states = move || watched.states().iter().map(|endpoint| endpoint.state).collect();
    Ok(Channel {
        stack: stack(balance, &config)?,
        states: Some(Arc::new(states)),
        max_send_bytes: task.settings.max_send_bytes,
    })
}

fn targets(task: &Task) -> Result<Vec<Target>, BoxError> {
    let target = |address: &String| {
        let is_path = address.starts_with("unix:");
        let target = if is_path { address.clone() } else { format!("http://{address}") };
        Ok(target.parse()?)
    };
    task.addresses.iter().map(target).collect()
}

fn options(task: &Task) -> Options {
    let Settings { keepalive_ms, keepalive_timeout_ms, max_header_bytes, .. } = task.settings;
    let default =
        if task.addresses.len() == 1 { Options::of_one_endpoint() } else { Options::default() };
    let breaker = BreakerLayer::new(BreakerPolicy::default());
    let keep_alive = keepalive_ms.map(|after| {
        let within = keepalive_timeout_ms.unwrap_or(20_000);
        (Duration::from_millis(after), Duration::from_millis(within))
    });
    Options {
        keep_alive,
        max_header_list_size: max_header_bytes.unwrap_or(default.max_header_list_size),
        gate: Some(Arc::new(move |server: &Target| breaker.endpoint(server.to_string()))),
        ..default
    }
}

fn stack(balance: Balance, config: &ServiceConfig) -> Result<Stack, BoxError> {
    let methods = Methods::all_idempotent();
    let metrics = Metrics::new(methods.clone());
    let (deadline, limits) = (CallDeadlineLayer::new(), MessageLimitsLayer::new());
    let retry =
        RetrySettings::new(RetryPolicy::default(), methods.clone()).with_budget(None).layer();
    config.apply_to(Client::new(&deadline, &retry).with_limits(&limits))?;
    let stack = ServiceBuilder::new()
        .layer(CallLayer::new(&metrics, "suite"))
        .layer(IdempotencyKeyLayer::new(methods.clone()))
        .layer(limits)
        .layer(deadline)
        .layer(FallbackLayer::new(methods))
        .layer(BulkheadLayer::default())
        .layer(retry)
        .layer(AttemptLayer::new(&metrics, "suite"))
        .layer(AttemptTimeoutLayer::new(Duration::MAX))
        .service(balance);
    let stack =
        ServiceExt::<http::Request<Body>>::map_response(stack, |response| response.map(Body::new));
    Ok(Stack::new(stack))
}
