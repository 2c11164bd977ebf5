//! The breaker as its callers see it, in virtual time.

mod harm;
mod impatience;
mod numbers;
mod settle;

use super::*;
use bytes::Bytes;
use cinchona_core::{BoxError, Evidence, Gate, Mode, Rejected, Rng, Switch, Verdict};
use cinchona_plumbing::{cause, status};
use cinchona_testkit::{Answer, Logs, ScriptedServer, encode};
use http_body_util::BodyExt;
use proptest::prelude::*;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, advance, sleep, timeout};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service, ServiceExt, service_fn};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A policy that opens after three failures in a row, for 5 s at first.
fn policy() -> BreakerPolicy {
    let three = BreakerPolicy::default().with_consecutive_failures(Some(3)).unwrap();
    three.with_open_for(5 * SECOND, 120 * SECOND).unwrap()
}

fn settings(policy: BreakerPolicy) -> BreakerSettings {
    BreakerSettings::new(policy).with_rng(Rng::seeded(1))
}

fn layer(policy: BreakerPolicy) -> BreakerLayer {
    settings(policy).layer()
}

fn request() -> http::Request<Body> {
    http::Request::post("/calculator.Calculator/Add").body(Body::empty()).unwrap()
}

fn answer(code: Code) -> Answer {
    match code {
        Code::Ok => Answer::Ok(encode(&7_u32)),
        code => Answer::Status(Status::new(code, "said the server")),
    }
}

/// The result of the call, read to its end.
async fn call<S, B>(service: &S) -> Code
where
    S: Service<http::Request<Body>, Response = http::Response<B>> + Clone,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    match service.clone().oneshot(request()).await {
        Err(error) => Verdict::status_of(error.into()).code(),
        Ok(response) => match status::code(response.headers()) {
            Some(code) => code,
            None => match response.into_body().collect().await {
                Ok(body) => body.trailers().and_then(status::code).unwrap_or(Code::Unknown),
                Err(error) => Verdict::status_of(error.into()).code(),
            },
        },
    }
}

/// How often the server was called while it answered with these codes.
async fn play(policy: BreakerPolicy, codes: &[Code]) -> (BreakerLayer, usize) {
    let (layer, server) = (layer(policy), ScriptedServer::new(codes.iter().copied().map(answer)));
    let service = layer.layer(server.clone());
    for _ in codes {
        call(&service).await;
    }
    (layer, server.attempts())
}

fn circuit(layer: &BreakerLayer) -> Circuit {
    layer.circuit("/calculator.Calculator/Add")
}

/// The answer of a server that sheds load.
fn later(pushback: &str) -> Status {
    let mut status = Status::unavailable("too much to do");
    status.metadata_mut().insert("grpc-retry-pushback-ms", pushback.parse().unwrap());
    status
}

