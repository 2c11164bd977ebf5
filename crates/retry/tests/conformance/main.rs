//! The cases of gRPC's own test suites, and those that no suite has.
//!
//! A comment that begins with `catalogue:` above a test names the cases that it covers;
//! `catalogue.txt` lists all cases. The test in `table.rs` keeps the two together and writes
//! `CONFORMANCE.md`.
#![expect(clippy::unwrap_used, reason = "a test fails where something is missing")]

mod bodies;
mod buffer;
mod cancel;
mod commit;
mod deadline;
mod hedge;
mod loops;
mod modes;
mod pushback;
mod retry;
mod streams;
mod table;
mod throttle;
mod transparent;
mod verdicts;

use bytes::Bytes;
use cinchona_core::{Methods, Rng};
use cinchona_retry::{
    Backoff, Budget, HedgePolicy, Jitter, Ledger, Policy, RetryLayer, RetryPolicy, RetrySettings,
    Stop,
};
use cinchona_testkit::{Answer, Network, ScriptedServer, Serving, encode};
use http::{HeaderMap, uri::PathAndQuery};
use prost_types::Duration as Message;
use std::time::Duration;
use tokio::time::Instant;
use tonic::{
    Code, Request, Response, Status,
    client::{Grpc, GrpcService},
    transport::Channel,
};
use tonic_prost::ProstCodec;
use tower::Layer;

const PATH: &str = "/a.B/C";

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn message(seconds: i64) -> Message {
    Message { seconds, nanos: 0 }
}

fn ok() -> Answer {
    Answer::Ok(encode(&message(7)))
}

fn failing(code: Code) -> Answer {
    Answer::Status(Status::new(code, "scripted"))
}

fn unavailable() -> Answer {
    failing(Code::Unavailable)
}

/// A trailers-only failure with these pushback values.
fn pushing_back(code: Code, values: &[&str]) -> Answer {
    let mut headers = HeaderMap::new();
    headers.insert("grpc-status", (code as i32).into());
    for value in values {
        headers.append("grpc-retry-pushback-ms", value.parse().unwrap());
    }
    Answer::Raw(headers)
}

/// At most `attempts`; waits of 100, 200, 400, 700, 700 ms.
fn retry(attempts: u32, codes: impl IntoIterator<Item = Code>) -> RetryPolicy {
    let backoff = Backoff::new(ms(100), 2.0, ms(700)).unwrap().with_jitter(Jitter::None);
    RetryPolicy::default()
        .with_max_retries(attempts - 1)
        .with_backoff(backoff)
        .with_forced_codes(codes)
}

fn hedge(attempts: u32, delay: Duration, non_fatal: impl IntoIterator<Item = Code>) -> HedgePolicy {
    HedgePolicy::default()
        .with_max_attempts(attempts)
        .with_delay(delay)
        .with_non_fatal_codes(non_fatal)
}

fn settings(policy: impl Into<Policy>) -> RetrySettings {
    RetrySettings::new(RetryPolicy::default(), Methods::all_idempotent())
        .with_rng(Rng::seeded(1))
        .with_budget(None)
        .with_policies(policy.into().into())
        .unwrap()
}

fn layer(policy: impl Into<Policy>) -> RetryLayer {
    settings(policy).layer()
}

/// Retries `UNAVAILABLE`.
fn retrying_settings(attempts: u32) -> RetrySettings {
    settings(retry(attempts, [Code::Unavailable]))
}

fn retrying(attempts: u32) -> RetryLayer {
    retrying_settings(attempts).layer()
}

/// A client of a scripted server over in-memory HTTP/2.
struct Client {
    server: ScriptedServer,
    network: Network,
    grpc: Grpc<cinchona_retry::Retry<Channel>>,
    _serving: Serving,
}

type Outcome = Result<Response<Message>, Status>;

impl Client {
    fn new(layer: &RetryLayer, script: impl IntoIterator<Item = Answer>) -> Self {
        let (server, network) = (ScriptedServer::new(script), Network::new());
        let serving = network.serve_service(server.clone());
        let grpc = Grpc::new(layer.layer(network.channel()));
        Self { server, network, grpc, _serving: serving }
    }

    async fn call(&mut self) -> Outcome {
        self.send(Request::new(message(3))).await
    }

    async fn send(&mut self, request: Request<Message>) -> Outcome {
        unary(&mut self.grpc, request).await
    }

    /// How long it was from each attempt to the next, in milliseconds.
    fn gaps(&self) -> Vec<u64> {
        let gap =
            |pair: &[cinchona_testkit::Received]| (pair[1].at - pair[0].at).as_millis() as u64;
        self.server.received().windows(2).map(gap).collect()
    }

    /// The value of `grpc-previous-rpc-attempts` in each attempt.
    fn previous(&self) -> Vec<Option<u32>> {
        let previous = |received: &cinchona_testkit::Received| {
            let value = received.headers.get("grpc-previous-rpc-attempts")?;
            value.to_str().unwrap().parse().ok()
        };
        self.server.received().iter().map(previous).collect()
    }
}

async fn unary<S>(grpc: &mut Grpc<S>, request: Request<Message>) -> Outcome
where
    S: GrpcService<tonic::body::Body>,
    S::ResponseBody: http_body::Body<Data = Bytes> + Send + 'static,
    <S::ResponseBody as http_body::Body>::Error: Into<cinchona_core::BoxError> + Send,
{
    grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
    grpc.unary(request, PathAndQuery::from_static(PATH), ProstCodec::default()).await
}

/// One unary call: the client, and the outcome.
async fn play(layer: RetryLayer, script: impl IntoIterator<Item = Answer>) -> (Client, Outcome) {
    let mut client = Client::new(&layer, script);
    let outcome = client.call().await;
    (client, outcome)
}

fn code(outcome: &Outcome) -> Code {
    outcome.as_ref().err().map_or(Code::Ok, Status::code)
}

#[track_caller]
fn ledger(outcome: &Outcome) -> &Ledger {
    match outcome {
        Ok(response) => response.extensions().get().expect("the call was retried"),
        Err(status) => Ledger::of(status).expect("a failure has its ledger"),
    }
}

/// Runs everything that is due at this instant.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}
