//! Endpoints as they are out there: other gRPC servers, a resolver, a network that loses hosts,
//! processes that are killed, stopped and drained.

mod goaway;
mod lasting;
mod losing;
mod many;
mod resolver;
mod sockets;
mod vanished;

use crate::{MS, SECOND};
use calculator::pb::{BinaryOperation, RangeRequest, calculator_client::CalculatorClient};
use cinchona::{
    balance::{Balance, Options},
    core::{BoxError, Target},
};
use std::time::Duration;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tonic::{Code, Request, Status, body::Body, client::GrpcService};

/// A call: when it was to begin, how long after that it ended, and by which failure.
#[derive(Clone, Debug)]
struct Seen {
    at: Instant,
    took: Duration,
    failure: Option<(Code, String)>,
}

/// A client that makes a call, whatever is around its channel.
trait Channel:
    GrpcService<Body, Future: Send, Error: Into<BoxError>, ResponseBody: Readable>
    + Clone
    + Send
    + 'static
{
}

/// A body that a tonic client can read.
trait Readable:
    http_body::Body<Data = bytes::Bytes, Error: Into<BoxError> + Send> + Send + 'static
{
}

impl<B> Readable for B where
    B: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError> + Send> + Send + 'static
{
}

impl<C> Channel for C where
    C: GrpcService<Body, Future: Send, Error: Into<BoxError>, ResponseBody: Readable>
        + Clone
        + Send
        + 'static
{
}

/// A bare balancer, without retries and with the default options.
fn bare(targets: Vec<Target>) -> Balance {
    Balance::new(targets, Options::default()).unwrap()
}

fn target(address: impl std::fmt::Display) -> Target {
    format!("http://{address}").parse().unwrap()
}

/// 1 + 2, within so long where that is not for ever.
async fn add(channel: impl Channel, limit: Duration) -> Result<f64, Status> {
    let mut request = Request::new(BinaryOperation { a: 1.0, b: 2.0 });
    if limit < Duration::MAX {
        request.set_timeout(limit);
    }
    CalculatorClient::new(channel).add(request).await.map(|answer| answer.into_inner().value)
}

/// A call every `pace` for `time`, whatever becomes of the others.
async fn load(
    channel: &impl Channel,
    time: Duration,
    pace: Duration,
    limit: Duration,
) -> Vec<Seen> {
    let began = Instant::now();
    let mut calls = JoinSet::new();
    let mut at = began;
    while at < began + time {
        let channel = channel.clone();
        calls.spawn(async move {
            sleep_until(at).await;
            let failure = add(channel, limit).await.err();
            let failure = failure.map(|status| (status.code(), status.message().to_owned()));
            Seen { at, took: Instant::now() - at, failure }
        });
        at += pace;
    }
    let mut seen = calls.join_all().await;
    seen.sort_by_key(|call| call.at);
    seen
}

fn failed(seen: &[Seen]) -> Vec<&Seen> {
    seen.iter().filter(|call| call.failure.is_some()).collect()
}

/// How long after `since` the last of the calls began that failed; `None` where none did.
fn last_failed(seen: &[Seen], since: Instant) -> Option<Duration> {
    failed(seen).last().map(|call| call.at.saturating_duration_since(since))
}

fn longest(seen: &[Seen]) -> Duration {
    seen.iter().map(|call| call.took).max().unwrap_or_default()
}
