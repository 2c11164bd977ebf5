//! In shadow a layer counts what it would do, and does nothing: what a server is sent, and what a
//! caller receives and when, is as without it.

use crate::{
    bare::{Bare, Log, Plan},
    layers::{self, Boxed, boxed},
    off::quiet,
    virtually,
};
use cinchona::core::{BoxError, Mode, Rng, Switch};
use http::HeaderMap;
use http_body_util::BodyExt;
use std::collections::BTreeSet;
use tokio::time::Instant;
use tonic::{Code, Status};
use tower::{Service, ServiceExt};

const CALLS: u64 = 1000;

const WITHOUT: &str = "without a grpc-status";

/// What a caller knows of a call: its messages, its status, and when it had that.
async fn received(mut service: Boxed, plan: Plan) -> String {
    let began = Instant::now();
    let (mut data, status) = (Vec::new(), answer(&mut service, &plan).await);
    let status = match status {
        Err(status) => status,
        Ok(mut body) => loop {
            match body.frame().await {
                None => break Status::new(Code::Unknown, WITHOUT),
                Some(Err(error)) => break Status::from_error(error),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(more) => data.extend(more),
                    Err(frame) => {
                        if let Some(Some(status)) = frame.into_trailers().ok().map(said) {
                            break status;
                        }
                    }
                },
            }
        },
    };
    let message = status.message();
    // The retries say so in other words.
    let message = if message.contains(WITHOUT) { WITHOUT } else { message };
    format!("{:?}: {data:?}, {:?} {message}", Instant::now() - began, status.code())
}

type Frames = http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, BoxError>;

async fn answer(service: &mut Boxed, plan: &Plan) -> Result<Frames, Status> {
    let ready = service.ready().await.map_err(Status::from_error)?;
    let response = ready.call(plan.request(true)).await.map_err(Status::from_error)?;
    let (head, body) = response.into_parts();
    match said(head.headers) {
        Some(status) => Err(status),
        None if head.status != 200 => {
            Err(Status::new(cinchona_plumbing::status::code_of_http(head.status), WITHOUT))
        }
        None => Ok(body),
    }
}

/// tonic itself panics at malformed details.
fn said(headers: HeaderMap) -> Option<Status> {
    let code = cinchona_plumbing::status::code(&headers)?;
    let message = headers.get("grpc-message").map_or("", |message| message.to_str().unwrap());
    Some(Status::new(code, message.replace("%20", " ")))
}

/// What is sent, with all of its message in one piece, and what is received.
async fn told(service: Boxed, log: &Log, plan: &Plan) -> [String; 3] {
    let received = tokio::spawn(received(service, plan.clone())).await;
    let received = received.unwrap_or_else(|_| "a panic".into());
    let (mut called, mut sent) = (String::new(), String::new());
    for line in log.take() {
        // A record in the extensions is no header.
        let head = line.split_once(" extensions, ").and_then(|(head, _)| head.rsplit_once(", "));
        called.extend(head.map(|(head, _)| head));
        let data = line.strip_prefix("it reads Frame { kind: Data(b\"");
        sent.extend(data.and_then(|data| data.strip_suffix("\") }")));
    }
    [called, sent, received]
}

/// Without the timeouts: a layer that has waited for the message says how much of one is left, and
/// one that has a deadline says it in its own unit.
fn without_timeouts([called, sent, received]: [String; 3]) -> [String; 3] {
    let mut kept = called.split("\"grpc-timeout\": \"");
    let mut called = kept.next().unwrap().to_owned();
    for more in kept {
        let (_, rest) = more.split_once('"').unwrap();
        called += rest.strip_prefix(", ").unwrap_or(rest);
    }
    [called, sent, received]
}

const WAITS: &str = "shed/src/layer.rs";

/// The others need calls at the same time, or larger messages, or decide nothing.
const DECIDE_BY_ONE_CALL: [&str; 12] = [
    "breaker/src/layer.rs",
    "cluster/src/guard.rs",
    "deadline/src/attempt.rs",
    "deadline/src/call.rs",
    "deadline/src/server.rs",
    "fallback/src/settings.rs",
    "fault/src/layer.rs",
    "idempotency/src/settings.rs",
    "retry/src/layer.rs",
    "shed/src/bound.rs",
    "shed/src/rate/settings.rs",
    "shed/src/throttle.rs",
];

#[test]
fn a_layer_in_shadow_sends_and_answers_what_no_layer_would() {
    quiet();
    virtually(async {
        let rng = Rng::seeded(1);
        let cases = layers::all(|| Switch::new(Mode::Shadow));
        for _ in 0..CALLS {
            let plan = Plan::drawn(&rng).sound();
            let (bare, log) = Bare::new(&plan, true);
            let expected = told(boxed(bare), &log, &plan).await;
            for case in &cases {
                let before = case.switch.shadowed();
                let (bare, log) = Bare::new(&plan, true);
                let seen = told((case.layer)(bare), &log, &plan).await;
                let (seen, expected) = match case.file == WAITS {
                    true => (without_timeouts(seen), without_timeouts(expected.clone())),
                    false => (seen, expected.clone()),
                };
                assert_eq!(seen, expected, "{}, {plan:?}", case.file);
                let counted = case.switch.shadowed() - before;
                assert!(counted <= 1, "{}, {counted} times, {plan:?}", case.file);
            }
        }
        let counted = cases.iter().filter(|case| case.switch.shadowed() > 0);
        let counted: BTreeSet<_> = counted.map(|case| case.file).collect();
        assert_eq!(counted, BTreeSet::from(DECIDE_BY_ONE_CALL));
    });
}
