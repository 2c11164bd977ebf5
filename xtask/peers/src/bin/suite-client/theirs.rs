//! tonic's channel as it is, and with the retries of tower-resilience.

use crate::calls::{Channel, Stack};
use bytes::Bytes;
use cinchona::core::BoxError;
use cinchona_peers::suite::{Settings, Task};
use h2::Reason;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::Value as Json;
use std::{error::Error, time::Duration};
use tonic::{
    Code, Status,
    body::Body,
    transport::{Channel as Connection, Endpoint},
};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_resilience_retry::{ExponentialBackoff, RetryLayer};

/// A request that can be cloned, so that it can be sent again: tonic's bodies cannot.
type Whole = Request<Full<Bytes>>;

/// The `retryPolicy` of a service config, which tower-resilience cannot read.
#[derive(Clone, Debug)]
struct Policy {
    max_attempts: usize,
    initial_backoff: Duration,
    max_backoff: Duration,
    multiplier: f64,
    codes: Vec<Code>,
}

pub(crate) async fn tonic(task: &Task, connect: bool) -> Result<Channel, BoxError> {
    let connection = connection(task, connect).await?;
    Ok(channel(task, Stack::new(connection.map_err(BoxError::from))))
}

pub(crate) async fn tower_resilience(task: &Task, connect: bool) -> Result<Channel, BoxError> {
    let connection = connection(task, connect).await?.map_err(BoxError::from);
    let Some(policy) = task.config.as_ref().and_then(Policy::of) else {
        return Ok(channel(task, Stack::new(connection)));
    };
    let backoff = ExponentialBackoff::new(policy.initial_backoff)
        .multiplier(policy.multiplier)
        .map_err(|error| format!("{error:?}"))?
        .max_interval(policy.max_backoff);
    let (errors, answers) = (policy.codes.clone(), policy.codes);
    let retry = RetryLayer::<Whole, Response<Body>, BoxError>::builder()
        .max_attempts(policy.max_attempts)
        .backoff(backoff)
        .retry_on(move |error: &BoxError| errors.contains(&code_of(error)))
        .retry_on_response(move |response: &Response<Body>| {
            let status = Status::from_header_map(response.headers());
            status.is_some_and(|status| answers.contains(&status.code()))
        })
        .build();
    let below = connection.map_request(|request: Whole| request.map(Body::new));
    let below = retry.layer(below);
    let whole = service_fn(move |request: Request<Body>| {
        let mut below = below.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = Full::new(body.collect().await?.to_bytes());
            below.ready().await?.call(Request::from_parts(head, body)).await
        }
    });
    Ok(channel(task, Stack::new(whole)))
}

fn channel(task: &Task, stack: Stack) -> Channel {
    Channel { stack, states: None, max_send_bytes: task.settings.max_send_bytes }
}

async fn connection(task: &Task, connect: bool) -> Result<Connection, BoxError> {
    let endpoints: Result<Vec<_>, _> =
        task.addresses.iter().map(|address| endpoint(address, &task.settings)).collect();
    let endpoints = endpoints?;
    match &endpoints[..] {
        [one] if connect => Ok(match one.connect().await {
            Ok(connection) => connection,
            Err(_) => one.connect_lazy(),
        }),
        [one] => Ok(one.connect_lazy()),
        many => Ok(Connection::balance_list(many.iter().cloned())),
    }
}

fn endpoint(address: &str, settings: &Settings) -> Result<Endpoint, BoxError> {
    let is_path = address.starts_with("unix:");
    let uri = if is_path { address.to_owned() } else { format!("http://{address}") };
    let mut endpoint = Endpoint::from_shared(uri)?;
    if let Some(ms) = settings.keepalive_ms {
        endpoint = endpoint.http2_keep_alive_interval(Duration::from_millis(ms));
    }
    if let Some(ms) = settings.keepalive_timeout_ms {
        endpoint = endpoint.keep_alive_timeout(Duration::from_millis(ms));
    }
    if let Some(bytes) = settings.max_header_bytes {
        endpoint = endpoint.http2_max_header_list_size(bytes);
    }
    Ok(endpoint)
}

/// What a user of it would take a failed connection for; what was reset says so itself.
fn code_of(error: &BoxError) -> Code {
    let mut cause: Option<&(dyn Error + 'static)> = Some(&**error);
    let mut reset = None;
    while let Some(error) = cause {
        reset = reset.or(error.downcast_ref::<h2::Error>().and_then(h2::Error::reason));
        cause = error.source();
    }
    match reset {
        Some(Reason::CANCEL) => Code::Cancelled,
        Some(Reason::ENHANCE_YOUR_CALM) => Code::ResourceExhausted,
        Some(Reason::INADEQUATE_SECURITY) => Code::PermissionDenied,
        Some(Reason::REFUSED_STREAM) | None => Code::Unavailable,
        Some(_) => Code::Internal,
    }
}

// === impl Policy ===

impl Policy {
    /// That of the first entry.
    fn of(config: &Json) -> Option<Self> {
        let policy = &config["methodConfig"][0]["retryPolicy"];
        let codes = policy["retryableStatusCodes"].as_array()?.iter();
        Some(Self {
            max_attempts: policy["maxAttempts"].as_u64()? as usize,
            initial_backoff: duration(&policy["initialBackoff"])?,
            max_backoff: duration(&policy["maxBackoff"])?,
            multiplier: policy["backoffMultiplier"].as_f64()?,
            codes: codes.filter_map(|code| named(code.as_str()?)).collect(),
        })
    }
}

/// `"0.25s"`.
fn duration(text: &Json) -> Option<Duration> {
    text.as_str()?.strip_suffix('s')?.parse().ok().map(Duration::from_secs_f64)
}

fn named(name: &str) -> Option<Code> {
    let is_it = |code: &Code| format!("{code:?}").eq_ignore_ascii_case(&name.replace('_', ""));
    (0..17).map(Code::from_i32).find(is_it)
}
