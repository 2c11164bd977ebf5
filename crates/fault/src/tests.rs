//! The laws of the service, in virtual time.

use super::*;
use cinchona_core::Switch;
use http_body_util::{BodyExt, Full};
use std::{convert::Infallible, time::Duration};
use tokio::time::Instant;
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok, task};
use tonic::Code;
use tower::{Layer, ServiceExt, service_fn};
use tower_test::mock;

const DELAY: Duration = Duration::from_secs(3);

type Mock = mock::Mock<http::Request<Body>, http::Response<Body>>;
type Handle = mock::Handle<http::Request<Body>, http::Response<Body>>;

fn mocked(faults: Faults) -> (Fault<Mock>, Handle, FaultLayer) {
    let layer = FaultLayer::new(faults).unwrap();
    let (mock, handle) = mock::pair();
    (layer.layer(mock), handle, layer)
}

fn slow() -> Faults {
    Faults { slow_rate: 1.0, ..Faults::default() }
}

fn failing(when: When) -> Faults {
    Faults { failure_rate: 1.0, when, ..Faults::default() }
}

fn request() -> http::Request<Body> {
    http::Request::builder().uri("/calculator.Calculator/Add").body(Body::empty()).unwrap()
}

fn code_of(response: &http::Response<Body>) -> Option<Code> {
    cinchona_plumbing::status::code(response.headers())
}

