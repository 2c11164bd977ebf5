//! The common parts of the layer's tests.

mod laws;
mod limits;
mod rules;
mod story;
mod wire;

use super::*;
use cinchona_core::{BoxError, Methods, PerMethod, Rng};
use cinchona_testkit::{Answer, ScriptedServer};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::ServiceExt;
use tower_layer::Layer;

type Request = http::Request<Body>;
type Response = http::Response<Body>;
type Answered = http::Response<ResponseBody>;

const SECOND: Duration = Duration::from_secs(1);

fn failing(code: Code) -> Answer {
    Answer::Status(Status::new(code, "simulated"))
}

fn ok() -> Answer {
    Answer::Ok(bytes::Bytes::from_static(&[0; 5]))
}

fn on(codes: impl IntoIterator<Item = Code>) -> RetryPolicy {
    RetryPolicy::default().with_codes(codes).unwrap()
}

fn settings(policy: RetryPolicy) -> RetrySettings {
    RetrySettings::new(policy, Methods::all_idempotent()).with_rng(Rng::seeded(1))
}

fn layer(policy: RetryPolicy) -> RetryLayer {
    settings(policy).layer()
}

fn request() -> Request {
    http::Request::builder().uri("http://s/a.B/C").body(Body::empty()).unwrap()
}

fn with_header(name: &'static str, value: &str) -> Request {
    let mut request = request();
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

/// Answers `request` by `script`: the server, and the code and ledger of the failure, if any.
async fn play(
    layer: RetryLayer,
    script: impl IntoIterator<Item = Answer>,
    request: Request,
) -> (ScriptedServer, Result<Answered, (Code, Ledger)>) {
    let server = ScriptedServer::new(script);
    let outcome = layer.layer(server.clone()).oneshot(request).await;
    let outcome = outcome.map_err(|error| {
        let status = Status::from_error(error);
        (status.code(), Ledger::of(&status).unwrap().clone())
    });
    (server, outcome)
}

/// How long it was from each attempt to the next.
fn gaps(server: &ScriptedServer) -> Vec<Duration> {
    server.received().windows(2).map(|pair| pair[1].at - pair[0].at).collect()
}
