//! Which calls are given second answers, and which ones.

mod bodies;
mod callers;
mod laws;
mod manual;
mod model;
mod requests;
mod store;
mod stories;
mod taken_back;

use super::*;
use cinchona_core::Switch;
use cinchona_core::{DEGRADED, Mode, Verdict};
use cinchona_plumbing::status;
use cinchona_testkit::{Answer as Reply, ScriptedServer, encode};
use http::HeaderName;
use http::header::AGE;
use http_body_util::BodyExt;
use prost::Message;
use prost_types::{
    FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, MethodOptions,
    ServiceDescriptorProto, method_options::IdempotencyLevel,
};
use std::{fmt, time::Duration};
use tokio::time::Instant;
use tokio::time::advance;
use tonic::{Code, Status};
use tower::ServiceExt;

const BALANCE: &str = "/bank.Bank/Balance";
const WITHDRAW: &str = "/bank.Bank/Withdraw";
const WATCH: &str = "/bank.Bank/Watch";
const UPLOAD: &str = "/bank.Bank/Upload";
const SECOND: Duration = Duration::from_secs(1);

/// The result of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Got {
    code: Code,
    value: Option<u32>,
    degraded: Option<String>,
    age: Option<String>,
}

/// Only `Withdraw` has side effects; `Watch` and `Upload` are streams.
fn methods() -> Methods {
    let method = |name: &str, level: IdempotencyLevel| MethodDescriptorProto {
        name: Some(name.into()),
        options: Some(MethodOptions {
            idempotency_level: Some(level.into()),
            ..Default::default()
        }),
        server_streaming: Some(name == "Watch"),
        client_streaming: Some(name == "Upload"),
        ..Default::default()
    };
    let bank = ServiceDescriptorProto {
        name: Some("Bank".into()),
        method: vec![
            method("Balance", IdempotencyLevel::NoSideEffects),
            method("Limit", IdempotencyLevel::NoSideEffects),
            method("Withdraw", IdempotencyLevel::Idempotent),
            method("Watch", IdempotencyLevel::NoSideEffects),
            method("Upload", IdempotencyLevel::NoSideEffects),
        ],
        ..Default::default()
    };
    let file = FileDescriptorProto {
        package: Some("bank".into()),
        service: vec![bank],
        ..Default::default()
    };
    let encoded = FileDescriptorSet { file: vec![file] }.encode_to_vec();
    Methods::from_file_descriptor_set(&encoded).unwrap()
}

fn settings() -> FallbackSettings {
    FallbackSettings::new(methods()).with_cache(Cache::default()).unwrap()
}

fn caching() -> FallbackLayer {
    settings().layer()
}

fn framed_body(message: &impl Message) -> Body {
    Body::new(http_body_util::Full::new(encode(message)))
}

fn request(path: &str, message: u32) -> Request<Body> {
    Request::post(path).body(framed_body(&message)).unwrap()
}

fn balance() -> Request<Body> {
    request(BALANCE, 1)
}

fn with(mut request: Request<Body>, name: HeaderName, value: &'static str) -> Request<Body> {
    request.headers_mut().append(name, http::HeaderValue::from_static(value));
    request
}

fn ok(value: u32) -> Reply {
    Reply::Ok(encode(&value))
}

fn down() -> Reply {
    Reply::Status(Status::unavailable("simulated"))
}

fn live(value: u32) -> Got {
    Got { code: Code::Ok, value: Some(value), degraded: None, age: None }
}

fn second(how: &str, value: u32) -> Got {
    Got { degraded: Some(how.into()), ..live(value) }
}

fn cached(value: u32, age: u32) -> Got {
    Got { age: Some(age.to_string()), ..second("cached", value) }
}

fn failed(code: Code) -> Got {
    Got { code, value: None, degraded: None, age: None }
}

fn unavailable() -> Got {
    failed(Code::Unavailable)
}