#[tokio::test(start_paused = true)]
async fn a_failure_with_a_pushback_is_no_failure_of_the_server() {
    let rate = policy().with_failure_rate(0.1).and_then(|policy| policy.with_min_calls(5));
    let sheds = ["0", "250", "-1"].map(later);
    let heads = sheds.clone().map(Answer::Status);
    for shed in heads.into_iter().chain(sheds.map(Answer::HeadersThenStatus)) {
        let (layer, server) = (layer(rate.clone().unwrap()), ScriptedServer::new([shed]));
        let service = layer.layer(server.clone());
        for _ in 0..20 {
            assert_eq!(call(&service).await, Code::Unavailable);
        }
        assert_eq!((circuit(&layer).state(), server.attempts()), (State::Closed, 20));
    }
    // Nor does it show that the others have ended.
    let shed = Answer::Status(later("0"));
    let script = [answer(Code::Unavailable), shed, answer(Code::Unavailable)];
    let (layer, server) =
        (layer(policy()), ScriptedServer::new(script.into_iter().chain([answer(Code::Internal)])));
    let service = layer.layer(server);
    for _ in 0..4 {
        call(&service).await;
    }
    assert_eq!(circuit(&layer).state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn three_failures_in_a_row_open_it_and_a_success_between_them_does_not() {
    use Code::{Ok, Unavailable};
    let (opened, asked) = play(policy(), &[Unavailable; 10]).await;
    assert_eq!((circuit(&opened).state(), asked), (State::Open, 3));
    assert_eq!(circuit(&opened).rejected(), 7);
    let between = [Unavailable, Unavailable, Ok].repeat(10);
    let (closed, asked) = play(policy(), &between).await;
    assert_eq!((circuit(&closed).state(), asked), (State::Closed, 30));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_application_is_no_failure_and_a_cancellation_does_not_count() {
    for code in [Code::NotFound, Code::InvalidArgument, Code::PermissionDenied, Code::Aborted] {
        let (layer, _) = play(policy(), &[code; 10]).await;
        assert_eq!(circuit(&layer).state(), State::Closed, "{code:?}");
        let (layer, _) =
            play(policy(), &[Code::Unavailable, Code::Unavailable, code, Code::Unavailable]).await;
        assert_eq!(circuit(&layer).state(), State::Closed, "{code:?} is an answer");
    }
    for code in [Code::DataLoss, Code::Internal, Code::Unknown, Code::DeadlineExceeded] {
        let (layer, _) = play(policy(), &[code; 3]).await;
        assert_eq!(circuit(&layer).state(), State::Open, "{code:?}");
    }
    use Code::Unavailable;
    for code in [Code::Cancelled, Code::ResourceExhausted] {
        let (layer, _) = play(policy(), &[code; 10]).await;
        assert_eq!(circuit(&layer).state(), State::Closed, "{code:?}");
        let (layer, _) = play(policy(), &[Unavailable, code, Unavailable, code, Unavailable]).await;
        assert_eq!(circuit(&layer).state(), State::Open, "{code:?} says nothing");
    }
    for code in [Code::NotFound, Code::ResourceExhausted, Code::Cancelled, Code::Aborted] {
        let counted = policy().with_counted([code]).unwrap();
        let (layer, _) = play(counted, &[code; 3]).await;
        assert_eq!(circuit(&layer).state(), State::Open, "{code:?} is counted");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejection_is_unavailable_unprocessed_and_has_the_time_of_the_next_probe() {
    let (layer, _) = play(policy(), &[Code::Unavailable; 3]).await;
    let service = layer.layer(ScriptedServer::new([]));
    let error = service.oneshot(request()).await.unwrap_err();
    assert_eq!(Verdict::of_error(&*error).code(), Code::Unavailable);
    assert!(matches!(Verdict::of_error(&*error), Verdict::NotProcessed(_)));
    let unsent: &Rejected = cause::find_cause(&*error).unwrap();
    let wait = unsent.retry_after().unwrap();
    assert!((4 * SECOND..=6 * SECOND).contains(&wait), "{wait:?}");
    assert_eq!(Some(wait), circuit(&layer).next_probe_in());
    let status = Status::from_error(error);
    assert_eq!(status.code(), Code::Unavailable);
    let wait = format!("{wait:.1?}");
    assert!(status.message().contains(&wait), "{status}");
}

#[tokio::test(start_paused = true)]
async fn it_opens_for_longer_each_time_and_closes_after_a_probe_that_succeeds() {
    let codes = [[Code::Unavailable; 3].as_slice(), &[Code::Unavailable; 3], &[Code::Ok]].concat();
    let server = ScriptedServer::new(codes.into_iter().map(answer));
    let layer = layer(policy());
    let service = layer.layer(server.clone());
    for _ in 0..3 {
        call(&service).await;
    }
    for (probes, base) in [(0, 5), (1, 10), (2, 20), (3, 40)] {
        let wait = circuit(&layer).next_probe_in().unwrap();
        let (least, most) = (base * SECOND * 8 / 10, base * SECOND * 12 / 10);
        assert!((least..=most).contains(&wait), "{wait:?} after {probes}");
        sleep(wait - MS).await;
        assert_eq!(call(&service).await, Code::Unavailable);
        assert_eq!(server.attempts(), 3 + probes, "not yet");
        sleep(MS).await;
        let expected = if probes < 3 { Code::Unavailable } else { Code::Ok };
        assert_eq!(call(&service).await, expected);
    }
    assert_eq!(circuit(&layer).state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn one_probe_is_in_flight_at_a_time_and_a_dropped_one_gives_its_place_back() {
    let server = ScriptedServer::new(
        [Code::Unavailable; 3].map(answer).into_iter().chain([Answer::Hang, answer(Code::Ok)]),
    );
    let layer = layer(policy());
    let service = layer.layer(server.clone());
    for _ in 0..3 {
        call(&service).await;
    }
    sleep(7 * SECOND).await;
    let mut probe = tokio_test::task::spawn(service.clone().oneshot(request()));
    assert!(probe.poll().is_pending());
    assert_eq!(circuit(&layer).state(), State::HalfOpen);
    assert_eq!((call(&service).await, server.attempts()), (Code::Unavailable, 4), "rejected");
    drop(probe);
    assert_eq!(circuit(&layer).state(), State::HalfOpen);
    assert_eq!((call(&service).await, server.attempts()), (Code::Ok, 5));
    assert_eq!(circuit(&layer).state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_never_ends_blocks_the_others_for_a_limited_time() {
    let server = ScriptedServer::new(
        [Code::Unavailable; 3].map(answer).into_iter().chain([Answer::Hang, answer(Code::Ok)]),
    );
    let layer = layer(policy());
    let service = layer.layer(server.clone());
    for _ in 0..3 {
        call(&service).await;
    }
    sleep(7 * SECOND).await;
    let mut probe = tokio_test::task::spawn(service.clone().oneshot(request()));
    assert!(probe.poll().is_pending());
    sleep(4 * SECOND).await;
    assert_eq!((call(&service).await, server.attempts()), (Code::Unavailable, 4));
    sleep(2 * SECOND).await;
    assert_eq!((call(&service).await, server.attempts()), (Code::Ok, 5));
}

#[tokio::test(start_paused = true)]
async fn a_call_past_its_deadline_has_failed_and_a_dropped_one_has_not() {
    for (given, state) in [(Some("1S"), State::Open), (None, State::Closed)] {
        let layer = layer(policy());
        let service = layer.layer(ScriptedServer::new([Answer::Hang]));
        for _ in 0..3 {
            let mut request = request();
            if let Some(given) = given {
                request.headers_mut().insert("grpc-timeout", given.parse().unwrap());
            }
            assert!(timeout(SECOND, service.clone().oneshot(request)).await.is_err());
        }
        assert_eq!(circuit(&layer).state(), state);
    }
}

#[tokio::test(start_paused = true)]
async fn a_straggler_changes_nothing() {
    let slow = Answer::After(10 * SECOND, Box::new(answer(Code::Ok)));
    let server = ScriptedServer::new([slow].into_iter().chain([Code::Unavailable; 4].map(answer)));
    let layer = layer(policy());
    let service = layer.layer(server);
    let straggler = tokio::spawn({
        let service = service.clone();
        async move { call(&service).await }
    });
    sleep(MS).await;
    for _ in 0..3 {
        call(&service).await;
    }
    sleep(7 * SECOND).await;
    assert_eq!(call(&service).await, Code::Unavailable, "the probe");
    assert_eq!(straggler.await.unwrap(), Code::Ok);
    assert_eq!(circuit(&layer).state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn the_failure_rate_in_the_last_calls_opens_it() {
    let rate = policy()
        .with_consecutive_failures(None)
        .and_then(|policy| policy.with_failure_rate(0.5))
        .and_then(|policy| policy.with_window(Window::Count(10)))
        .unwrap();
    use Code::{Ok, Unavailable};
    let (layer, asked) = play(rate, &[[Ok; 100].as_slice(), &[Unavailable; 10]].concat()).await;
    // A real window: the hundred successes before have left it.
    assert_eq!((circuit(&layer).state(), asked), (State::Open, 105));
    let (layer, asked) = play(rate, &[Ok, Ok, Unavailable].repeat(50)).await;
    assert_eq!((circuit(&layer).state(), asked), (State::Closed, 150));
}

#[tokio::test(start_paused = true)]
async fn the_share_of_slow_calls_opens_it_and_a_slow_probe_keeps_it_open() {
    let slow = policy()
        .with_slow_calls(2 * SECOND, 0.5)
        .and_then(|policy| policy.with_window(Window::Time(60 * SECOND)))
        .and_then(|policy| policy.with_min_calls(4))
        .unwrap();
    let layer = layer(slow);
    let service = layer.layer(service_fn(|_: http::Request<Body>| async {
        sleep(2 * SECOND).await;
        Ok::<_, BoxError>(Status::ok("").into_http::<Body>())
    }));
    for n in 0..4 {
        assert_eq!(circuit(&layer).state(), State::Closed, "after {n}");
        assert_eq!(call(&service).await, Code::Ok);
    }
    assert_eq!(circuit(&layer).state(), State::Open);
    sleep(7 * SECOND).await;
    assert_eq!(call(&service).await, Code::Ok);
    assert_eq!(circuit(&layer).state(), State::Open, "it answered, slowly");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_and_trailers_that_fail_are_failures() {
    for broken in [
        Answer::MessageThenStatus(encode(&7_u32), Status::unavailable("in the trailers")),
        Answer::HeadersThenStatus(Status::internal("in the trailers")),
    ] {
        let layer = layer(policy());
        let network = cinchona_testkit::Network::new();
        let _serving = network.serve_service(ScriptedServer::new([broken]));
        let service = layer.layer(network.channel());
        for _ in 0..3 {
            assert_ne!(call(&service).await, Code::Ok);
        }
        assert_eq!(circuit(&layer).state(), State::Open);
    }
}

#[tokio::test(start_paused = true)]
async fn each_method_has_its_own_circuit_if_asked_for() {
    let layer = settings(policy()).with_name("payments").per_method().layer();
    let service = layer.layer(service_fn(|request: http::Request<Body>| async move {
        let fails = request.uri().path() == "/s/Fails";
        let code = if fails { Code::Unavailable } else { Code::Ok };
        Ok::<_, BoxError>(Status::new(code, "").into_http::<Body>())
    }));
    for path in ["/s/Fails", "/s/Works"].repeat(5) {
        let request = http::Request::post(path).body(Body::empty()).unwrap();
        let outcome = service.clone().oneshot(request).await;
        assert!(outcome.is_ok() || path == "/s/Fails");
    }
    let states: Vec<_> =
        layer.circuits().iter().map(|c| (c.name().to_owned(), c.state())).collect();
    let expected = [("payments/s/Fails", State::Open), ("payments/s/Works", State::Closed)];
    assert_eq!(states, expected.map(|(name, state)| (name.to_owned(), state)));
}

#[tokio::test(start_paused = true)]
async fn an_unbounded_number_of_paths_shares_a_circuit() {
    let layer = settings(policy()).per_method().layer();
    for n in 0..3000 {
        layer.circuit(&format!("/s/{n}"));
    }
    assert_eq!(layer.circuits().len(), 1001);
}

#[tokio::test(start_paused = true)]
async fn in_shadow_it_counts_and_off_it_ignores_calls() {
    for (mode, state, counted) in [(Mode::Shadow, State::Open, 7), (Mode::Off, State::Closed, 0)] {
        let switch = Switch::new(mode);
        let layer = settings(policy()).with_switch(switch.clone()).layer();
        let server = ScriptedServer::new([answer(Code::Unavailable)]);
        let service = layer.layer(server.clone());
        for _ in 0..10 {
            call(&service).await;
        }
        assert_eq!(server.attempts(), 10);
        assert_eq!((circuit(&layer).state(), switch.shadowed()), (state, counted));
        assert_eq!(layer.counters().rejected, 0, "all have passed");
    }
}

// catalogue: S-C10
#[tokio::test(start_paused = true)]
async fn failures_before_it_was_off_are_cleared_but_circuits_opened_by_hand_stay_open() {
    let switch = Switch::default();
    let layer = settings(policy()).with_switch(switch.clone()).layer();
    let service = layer.layer(ScriptedServer::new([answer(Code::Unavailable)]));
    let off_and_on = || {
        switch.set(Mode::Off);
        switch.set(Mode::Enforce);
    };
    for _ in 0..4 {
        // One less than would open it.
        call(&service).await;
        call(&service).await;
        off_and_on();
    }
    call(&service).await;
    let circuit = circuit(&layer);
    assert_eq!(circuit.state(), State::Closed);
    call(&service).await;
    call(&service).await;
    assert_eq!(circuit.state(), State::Open);
    off_and_on();
    call(&service).await;
    assert_eq!(circuit.state(), State::Closed);
    circuit.open();
    off_and_on();
    call(&service).await;
    assert_eq!(circuit.state(), State::Isolated);
}

#[tokio::test(start_paused = true)]
async fn by_hand_it_is_opened_and_closed() {
    let layer = layer(policy());
    let server = ScriptedServer::new([answer(Code::Ok)]);
    let service = layer.layer(server.clone());
    let circuit = circuit(&layer);
    circuit.open();
    sleep(3600 * SECOND).await;
    assert_eq!((call(&service).await, server.attempts()), (Code::Unavailable, 0));
    assert_eq!((circuit.state(), circuit.next_probe_in()), (State::Isolated, None));
    circuit.close();
    assert_eq!((call(&service).await, server.attempts()), (Code::Ok, 1));
}

#[tokio::test(start_paused = true)]
async fn each_change_is_reported_and_logged_once() {
    let logs = Logs::capture();
    let server = ScriptedServer::new(
        [Code::Unavailable; 3].map(answer).into_iter().chain([answer(Code::Ok)]),
    );
    let layer = settings(policy()).with_name("payments").layer();
    let service = layer.layer(server);
    let mut changes = circuit(&layer).watch();
    for _ in 0..5 {
        call(&service).await;
    }
    assert_eq!(*changes.borrow_and_update(), State::Open);
    advance(7 * SECOND).await;
    let head = service.clone().oneshot(request()).await.unwrap();
    assert_eq!(*changes.borrow_and_update(), State::Closed, "the head is an answer");
    head.into_body().collect().await.unwrap();
    assert!(!changes.has_changed().unwrap());
    let events = logs.events();
    let said: Vec<_> = events.iter().filter(|event| event.message == "circuit breaker").collect();
    assert_eq!(said.len(), 3, "{said:#?}");
}

#[tokio::test(start_paused = true)]
async fn the_gate_of_an_endpoint_is_a_breaker() {
    let layer = layer(policy());
    let (one, other) = (layer.endpoint("one"), layer.endpoint("other"));
    let now = Instant::now();
    let fail = |gate: &Arc<dyn Gate>| {
        let ticket = gate.enter("/s/M", now)?;
        gate.leave(ticket, Evidence::Bad(Code::DeadlineExceeded), SECOND, now);
        Ok::<_, Rejected>(())
    };
    (0..3).for_each(|_| fail(&one).unwrap());
    assert!(!one.is_open_to("/s/M", now) && other.is_open_to("/s/M", now));
    assert!(fail(&one).unwrap_err().retry_after().is_some());
    assert!(one.is_open_to("/s/M", now + 7 * SECOND), "for a probe");
    let probe = one.enter("/s/M", now + 7 * SECOND).unwrap();
    assert!(!one.is_open_to("/s/M", now + 7 * SECOND), "for one");
    one.leave(probe, Evidence::Good(Code::Ok), MS, now + 7 * SECOND);
    assert!(one.is_open_to("/s/M", now + 7 * SECOND));
    let names: Vec<_> = layer.circuits().iter().map(|c| c.name().to_owned()).collect();
    assert_eq!(names, ["one", "other"]);
    drop(one);
    assert_eq!(layer.circuits().len(), 1, "circuits of removed endpoints are dropped");
}

#[tokio::test(start_paused = true)]
async fn it_is_ready_when_the_service_below_is() {
    let (mut service, mut below) = tower_test::mock::spawn_with(|mock| layer(policy()).layer(mock));
    below.allow(0);
    tokio_test::assert_pending!(service.poll_ready());
    below.allow(1);
    tokio_test::assert_ready_ok!(service.poll_ready());
    let mut called = tokio_test::task::spawn(service.call(request()));
    let (_, answering): (http::Request<Body>, _) = below.next_request().await.unwrap();
    answering.send_response(Status::ok("").into_http::<Body>());
    tokio_test::assert_ready_ok!(called.poll());
}

#[tokio::test(start_paused = true)]
async fn the_failure_rate_of_the_window_can_be_read_and_goes_with_it() {
    let rates = policy().with_consecutive_failures(None).unwrap().with_failure_rate(0.9).unwrap();
    let (layer, _) = play(rates, &[Code::Ok, Code::Unavailable, Code::Ok, Code::Ok]).await;
    let circuit = &layer.circuits()[0];
    assert_eq!(circuit.failure_rate(), Some(0.25));
    sleep(11 * SECOND).await;
    assert_eq!(circuit.failure_rate(), None, "the window is empty");
    let (layer, _) = play(policy(), &[Code::Unavailable]).await;
    assert_eq!(layer.circuits()[0].failure_rate(), None, "it has no window");
}