#[tokio::test(start_paused = true)]
async fn at_rate_0_request_and_response_pass_through_byte_for_byte() {
    let bytes: Vec<u8> = (0..=255).collect();
    let sent = bytes.clone();
    let echo = service_fn(|request: http::Request<Full<bytes::Bytes>>| async move {
        let (parts, body) = request.into_parts();
        let mut response = http::Response::builder().status(418).body(Body::new(body)).unwrap();
        *response.headers_mut() = parts.headers;
        response.headers_mut().insert("path", parts.uri.path().parse().unwrap());
        response.extensions_mut().insert(*parts.extensions.get::<u8>().unwrap());
        Ok::<_, Infallible>(response)
    });
    let layer = FaultLayer::new(Faults::default()).unwrap();
    let mut request = http::Request::builder()
        .uri("/a.B/C")
        .header("k", "v")
        .header("k", "w")
        .body(Full::new(sent.into()))
        .unwrap();
    request.extensions_mut().insert(7u8);
    let response = layer.layer(echo).oneshot(request).await.unwrap();
    assert_eq!(response.status(), 418);
    assert_eq!(response.extensions().get(), Some(&7u8));
    let values: Vec<_> =
        response.headers().iter().map(|(k, v)| (k.as_str(), v.as_bytes())).collect();
    assert_eq!(values, [("k", &b"v"[..]), ("k", b"w"), ("path", b"/a.B/C")]);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), bytes);
    let expected = FaultCounters { matched: 1, executed: 1, ..FaultCounters::default() };
    assert_eq!(layer.counters(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_failure_before_is_not_executed_and_one_after_is() {
    for (when, executed) in [(When::Before, 0), (When::After, 1)] {
        let layer = FaultLayer::new(failing(when)).unwrap();
        let service = service_fn(|_: http::Request<Body>| async {
            Ok::<_, Infallible>(http::Response::new(Body::empty()))
        });
        let response = layer.layer(service).oneshot(request()).await.unwrap();
        assert_eq!(code_of(&response), Some(Code::Unavailable));
        let seen = layer.counters();
        let failed = (seen.failed_before, seen.failed_after);
        assert_eq!(
            (seen.executed, failed, seen.abandoned),
            (executed, (1 - executed, executed), 0)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_request_waits_and_then_goes_on() {
    let (service, mut handle, layer) = mocked(slow());
    handle.allow(1);
    let began = Instant::now();
    let answering = async {
        let (_, send) = handle.next_request().await.unwrap();
        assert_eq!(Instant::now() - began, DELAY);
        send.send_response(http::Response::new(Body::empty()));
    };
    let (response, ()) = tokio::join!(service.oneshot(request()), answering);
    assert_eq!(code_of(&response.unwrap()), None);
    assert_eq!(layer.counters().delayed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_hit_by_both_waits_and_then_fails() {
    let (service, mut handle, layer) = mocked(Faults { failure_rate: 1.0, ..slow() });
    handle.allow(1);
    let began = Instant::now();
    let response = service.oneshot(request()).await.unwrap();
    assert_eq!((code_of(&response), Instant::now() - began), (Some(Code::Unavailable), DELAY));
    let seen = layer.counters();
    assert_eq!((seen.delayed, seen.failed_before, seen.executed), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_delayed_request_whose_client_cancels_is_never_executed() {
    let (mut service, mut handle, layer) = mocked(slow());
    handle.allow(1);
    service.ready().await.unwrap();
    let mut call = task::spawn(service.call(request()));
    assert_pending!(call.poll());
    drop(call);
    tokio::time::sleep(2 * DELAY).await;
    let mut next = task::spawn(handle.next_request());
    assert_pending!(next.poll());
    assert_eq!(layer.counters().abandoned, 1);
}

#[tokio::test(start_paused = true)]
async fn readiness_and_its_errors_are_those_of_the_service() {
    let (service, mut handle, _) = mocked(Faults::default());
    let mut service = mock::Spawn::new(service);
    handle.allow(0);
    assert_pending!(service.poll_ready());
    handle.allow(1);
    assert_ready_ok!(service.poll_ready());
    handle.send_error("gone");
    assert_eq!(assert_ready_err!(service.poll_ready()).to_string(), "gone");
}

#[tokio::test(start_paused = true)]
async fn the_service_that_was_ready_makes_the_delayed_call() {
    // The mock panics when a service is called that was not ready.
    let (mut service, mut handle, _) = mocked(slow());
    handle.allow(2);
    for _ in 0..2 {
        let call = tokio::spawn(service.ready().await.unwrap().call(request()));
        let (_, send) = handle.next_request().await.unwrap();
        send.send_response(http::Response::new(Body::empty()));
        call.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_hits_the_same_requests_in_any_order() {
    async fn hit(order: impl Iterator<Item = u32>) -> Vec<(u32, bool)> {
        let faults = Faults { failure_rate: 0.5, seed: 7, ..Faults::default() };
        let layer = FaultLayer::new(faults).unwrap();
        let service = layer.layer(service_fn(|_: http::Request<Body>| async {
            Ok::<_, Infallible>(http::Response::new(Body::empty()))
        }));
        let calls = order.map(|id| {
            let mut request = request();
            request.headers_mut().insert("x-request-id", id.into());
            let call = service.clone().oneshot(request);
            tokio::spawn(async move { (id, code_of(&call.await.unwrap()).is_some()) })
        });
        let mut hit = Vec::new();
        for call in calls.collect::<Vec<_>>() {
            hit.push(call.await.unwrap());
        }
        hit.sort_unstable();
        hit
    }
    assert_eq!(hit(0..100).await, hit((0..100).rev()).await);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_service_is_passed_through() {
    let layer = FaultLayer::new(failing(When::After)).unwrap();
    let broken = service_fn(|_: http::Request<Body>| async { Err::<http::Response<Body>, _>(42) });
    assert_eq!(layer.layer(broken).oneshot(request()).await.unwrap_err(), 42);
}

#[test]
fn a_wrapped_service_keeps_its_name() {
    #[derive(Clone)]
    struct Named;
    impl NamedService for Named {
        const NAME: &'static str = "calculator.Calculator";
    }
    assert_eq!(<Fault<Named> as NamedService>::NAME, "calculator.Calculator");
}

#[test]
fn a_future_that_is_only_made_counts_as_abandoned() {
    let layer = FaultLayer::new(failing(When::Before)).unwrap();
    let service = service_fn(|_: http::Request<Body>| async {
        Ok::<_, Infallible>(http::Response::new(Body::empty()))
    });
    drop(layer.layer(service).call(request()));
    assert_eq!(layer.counters().abandoned, 1);
}

#[tokio::test(start_paused = true)]
async fn in_shadow_faults_are_counted_and_not_injected() {
    let switch = Switch::new(Mode::Shadow);
    let layer =
        FaultSettings::new(failing(When::Before)).unwrap().with_switch(switch.clone()).layer();
    let service = layer.layer(service_fn(|_: http::Request<Body>| async {
        Ok::<_, Infallible>(http::Response::new(Body::empty()))
    }));
    for (mode, failed, counted) in
        [(Mode::Shadow, false, 1), (Mode::Off, false, 1), (Mode::Enforce, true, 1)]
    {
        switch.set(mode);
        let response = service.clone().oneshot(request()).await.unwrap();
        assert_eq!((code_of(&response).is_some(), switch.shadowed()), (failed, counted));
    }
}
