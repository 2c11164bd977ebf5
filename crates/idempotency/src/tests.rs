//! The server's layer: which calls are executed, and which are answered from a record.

mod answers;
mod callers;
mod codes;
mod full;
mod memory;
mod off;
mod panics;
mod seen;
mod time;

use super::*;
use bytes::Bytes;
use cinchona_core::{BoxError, Methods, Mode, PerMethod, Switch};
use cinchona_testkit::encode;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use prost::Message;
use prost_types::{
    Any, DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    MethodDescriptorProto, MethodOptions, ServiceDescriptorProto,
    field_descriptor_proto::{Label, Type},
    method_options::IdempotencyLevel,
};
use std::{
    fmt,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::Poll,
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tonic::{Code, Status, body::Body};
use tonic_types::StatusExt;
use tower::{Layer, Service, ServiceExt, service_fn, util::BoxCloneSyncService};

const SECOND: Duration = Duration::from_secs(1);

/// `Bank` with `Pay` (whose messages have a `request_id = 1`), `Put`, which is idempotent, `Read`,
/// which has no side effects, and `Watch`, which streams.
pub(crate) fn methods() -> Methods {
    let method = |name: &str| MethodDescriptorProto {
        name: Some(name.into()),
        input_type: Some(".Request".into()),
        ..Default::default()
    };
    let level = |level: IdempotencyLevel| {
        Some(MethodOptions { idempotency_level: Some(level.into()), ..Default::default() })
    };
    let put =
        MethodDescriptorProto { options: level(IdempotencyLevel::Idempotent), ..method("Put") };
    let read =
        MethodDescriptorProto { options: level(IdempotencyLevel::NoSideEffects), ..method("Read") };
    let watch = MethodDescriptorProto { server_streaming: Some(true), ..method("Watch") };
    let request_id = FieldDescriptorProto {
        name: Some("request_id".into()),
        number: Some(1),
        r#type: Some(Type::String.into()),
        label: Some(Label::Optional.into()),
        ..Default::default()
    };
    let file = FileDescriptorProto {
        message_type: vec![DescriptorProto {
            name: Some("Request".into()),
            field: vec![request_id],
            ..Default::default()
        }],
        service: vec![ServiceDescriptorProto {
            name: Some("Bank".into()),
            method: vec![method("Pay"), put, read, watch],
            ..Default::default()
        }],
        ..Default::default()
    };
    let encoded = FileDescriptorSet { file: vec![file] }.encode_to_vec();
    Methods::from_file_descriptor_set(&encoded).unwrap()
}

fn settings() -> DedupSettings {
    DedupSettings::new(methods())
}

fn dedup() -> DedupLayer<MemoryStore> {
    settings().layer(MemoryStore::new())
}

/// A request whose message's field 1 is `id`, and field 2 one byte.
fn message(id: &str, payload: u8) -> Bytes {
    encode(&Any { type_url: id.into(), value: vec![payload] })
}

fn to(path: &str, key: Option<&str>, body: Bytes) -> Request<Body> {
    let mut request = Request::post(path);
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    request.body(Body::new(Full::new(body))).unwrap()
}

fn pay(key: &str) -> Request<Body> {
    to("/Bank/Pay", Some(key), message("", 0))
}

type Bank = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

/// A service that answers with the number of its execution, after `takes`, or with the statuses of
/// `failures` first; and how many executions have begun.
fn bank(takes: Duration, failures: &'static [Code]) -> (Bank, Arc<AtomicU32>) {
    let executed = Arc::new(AtomicU32::new(0));
    let count = executed.clone();
    let service = service_fn(move |_: Request<Body>| {
        let n = count.fetch_add(1, Ordering::Relaxed);
        async move {
            if !takes.is_zero() {
                sleep(takes).await;
            }
            Ok(match failures.get(n as usize) {
                Some(code) => Status::new(*code, format!("failure {n}")).into_http(),
                None => answer(n),
            })
        }
    });
    (BoxCloneSyncService::new(service), executed)
}

/// An answer of a tonic server, with its own metadata.
fn answer(n: u32) -> Response<Body> {
    let trailers = http::HeaderMap::from_iter([
        (Status::GRPC_STATUS, "0".parse().unwrap()),
        ("x-cost".parse().unwrap(), n.into()),
    ]);
    let body = Full::new(encode(&n));
    let body = body.with_trailers(async { Some(Ok::<_, std::convert::Infallible>(trailers)) });
    let response = Response::builder().header("content-type", "application/grpc");
    response.header("x-n", n).body(Body::new(body)).unwrap()
}

/// A response to its end: headers, data, trailers.
async fn read(response: Response<Body>) -> (http::HeaderMap, Bytes, Option<http::HeaderMap>) {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned();
    (parts.headers, body.to_bytes(), trailers)
}

fn status(response: &Response<Body>) -> Status {
    Status::from_header_map(response.headers()).unwrap_or_else(|| Status::ok(""))
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().unwrap().reason
}

fn is_replay(response: &Response<Body>) -> bool {
    response.headers().get(record::REPLAYED).is_some_and(|value| value == "true")
}

async fn ask<S>(service: &S, request: Request<Body>) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error: fmt::Debug> + Clone,
{
    service.clone().oneshot(request).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_repetition_is_answered_byte_for_byte_and_not_executed() {
    let (bank, executed) = bank(Duration::ZERO, &[]);
    let (layer, never) = (dedup(), Duration::from_secs(299));
    let service = layer.layer(bank);
    let (mut first, data, trailers) = read(ask(&service, pay("k")).await).await;
    sleep(never).await;
    let (second, again, end) = read(ask(&service, pay("k")).await).await;
    first.insert(record::REPLAYED, HeaderValue::from_static("true"));
    assert_eq!((first, data, trailers), (second, again, end));
    assert_eq!(executed.load(Ordering::Relaxed), 1);
    let DedupCounters { executed, replayed, joined, .. } = layer.counters();
    assert_eq!((executed, replayed, joined), (1, 1, 0));
    sleep(2 * SECOND).await;
    assert!(!is_replay(&ask(&service, pay("k")).await), "300 s are over");
}

#[tokio::test(start_paused = true)]
async fn a_key_used_for_another_request_is_refused_with_the_reason() {
    let (bank, executed) = bank(Duration::ZERO, &[]);
    let service = dedup().layer(bank);
    ask(&service, pay("k")).await;
    let refused = status(&ask(&service, to("/Bank/Pay", Some("k"), message("", 1))).await);
    assert_eq!(
        (refused.code(), &*reason(&refused)),
        (Code::InvalidArgument, "IDEMPOTENCY_KEY_REUSED")
    );
    assert_eq!(executed.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_key_counts_within_its_method_and_its_caller() {
    let (bank, executed) = bank(Duration::ZERO, &[]);
    let service = settings()
        .with_caller(|headers, _| Some(headers.get("x-user")?.to_str().ok()?.to_owned()))
        .layer(MemoryStore::new())
        .layer(bank);
    let by = |user: &'static str, path: &str| {
        let mut request = to(path, Some("k"), message("", 0));
        request.headers_mut().insert("x-user", HeaderValue::from_static(user));
        request
    };
    let calls = || [by("a", "/Bank/Pay"), by("b", "/Bank/Pay"), by("a", "/Bank/Put"), pay("k")];
    for request in calls() {
        assert!(!is_replay(&ask(&service, request).await));
    }
    for request in calls() {
        assert!(is_replay(&ask(&service, request).await));
    }
    assert_eq!(executed.load(Ordering::Relaxed), 4);
}

#[tokio::test(start_paused = true)]
async fn the_request_id_in_the_message_is_the_key_whatever_the_header_says() {
    let (bank, executed) = bank(Duration::ZERO, &[]);
    let service = dedup().layer(bank);
    let named = |header| to("/Bank/Pay", header, message("m", 0));
    assert!(!is_replay(&ask(&service, named(None)).await));
    for header in [None, Some("a"), Some("b")] {
        assert!(is_replay(&ask(&service, named(header)).await), "{header:?}");
    }
    assert_eq!(executed.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn streams_reads_strangers_and_calls_without_a_key_pass_through() {
    let (bank, executed) = bank(Duration::ZERO, &[]);
    let layer = dedup();
    let service = layer.layer(bank);
    for path in ["/Bank/Watch", "/Bank/Read", "/Other/Call"] {
        for _ in 0..2 {
            assert!(!is_replay(&ask(&service, to(path, Some("k"), message("", 0))).await));
        }
    }
    for _ in 0..2 {
        ask(&service, to("/Bank/Pay", None, message("", 0))).await;
    }
    assert_eq!((executed.load(Ordering::Relaxed), layer.counters()), (8, DedupCounters::default()));
}

#[tokio::test(start_paused = true)]
async fn an_invalid_key_or_a_missing_required_one_is_refused() {
    let (bank, executed) = bank(Duration::ZERO, &[]);
    let service = settings().with_required(true).layer(MemoryStore::new()).layer(bank);
    let long = "k".repeat(256);
    let bad = HeaderValue::from_bytes("ü".as_bytes()).unwrap();
    let mut not_ascii = pay("k");
    not_ascii.headers_mut().insert(IDEMPOTENCY_KEY, bad);
    for (request, named, why) in [
        (pay(&long), "idempotency-key: ", "IDEMPOTENCY_KEY_MALFORMED"),
        (pay(""), "idempotency-key: ", "IDEMPOTENCY_KEY_MALFORMED"),
        (not_ascii, "idempotency-key: ", "IDEMPOTENCY_KEY_MALFORMED"),
        (to("/Bank/Pay", None, message(&long, 0)), "request_id: ", "IDEMPOTENCY_KEY_MALFORMED"),
        (
            to("/Bank/Pay", None, message("", 0)),
            "header idempotency-key",
            "IDEMPOTENCY_KEY_MISSING",
        ),
    ] {
        let refused = status(&ask(&service, request).await);
        assert_eq!((refused.code(), &*reason(&refused)), (Code::InvalidArgument, why));
        assert!(refused.message().contains(named), "{refused}");
    }
    assert_eq!(executed.load(Ordering::Relaxed), 0);
    ask(&service, to("/Bank/Read", None, message("", 0))).await;
    assert_eq!(executed.load(Ordering::Relaxed), 1, "reads need none");
}

#[tokio::test(start_paused = true)]
async fn after_a_panic_the_guarantee_decides() {
    for (guarantee, code) in
        [(Guarantee::AtMostOnce, Code::Unknown), (Guarantee::AtLeastOnce, Code::Ok)]
    {
        let executed = Arc::new(AtomicU32::new(0));
        let count = executed.clone();
        let service = service_fn(move |_: Request<Body>| {
            let n = count.fetch_add(1, Ordering::Relaxed);
            async move {
                assert!(n > 0, "out of paper");
                Ok::<_, std::convert::Infallible>(answer(n))
            }
        });
        let service = settings().with_guarantee(guarantee).layer(MemoryStore::new()).layer(service);
        let first = AssertUnwindSafe(ask(&service, pay("k")));
        futures_util::FutureExt::catch_unwind(first).await.unwrap_err();
        let second = ask(&service, pay("k")).await;
        assert_eq!(status(&second).code(), code);
        if code == Code::Unknown {
            assert_eq!(reason(&status(&second)), "IDEMPOTENCY_OUTCOME_UNKNOWN");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_500_calls_at_once_one_is_executed_and_all_have_its_answer() {
    let (bank, executed) = bank(SECOND, &[]);
    let layer = dedup();
    let service = layer.layer(bank);
    let mut calls = JoinSet::new();
    for _ in 0..500 {
        calls.spawn(service.clone().oneshot(pay("k")));
    }
    let began = Instant::now();
    let mut answers = Vec::new();
    for answered in calls.join_all().await {
        answers.push(read(answered.unwrap()).await);
    }
    assert_eq!((answers.len(), Instant::now() - began), (500, SECOND));
    assert!(answers.iter().all(|(_, data, end)| (data, end) == (&answers[0].1, &answers[0].2)));
    assert_eq!(executed.load(Ordering::Relaxed), 1);
    assert_eq!((layer.counters().joined, layer.counters().replayed), (499, 499));
}

#[tokio::test(start_paused = true)]
async fn a_call_in_flight_is_refused_with_a_pushback_if_configured() {
    let (bank, _) = bank(SECOND, &[]);
    let service = settings()
        .with_in_flight(InFlight::Reject(SECOND / 4))
        .layer(MemoryStore::new())
        .layer(bank);
    let (first, refused) = tokio::join!(ask(&service, pay("k")), ask(&service, pay("k")));
    assert_eq!(status(&first).code(), Code::Ok);
    let refused = status(&refused);
    assert_eq!((refused.code(), &*reason(&refused)), (Code::Aborted, "IDEMPOTENCY_KEY_IN_FLIGHT"));
    assert_eq!(refused.metadata().get("grpc-retry-pushback-ms").unwrap(), "250");
    assert!(is_replay(&ask(&service, pay("k")).await));
}

/// A service that waits at several places.
fn winding() -> (Bank, Arc<AtomicU32>) {
    let executed = Arc::new(AtomicU32::new(0));
    let count = executed.clone();
    let service = service_fn(move |request: Request<Body>| {
        let n = count.fetch_add(1, Ordering::Relaxed);
        async move {
            tokio::task::yield_now().await;
            request.into_body().collect().await?;
            sleep(SECOND / 10).await;
            tokio::task::yield_now().await;
            Ok(answer(n))
        }
    });
    (BoxCloneSyncService::new(service), executed)
}

#[tokio::test(start_paused = true)]
async fn wherever_the_first_is_cancelled_the_second_has_an_answer_of_one_execution() {
    let mut cancelled = 0;
    for polls in 0.. {
        let (bank, executed) = winding();
        let layer = dedup();
        let service = layer.layer(bank);
        let mut first = Box::pin(ask(&service, pay("k")));
        let mut left = polls;
        let ended = std::future::poll_fn(|cx| match left {
            0 => Poll::Ready(false),
            _ => {
                left -= 1;
                first.as_mut().poll(cx).map(|_| true)
            }
        })
        .await;
        drop(first);
        let second = tokio::time::timeout(SECOND, ask(&service, pay("k"))).await.unwrap();
        assert_eq!(status(&second).code(), Code::Ok, "after {polls} polls");
        assert_eq!(executed.load(Ordering::Relaxed), 1, "after {polls} polls");
        if ended {
            break;
        }
        cancelled += 1;
        assert_eq!(layer.counters().abandoned, u64::from(polls > 0));
    }
    assert!(cancelled >= 3, "cancelled at {cancelled} places");
}

#[tokio::test(start_paused = true)]
async fn an_execution_ends_with_its_lease_and_waiting_calls_fail_or_take_over() {
    for (guarantee, executions) in [(Guarantee::AtMostOnce, 1), (Guarantee::AtLeastOnce, 2)] {
        let executed = Arc::new(AtomicU32::new(0));
        let count = executed.clone();
        let service = service_fn(move |_: Request<Body>| {
            let n = count.fetch_add(1, Ordering::Relaxed);
            async move {
                if n == 0 {
                    std::future::pending::<()>().await;
                }
                Ok::<_, std::convert::Infallible>(answer(n))
            }
        });
        let layer = settings()
            .with_guarantee(guarantee)
            .with_lease(5 * SECOND)
            .unwrap()
            .layer(MemoryStore::new());
        let service = layer.layer(service);
        let began = Instant::now();
        let (first, second) = tokio::join!(ask(&service, pay("k")), ask(&service, pay("k")));
        assert_eq!(Instant::now() - began, 5 * SECOND);
        assert_eq!(reason(&status(&first)), "IDEMPOTENCY_OUTCOME_UNKNOWN");
        let expected = if executions == 1 { Code::Unknown } else { Code::Ok };
        assert_eq!(status(&second).code(), expected);
        assert_eq!(executed.load(Ordering::Relaxed), executions);
    }
}

/// A store that is down, or that loses a claim as if its process had crashed.
#[derive(Clone, Debug)]
struct Away;

impl Store for Away {
    async fn claim(&self, _: &[u8], _: u128, _: u128, _: Duration) -> Result<Claim, BoxError> {
        Err("redis://:mark@host: connection refused".into())
    }

    async fn finish(&self, _: &[u8], _: u128, _: &[u8]) -> Result<bool, BoxError> {
        Err("connection refused".into())
    }

    async fn release(&self, _: &[u8], _: u128) -> Result<(), BoxError> {
        Err("connection refused".into())
    }

    fn instance(&self) -> usize {
        0
    }

    fn domain(&self) -> Option<String> {
        Some("away-1".to_owned())
    }
}

#[tokio::test(start_paused = true)]
async fn without_its_store_it_refuses_or_executes_as_configured() {
    for (open, executions) in [(false, 0), (true, 1)] {
        let (bank, executed) = bank(Duration::ZERO, &[]);
        let layer = DedupSettings::new(methods()).with_fail_open(open).layer(Away);
        let answered = status(&ask(&layer.layer(bank), pay("k")).await);
        let expected = if open { Code::Ok } else { Code::Unavailable };
        assert_eq!((answered.code(), executed.load(Ordering::Relaxed)), (expected, executions));
        assert!(!format!("{answered:?}").contains("mark"), "where it is: {answered:?}");
        assert_eq!(layer.counters().store_failures, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn in_shadow_a_call_after_a_crash_is_executed_and_counted() {
    let (bank, executed) = bank(Duration::ZERO, &[]);
    let store = MemoryStore::new();
    let key = key::stored("/Bank/Pay", "k", "");
    let fingerprint = xxhash_rust::xxh3::xxh3_128(&message("", 0));
    store.claim(&key, fingerprint, 1, SECOND).await.unwrap();
    sleep(2 * SECOND).await;
    let switch = Switch::new(Mode::Shadow);
    let service = DedupSettings::new(methods())
        .with_guarantee(Guarantee::AtMostOnce)
        .with_switch(switch.clone())
        .layer(store)
        .layer(bank);
    assert_eq!(status(&ask(&service, pay("k")).await).code(), Code::Ok);
    assert_eq!((executed.load(Ordering::Relaxed), switch.shadowed()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_at_most_once_does_not_execute_again() {
    for (guarantee, executions) in [(Guarantee::AtMostOnce, 0), (Guarantee::AtLeastOnce, 1)] {
        let (bank, executed) = bank(Duration::ZERO, &[]);
        let store = MemoryStore::new();
        let key = key::stored("/Bank/Pay", "k", "");
        let fingerprint = xxhash_rust::xxh3::xxh3_128(&message("", 0));
        store.claim(&key, fingerprint, 1, SECOND).await.unwrap();
        let service =
            DedupSettings::new(methods()).with_guarantee(guarantee).layer(store).layer(bank);
        let answered = ask(&service, pay("k")).await;
        assert_eq!(executed.load(Ordering::Relaxed), executions);
        let expected = if executions == 0 { Code::Unknown } else { Code::Ok };
        assert_eq!(status(&answered).code(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_too_large_is_given_once() {
    let (bank, executed) = bank(Duration::ZERO, &[]);
    let service = settings().with_limits(100, 3).layer(MemoryStore::new()).layer(bank);
    assert_eq!(status(&ask(&service, pay("k")).await).code(), Code::Ok);
    let refused = status(&ask(&service, pay("k")).await);
    assert_eq!(reason(&refused), "IDEMPOTENCY_RECORD_TOO_LARGE");
    let large = encode(&Any { type_url: "x".repeat(100), value: Vec::new() });
    let refused = status(&ask(&service, to("/Bank/Pay", Some("l"), large)).await);
    assert_eq!(refused.code(), Code::OutOfRange);
    assert_eq!(executed.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn the_oldest_records_make_room_and_their_calls_are_executed_or_refused() {
    for (refusing, expected) in [(false, Code::Ok), (true, Code::FailedPrecondition)] {
        let (bank, _) = bank(Duration::ZERO, &[]);
        let store = MemoryStore::new().with_caps(1000, 1 << 20).unwrap().refusing_evicted(refusing);
        let layer = DedupLayer::new(store.clone(), methods());
        let service = layer.layer(bank);
        for n in 0..3000 {
            ask(&service, pay(&n.to_string())).await;
            sleep(SECOND / 100).await;
        }
        assert_eq!((store.entries(), store.evicted()), (1000, 2000));
        assert_eq!(layer.counters().executed, 3000);
        let recent = ask(&service, pay("2999")).await;
        assert!(is_replay(&recent));
        let mut refused = 0;
        for n in 1300..1800 {
            let answered = ask(&service, pay(&n.to_string())).await;
            refused += u32::from(status(&answered).code() == expected && !is_replay(&answered));
        }
        assert!(refused >= 400, "{refused} of 500 evicted ones are {expected:?}");
        sleep(301 * SECOND).await;
        assert_eq!(status(&ask(&service, pay("0")).await).code(), Code::Ok, "forgotten in time");
    }
}

#[tokio::test(start_paused = true)]
async fn a_byte_cap_holds_and_nothing_is_counted_twice() {
    let (bank, _) = bank(Duration::ZERO, &[]);
    let store = MemoryStore::new().with_caps(1 << 20, 10_000).unwrap();
    let service = DedupLayer::new(store.clone(), methods()).layer(bank);
    for n in 0..1000 {
        ask(&service, pay(&n.to_string())).await;
        assert!(store.bytes() <= 10_000);
    }
    assert!(store.entries() > 50, "{}", store.entries());
    sleep(301 * SECOND).await;
    // Each shard removes expired entries as it is used.
    for n in 0..1000 {
        ask(&service, pay(&n.to_string())).await;
    }
    assert_eq!(store.bytes() / store.entries(), 10_000 / store.entries(), "about full again");
}

#[tokio::test(start_paused = true)]
async fn a_fragment_is_merged_only_into_replayed_messages() {
    let (bank, _) = bank(Duration::ZERO, &[]);
    let mut fragments = PerMethod::new();
    fragments.insert("Bank", "Pay", vec![16, 1]).unwrap();
    let service = settings().with_fragments(fragments).layer(MemoryStore::new()).layer(bank);
    let (_, first, _) = read(ask(&service, pay("k")).await).await;
    let (_, second, _) = read(ask(&service, pay("k")).await).await;
    assert_eq!((&first[..], &second[..]), (&[0, 0, 0, 0, 0][..], &[0, 0, 0, 0, 2, 16, 1][..]));
}

#[tokio::test(start_paused = true)]
async fn the_responses_to_calls_that_may_be_recognised_name_the_domain_and_no_others() {
    let (bank, _) = bank(Duration::ZERO, &[]);
    let service = settings().with_domain("eu-1").unwrap().layer(MemoryStore::new()).layer(bank);
    for request in [pay("k"), pay("k")] {
        assert_eq!(ask(&service, request).await.headers()[DOMAIN], "eu-1");
    }
    let reads = ask(&service, to("/Bank/Read", Some("k"), message("", 0))).await;
    assert!(!reads.headers().contains_key(DOMAIN));
    assert_eq!(settings().with_domain("a\nb").unwrap_err().field(), "domain");
}

#[tokio::test(start_paused = true)]
async fn without_a_domain_a_layer_uses_that_of_its_store_or_a_unique_one() {
    let named = async |layer: DedupLayer<_>| {
        let (bank, _) = bank(Duration::ZERO, &[]);
        ask(&layer.layer(bank), pay("k")).await.headers()[DOMAIN].clone()
    };
    assert_eq!(named(settings().layer(Away)).await, "away-1");
    assert_eq!(named(settings().with_domain("eu-1").unwrap().layer(Away)).await, "eu-1");
    let (bank, _) = bank(Duration::ZERO, &[]);
    let (one, other) = (dedup().layer(bank.clone()), dedup().layer(bank));
    let of = async |service| ask(service, pay("k")).await.headers()[DOMAIN].clone();
    assert_ne!(of(&one).await, of(&other).await);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_follows_one_in_another_domain_is_refused() {
    let (bank, executed) = bank(Duration::ZERO, &[]);
    let service = settings().with_domain("eu-1").unwrap().layer(MemoryStore::new()).layer(bank);
    for (domain, expected) in [("us-1", Code::FailedPrecondition), ("eu-1", Code::Ok)] {
        let mut request = pay("k");
        request.headers_mut().insert(DOMAIN, HeaderValue::from_static(domain));
        assert_eq!(status(&ask(&service, request).await).code(), expected);
    }
    assert_eq!(executed.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn in_shadow_it_counts_would_be_answers_and_off_it_does_nothing() {
    let (bank, executed) = bank(Duration::ZERO, &[]);
    let switch = Switch::new(Mode::Shadow);
    let layer = settings().with_switch(switch.clone()).layer(MemoryStore::new());
    let service = layer.layer(bank);
    for _ in 0..3 {
        assert!(!is_replay(&ask(&service, pay("k")).await));
    }
    assert_eq!((executed.load(Ordering::Relaxed), switch.shadowed()), (3, 2));
    switch.set(Mode::Off);
    ask(&service, pay("k")).await;
    assert_eq!((executed.load(Ordering::Relaxed), switch.shadowed()), (4, 2));
    switch.set(Mode::Enforce);
    assert!(is_replay(&ask(&service, pay("k")).await));
}

#[tokio::test(start_paused = true)]
async fn the_ready_service_is_called() {
    let (mock, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    let mut service = dedup().layer(mock);
    for path in ["/Bank/Pay", "/Bank/Read"] {
        handle.allow(1);
        let ready = ServiceExt::<Request<Body>>::ready(&mut service).await.unwrap();
        let call = ready.call(to(path, Some(path), message("", 0)));
        let answering = async {
            let (_, send) = handle.next_request().await.unwrap();
            send.send_response(answer(0));
        };
        let (answered, ()) = tokio::join!(call, answering);
        answered.unwrap();
    }
}

#[test]
fn bad_settings_are_refused() {
    assert_eq!(settings().with_lease(Duration::ZERO).unwrap_err().field(), "lease");
    assert_eq!(MemoryStore::new().with_ttl(Duration::ZERO).unwrap_err().field(), "ttl");
    assert_eq!(MemoryStore::new().with_caps(0, 1).unwrap_err().field(), "entries");
    assert_eq!(MemoryStore::new().with_caps(1, 0).unwrap_err().field(), "bytes");
}

#[tokio::test(start_paused = true)]
async fn the_store_in_memory_conforms() {
    conformance::store(async || MemoryStore::new()).await;
    conformance::state(async || MemoryStore::new()).await;
}