/// Makes a call and reads its answer to the end.
async fn ask<S, B>(client: &Fallback<S>, request: Request<Body>) -> Got
where
    S: Service<Request<Body>, Response = Response<B>> + Clone,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let head = match client.clone().oneshot(request).await {
        Ok(response) => response,
        Err(error) => return failed(Verdict::of_error(&*error).code()),
    };
    let (head, body) = head.into_parts();
    let text = |name| head.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let got = Got { code: Code::Ok, value: None, degraded: text(DEGRADED), age: text(AGE) };
    match body.collect().await {
        Err(error) => Got { code: Verdict::of_error(&error).code(), ..got },
        Ok(collected) => {
            let code = collected.trailers().and_then(status::code);
            let code = code.or(status::code(&head.headers)).unwrap_or(Code::Unknown);
            let bytes = collected.to_bytes();
            let value = bytes.get(5..).and_then(|message| u32::decode(message).ok());
            Got { code, value: value.filter(|_| code == Code::Ok), ..got }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_good_answer_is_given_with_its_age_when_the_service_fails() {
    let layer = caching();
    let client = layer.layer(ScriptedServer::new([ok(7), ok(8), down()]));
    assert_eq!(ask(&client, balance()).await, live(7));
    advance(10 * SECOND).await;
    assert_eq!(ask(&client, balance()).await, live(8));
    assert_eq!(ask(&client, balance()).await, cached(8, 0));
    advance(Duration::from_millis(42_900)).await;
    assert_eq!(ask(&client, balance()).await, cached(8, 42));
    let counted = layer.counters();
    assert_eq!((counted.served_cached, counted.none, counted.kept_entries), (2, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn an_answer_older_than_its_limit_is_never_given_and_is_dropped() {
    let cache = Cache { max_age: 60 * SECOND, ..Cache::default() };
    let layer = FallbackSettings::new(methods()).with_cache(cache).unwrap().layer();
    let client = layer.layer(ScriptedServer::new([ok(7), down()]));
    ask(&client, balance()).await;
    advance(60 * SECOND).await;
    assert_eq!(ask(&client, balance()).await, cached(7, 60));
    assert_ne!(layer.counters().kept_bytes, 0);
    advance(Duration::from_millis(1)).await;
    assert_eq!(ask(&client, balance()).await, unavailable());
    let counted = layer.counters();
    assert_eq!((counted.kept_entries, counted.kept_bytes, counted.none), (0, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn another_request_is_not_given_the_answer_to_this_one() {
    let client = caching().layer(ScriptedServer::new([ok(7), down()]));
    ask(&client, balance()).await;
    assert_eq!(ask(&client, request(BALANCE, 2)).await, unavailable());
    assert_eq!(ask(&client, request("/bank.Bank/Limit", 1)).await, unavailable());
    assert_eq!(ask(&client, request("http://other/bank.Bank/Balance", 1)).await, unavailable());
    assert_eq!(ask(&client, balance()).await, cached(7, 0));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_an_answer_and_a_cancellation_is_passed_on() {
    let refusals = [Code::NotFound, Code::PermissionDenied, Code::InvalidArgument];
    for code in refusals.into_iter().chain([Code::Cancelled]) {
        let status = || Status::new(code, "simulated");
        let replies = [ok(7), Reply::Status(status()), Reply::HeadersThenStatus(status())];
        let client = caching().layer(ScriptedServer::new(replies));
        ask(&client, balance()).await;
        assert_eq!(ask(&client, balance()).await, failed(code));
        assert_eq!(ask(&client, balance()).await, failed(code), "in trailers");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_any_form_is_a_failure() {
    let lost = || Status::unavailable("simulated");
    for reply in [
        down(),
        Reply::HeadersThenStatus(lost()),
        Reply::MessageThenStatus(encode(&9_u32), lost()),
        Reply::Reset(h2::Reason::INTERNAL_ERROR),
        Reply::Status(Status::resource_exhausted("full")),
    ] {
        let client = caching().layer(ScriptedServer::new([ok(7), reply.clone()]));
        ask(&client, balance()).await;
        assert_eq!(ask(&client, balance()).await, cached(7, 0), "{reply:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_method_with_side_effects_is_masked_only_if_forced() {
    let plain = caching();
    let forced = settings().with_forced("bank.Bank", "Withdraw").unwrap().layer();
    let service = settings().with_forced("bank.Bank", "").unwrap().layer();
    for (layer, expected) in
        [(plain, unavailable()), (forced, cached(7, 0)), (service, cached(7, 0))]
    {
        let client = layer.layer(ScriptedServer::new([ok(7), down()]));
        ask(&client, request(WITHDRAW, 1)).await;
        assert_eq!(ask(&client, request(WITHDRAW, 1)).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn the_default_of_a_method_is_given_if_there_is_no_other_answer() {
    let layer = FallbackSettings::new(methods())
        .with_default("bank.Bank", "Balance", 5_u32.encode_to_vec())
        .unwrap()
        .layer();
    let client = layer.layer(ScriptedServer::new([down()]));
    assert_eq!(ask(&client, balance()).await, second("default", 5));
    assert_eq!(ask(&client, request("/bank.Bank/Limit", 1)).await, unavailable());
    assert_eq!(layer.counters().served_default, 1);
}

#[tokio::test(start_paused = true)]
async fn second_answers_are_alternate_then_cached_then_default() {
    let alternate = ScriptedServer::new([
        ok(3),
        down(),
        Reply::Status(Status::not_found("not here")),
        Reply::HeadersThenStatus(Status::internal("simulated")),
        ok(4),
    ]);
    let layer = settings()
        .with_default("bank.Bank", "", 5_u32.encode_to_vec())
        .unwrap()
        .with_alternate(alternate.clone())
        .layer();
    let client = layer.layer(ScriptedServer::new([ok(7), down()]));
    assert_eq!(ask(&client, balance()).await, live(7));
    assert_eq!(alternate.attempts(), 0, "it is asked for failures only");
    assert_eq!(ask(&client, balance()).await, second("alternate", 3));
    assert_eq!(ask(&client, balance()).await, cached(7, 0), "the alternate fails");
    assert_eq!(ask(&client, balance()).await, cached(7, 0), "the alternate refuses");
    assert_eq!(ask(&client, request(BALANCE, 2)).await, second("default", 5));
    assert_eq!(ask(&client, request(BALANCE, 2)).await, second("alternate", 4));
    assert_eq!(alternate.received()[4].message(), Some(2_u32));
    let counted = layer.counters();
    assert_eq!((counted.served_alternate, counted.served_cached), (2, 2));
    assert_eq!((counted.served_default, counted.none, counted.kept_entries), (1, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_marked_degraded_is_not_kept() {
    let server = ScriptedServer::new([ok(7), down()]);
    let degraded = tower::util::MapResponse::new(server, |mut response: Response<Body>| {
        response.headers_mut().insert(DEGRADED, http::HeaderValue::from_static("partial"));
        response
    });
    let client = caching().layer(degraded);
    assert_eq!(ask(&client, balance()).await, second("partial", 7), "passed on as it is");
    let got = ask(&client, balance()).await;
    assert_eq!((got.code, got.value), (Code::Unavailable, None));
}

#[tokio::test(start_paused = true)]
async fn an_age_of_every_size_is_refused_by_name_or_works() {
    const TINY: Duration = Duration::from_nanos(1);
    for max_age in [Duration::ZERO, TINY, SECOND, Duration::MAX - TINY, Duration::MAX] {
        let cache = Cache { max_age, max_bytes: usize::MAX, max_answer: usize::MAX };
        let layer = match FallbackSettings::new(methods()).with_cache(cache) {
            Ok(settings) => settings.layer(),
            Err(refused) => {
                let said = "max_age: 0 s is not allowed; the range is more than 0 s";
                assert_eq!((refused.to_string().as_str(), max_age), (said, Duration::ZERO));
                continue;
            }
        };
        let client = layer.layer(ScriptedServer::new([ok(7), down()]));
        ask(&client, balance()).await;
        assert_eq!(ask(&client, balance()).await, cached(7, 0), "{max_age:?}");
        const YEAR: u32 = 365 * 24 * 3600;
        advance(100 * YEAR * SECOND).await;
        let expected = if max_age > SECOND { cached(7, 100 * YEAR) } else { unavailable() };
        assert_eq!(ask(&client, balance()).await, expected, "{max_age:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn settings_out_of_range_are_refused_by_name() {
    let refused = |cache| FallbackSettings::new(methods()).with_cache(cache).unwrap_err().field();
    let cache = Cache::default();
    assert_eq!(refused(Cache { max_age: Duration::ZERO, ..cache }), "max_age");
    assert_eq!(refused(Cache { max_bytes: 0, ..cache }), "max_bytes");
    assert_eq!(refused(Cache { max_answer: 0, ..cache }), "max_answer");
    assert_eq!(refused(Cache { max_bytes: 9, max_answer: 10, ..cache }), "max_answer");
    let settings = settings().with_forced("bank.Bank", "Withdraw").unwrap();
    for (service, method, field) in
        [("bank.Bank", "Withdraw", "name"), ("bank.Bank", "Watch", "method"), ("", "X", "method")]
    {
        let refused = settings.clone().with_forced(service, method).unwrap_err();
        assert_eq!(refused.field(), field, "{service} {method}");
    }
    assert!(settings.with_default("bank.Bank", "Watch", Bytes::new()).is_err());
}
