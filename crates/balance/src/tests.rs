//! Whole balancers over in-memory networks, one for each endpoint.

use super::*;
use cinchona_core::{AttemptKind, Call, DOMAIN, IDEMPOTENCY_KEY, Rng};
use cinchona_testkit::{Answer, Network, ScriptedServer, Serving, encode};
use http_body_util::BodyExt;
use std::{collections::HashMap, time::Duration};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tonic::{Code, Status};
use tower::{ServiceExt, service_fn};

mod campaign;
mod changes;
mod evidence;
mod gates;
mod peers;
mod states;
mod utilization;
mod waits;
mod windows;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// Endpoints `http://0`, `http://1`, ... each with its own script.
struct World {
    networks: Vec<Network>,
    servers: Vec<ScriptedServer>,
    serving: Vec<Option<Serving>>,
}

impl World {
    fn new(scripts: impl IntoIterator<Item = Answer>) -> Self {
        let servers: Vec<_> =
            scripts.into_iter().map(|answer| ScriptedServer::new([answer])).collect();
        let networks: Vec<_> = servers.iter().map(|_| Network::new()).collect();
        let serving = networks.iter().zip(&servers);
        let serving =
            serving.map(|(network, server)| Some(network.serve_service(server.clone()))).collect();
        Self { networks, servers, serving }
    }

    fn of(count: usize) -> Self {
        Self::new((0..count).map(|_| ok()))
    }

    fn targets(&self) -> Vec<Target> {
        (0..self.servers.len()).map(target).collect()
    }

    fn balance(&self, options: Options) -> Balance {
        self.balance_over(self.targets(), options)
    }

    fn balance_over(&self, discover: impl Discover, options: Options) -> Balance {
        let networks: HashMap<String, Network> =
            (0..).zip(&self.networks).map(|(n, net): (usize, _)| (name(n), net.clone())).collect();
        let connector = service_fn(move |uri: Uri| {
            let network = networks[uri.host().unwrap()].clone();
            async move { network.connector().oneshot(uri).await }
        });
        let options = Options { rng: Rng::seeded(1), ..options };
        Balance::with_connector(discover, connector, options).unwrap()
    }

    fn kill(&mut self, n: usize) {
        self.serving[n] = None;
        self.networks[n].refuse(true);
        self.networks[n].reset();
    }

    fn revive(&mut self, n: usize) {
        self.networks[n].refuse(false);
        self.serving[n] = Some(self.networks[n].serve_service(self.servers[n].clone()));
    }

    fn attempts(&self) -> Vec<usize> {
        self.servers.iter().map(ScriptedServer::attempts).collect()
    }
}

fn name(n: usize) -> String {
    format!("e{n}")
}

fn target(n: usize) -> Target {
    format!("http://{}", name(n)).parse::<Uri>().unwrap().into()
}

fn ok() -> Answer {
    Answer::Ok(encode(&1_u32))
}

fn by(picker: Picker) -> Options {
    Options { picker, ..Options::default() }
}

fn request() -> Request<Body> {
    of_call(&record())
}

fn record() -> Call {
    Call::of(&mut Request::new(()), Instant::now).clone()
}

/// The request of another attempt at a call.
fn of_call(call: &Call) -> Request<Body> {
    let mut request = Request::post("http://any/calculator.Calculator/Add").body(Body::empty());
    let attempt = call.begins(AttemptKind::Retry, Instant::now());
    request.as_mut().unwrap().extensions_mut().insert(attempt);
    request.unwrap()
}

async fn send(balance: &Balance, request: Request<Body>) -> Code {
    let outcome = balance.clone().oneshot(request).await;
    match outcome {
        Ok(response) => {
            let head = cinchona_plumbing::status::code(response.headers());
            let body = response.into_body().collect().await;
            let end = body.map_or_else(
                |status| status.code(),
                |body| {
                    body.trailers().and_then(cinchona_plumbing::status::code).unwrap_or(Code::Ok)
                },
            );
            head.unwrap_or(end)
        }
        Err(error) => Status::from_error(error).code(),
    }
}

async fn call(balance: &Balance) -> Code {
    send(balance, request()).await
}

async fn calls(balance: &Balance, count: usize) -> Vec<Code> {
    let mut codes = Vec::new();
    for _ in 0..count {
        codes.push(call(balance).await);
    }
    codes
}

fn failures(codes: &[Code]) -> usize {
    codes.iter().filter(|code| **code != Code::Ok).count()
}

// catalogue: CU-balancers, GO-balancers
#[tokio::test(start_paused = true)]
async fn round_robin_takes_turns() {
    let world = World::of(3);
    let balance = world.balance(by(Picker::RoundRobin));
    sleep(SECOND).await;
    assert_eq!(failures(&calls(&balance, 300).await), 0);
    assert_eq!(world.attempts(), [100; 3]);
}

#[tokio::test(start_paused = true)]
async fn weights_are_kept_within_two_percent() {
    let world = World::of(3);
    let weights = [3, 1, 2];
    let targets: Vec<Target> =
        weights.iter().zip(world.targets()).map(|(w, t)| Target { weight: *w, ..t }).collect();
    let balance = world.balance_over(targets, by(Picker::WeightedRoundRobin));
    sleep(SECOND).await;
    assert_eq!(failures(&calls(&balance, 3000).await), 0);
    for (weight, seen) in weights.into_iter().zip(world.attempts()) {
        let share = seen as f64 / 3000.0;
        assert!((share - f64::from(weight) / 6.0).abs() < 0.02, "{weight}: {share}");
    }
}

#[tokio::test(start_paused = true)]
async fn pick_first_stays_with_the_first_that_is_there() {
    let mut world = World::of(3);
    let balance = world.balance(by(Picker::PickFirst));
    sleep(SECOND).await;
    calls(&balance, 10).await;
    assert_eq!(world.attempts(), [10, 0, 0]);
    world.kill(0);
    sleep(MS).await;
    calls(&balance, 10).await;
    assert_eq!(world.attempts(), [10, 10, 0]);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_refuses_from_the_start_costs_no_call() {
    for picker in [Picker::PeakEwma, Picker::RoundRobin, Picker::WeightedRoundRobin] {
        let mut world = World::of(3);
        world.kill(1);
        let balance = world.balance(by(picker));
        assert_eq!(failures(&calls(&balance, 3000).await), 0, "{picker:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_goes_and_returns_costs_no_call_between_calls() {
    let mut world = World::of(3);
    let balance = world.balance(by(Picker::RoundRobin));
    sleep(SECOND).await;
    calls(&balance, 30).await;
    world.kill(2);
    sleep(MS).await;
    assert_eq!(failures(&calls(&balance, 30).await), 0);
    assert_eq!(world.attempts(), [25, 25, 10]);
    world.revive(2);
    sleep(3 * SECOND).await;
    assert_eq!(failures(&calls(&balance, 30).await), 0);
    assert_eq!(world.attempts(), [35, 35, 20]);
}

// catalogue: GO31
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_down_is_tried_by_grpcs_backoff() {
    let mut world = World::of(1);
    world.kill(0);
    let _balance = world.balance(Options::default());
    // 1, 1.6, 2.56, 4.1, 6.6, 10.5, 16.8, 26.8, 42.9, 68.7, 109.9, 120 s: 13 in 540 s, about.
    sleep(540 * SECOND).await;
    let connects = world.networks[0].connects();
    assert!((12..=16).contains(&connects), "{connects}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_accepts_and_hangs_up_is_not_hammered() {
    let world = World::of(1);
    let _balance = world.balance(Options::default());
    for _ in 0..10_000 {
        sleep(MS).await;
        world.networks[0].reset();
    }
    let connects = world.networks[0].connects();
    assert!(connects <= 8, "{connects} in 10 s");
}

#[tokio::test(start_paused = true)]
async fn without_any_endpoint_calls_wait_for_the_patience_and_then_fail_immediately() {
    let mut world = World::of(2);
    world.kill(0);
    world.kill(1);
    let balance = world.balance(Options::default());
    let began = Instant::now();
    let error = balance.clone().oneshot(request()).await.unwrap_err();
    assert_eq!(Instant::now() - began, SECOND * 3 / 2);
    let rejected = cinchona_core::Verdict::NotProcessed(cinchona_core::Stage::NoConnection);
    assert_eq!(cinchona_core::Verdict::of_error(&*error), rejected);
    let status = Status::from_error(error);
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(
        status.message(),
        "/calculator.Calculator/Add: all 2 endpoints are down: e0: connection refused \
         (1.5s ago); e1: connection refused (1.5s ago)"
    );
    assert_eq!(call(&balance).await, Code::Unavailable);
    assert_eq!(Instant::now() - began, SECOND * 3 / 2, "at once");
    world.revive(1);
    sleep(5 * SECOND).await;
    assert_eq!(call(&balance).await, Code::Ok);
}

#[tokio::test(start_paused = true)]
async fn endpoints_can_change_while_calls_run() {
    let world = World::of(3);
    let (targets, found) = watch::channel(Vec::new());
    let balance = world.balance_over(found, by(Picker::RoundRobin));
    let waiting = tokio::spawn({
        let balance = balance.clone();
        async move { call(&balance).await }
    });
    sleep(SECOND).await;
    assert!(!waiting.is_finished(), "nothing is found yet");
    targets.send_replace(vec![target(0)]);
    assert_eq!(waiting.await.unwrap(), Code::Ok);
    targets.send_replace(vec![target(1), target(2)]);
    sleep(SECOND).await;
    assert_eq!(failures(&calls(&balance, 20).await), 0);
    assert_eq!(world.attempts(), [1, 10, 10]);
    assert_eq!(world.networks[0].live(), 0, "a removed endpoint is disconnected");
    drop(balance);
    sleep(SECOND).await;
    assert!(world.networks.iter().all(|network| network.live() == 0));
}

#[tokio::test(start_paused = true)]
async fn another_attempt_goes_to_another_endpoint_if_there_is_one() {
    for picker in [Picker::PeakEwma, Picker::RoundRobin, Picker::WeightedRoundRobin] {
        let world = World::of(3);
        let balance = world.balance(by(picker));
        sleep(SECOND).await;
        for _ in 0..50 {
            let (call, before) = (record(), world.attempts());
            for _ in 0..3 {
                assert_eq!(send(&balance, of_call(&call)).await, Code::Ok);
            }
            let each: Vec<usize> =
                world.attempts().iter().zip(before).map(|(now, before)| now - before).collect();
            assert_eq!(each, [1; 3], "{picker:?}");
            assert_eq!(send(&balance, of_call(&call)).await, Code::Ok, "there is no other");
        }
    }
}

/// A server that names its dedup domain, and refuses calls.
fn in_domain(domain: &str) -> Answer {
    let mut status = Status::unavailable("try again");
    status.metadata_mut().insert("idempotency-domain", domain.parse().unwrap());
    Answer::Status(status)
}

#[tokio::test(start_paused = true)]
async fn a_call_with_a_key_is_sent_again_only_where_it_is_recognised() {
    let world = World::new([in_domain("a"), in_domain("b"), in_domain("a"), ok()]);
    let balance = world.balance(by(Picker::RoundRobin));
    sleep(SECOND).await;
    calls(&balance, 8).await;
    for _ in 0..8 {
        let before = world.attempts();
        let call = record();
        for _ in 0..4 {
            let mut request = of_call(&call);
            request.headers_mut().insert(IDEMPOTENCY_KEY, "k".parse().unwrap());
            send(&balance, request).await;
        }
        let each: Vec<usize> =
            world.attempts().iter().zip(before).map(|(now, before)| now - before).collect();
        let expected = [vec![2, 0, 2, 0], vec![0, 4, 0, 0], vec![0, 0, 0, 4]];
        assert!(
            expected.contains(&each) || each == [1, 0, 3, 0] || each == [3, 0, 1, 0],
            "{each:?}"
        );
    }
    let received = world.servers[0].received();
    assert!(
        received.iter().any(|call| call.headers.get(DOMAIN).is_some_and(|domain| domain == "a"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_endpoint_gets_few_calls_and_one_that_fails_fast_gets_few_too() {
    let answers = |bad: Answer| {
        let quick = || Answer::After(MS, Box::new(ok()));
        [quick(), quick(), bad, quick()]
    };
    for bad in
        [Answer::After(SECOND, Box::new(ok())), Answer::Status(Status::unavailable("overloaded"))]
    {
        let world = World::new(answers(bad.clone()));
        let balance = world.balance(Options::default());
        sleep(SECOND).await;
        calls(&balance, 1000).await;
        assert!(world.attempts()[2] <= 3, "{bad:?}: {:?}", world.attempts());
        // It gets a call again later.
        sleep(120 * SECOND).await;
        calls(&balance, 100).await;
        assert!(world.attempts()[2] >= 2, "{bad:?}: {:?}", world.attempts());
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_endpoint_is_avoided_by_the_time_that_calls_waited() {
    let world = World::new([Answer::Hang, ok(), ok()]);
    let balance = world.balance(Options::default());
    sleep(SECOND).await;
    let mut late = 0;
    for _ in 0..1000 {
        late += usize::from(timeout(SECOND, call(&balance)).await.is_err());
    }
    assert!((1..=2).contains(&late), "{late}");
}

#[tokio::test(start_paused = true)]
async fn an_outlier_is_ejected_and_readmitted_and_not_if_too_many_are() {
    let bad = || Answer::Status(Status::internal("broken"));
    let outlier = OutlierDetection {
        consecutive_failures: Some(5),
        max_ejection_percent: 100,
        ..OutlierDetection::default()
    };
    let options = || Options { outlier: outlier.clone(), ..by(Picker::RoundRobin) };
    let world = World::new([ok(), bad(), ok(), ok()]);
    let balance = world.balance(options());
    sleep(SECOND).await;
    assert_eq!(failures(&calls(&balance, 400).await), 5);
    let seen = &balance.states()[1];
    let thirty = ("consecutive_failures", 30 * SECOND);
    assert_eq!((seen.ejected, seen.calls, seen.failures), (Some(thirty), 5, 5));
    assert_eq!(balance.states()[0].ejected, None);
    sleep(50 * SECOND).await;
    assert_eq!(failures(&calls(&balance, 400).await), 5, "it got another chance");

    let world = World::new([bad(), bad(), bad(), ok()]);
    let balance = world.balance(Options { panic_threshold: 50, ..options() });
    sleep(SECOND).await;
    let failed = failures(&calls(&balance, 400).await);
    assert!(failed >= 250, "fewer than half were left, so all are used: {failed}");
    assert_eq!(balance.ejections().enforced().last(), Some(("consecutive_failures", 3)));
}

#[tokio::test(start_paused = true)]
async fn an_outlier_that_may_not_be_ejected_is_counted_once_per_number_of_failures() {
    let bad = || Answer::Status(Status::internal("broken"));
    let outlier = OutlierDetection { consecutive_failures: Some(5), ..Default::default() };
    let world = World::new([bad(), ok(), bad(), ok()]);
    let balance = world.balance(Options { outlier, ..by(Picker::RoundRobin) });
    sleep(SECOND).await;
    calls(&balance, 200).await;
    let states = balance.states();
    let (ejected, left): (Vec<_>, Vec<_>) = states.iter().partition(|seen| seen.ejected.is_some());
    assert_eq!((ejected.len(), ejected[0].failures), (1, 5), "10 percent is one of four");
    let failures = left.iter().map(|seen| seen.failures).max().unwrap();
    assert!(failures > 20, "{failures}");
    let overflow = balance.ejections().unenforced().find(|(.., count)| *count > 0);
    let expected = ("consecutive_failures", "max_ejection_overflow", failures / 5);
    assert_eq!(overflow, Some(expected));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_without_a_health_service_counts_as_healthy() {
    // A scripted server answers all methods alike: this one has no health service.
    let none = || Answer::Status(Status::unimplemented("no health"));
    let world = World::new([none(), none()]);
    let options = Options { health: Some(String::new()), ..by(Picker::RoundRobin) };
    let balance = world.balance(options);
    sleep(SECOND).await;
    assert!(balance.states().iter().all(|seen| seen.state == State::Ready));
}

// catalogue: GO30
#[tokio::test(start_paused = true)]
async fn an_endpoint_gets_calls_while_it_reports_that_it_is_serving() {
    let (reporter, service) = tonic_health::server::health_reporter();
    let network = Network::new();
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(network.incoming()));
    let connector = network.connector();
    let options = Options { health: Some("bank".to_owned()), ..Options::default() };
    let balance = Balance::with_connector(vec![target(0)], connector, options).unwrap();
    let state = || balance.states()[0].state;
    use tonic_health::ServingStatus::{NotServing, Serving};
    for (says, expected) in
        [(Serving, State::Ready), (NotServing, State::TransientFailure), (Serving, State::Ready)]
    {
        reporter.set_service_status("bank", says).await;
        sleep(5 * SECOND).await;
        assert_eq!(state(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn bad_options_are_refused() {
    let refused = |options| Balance::new(vec![target(0)], options).unwrap_err().field();
    assert_eq!(refused(Options { panic_threshold: 101, ..Options::default() }), "panic_threshold");
    let options = Options { connect_timeout: Duration::ZERO, ..Options::default() };
    assert_eq!(refused(options), "connect_timeout");
    let options = Options { max_header_list_size: 0, ..Options::default() };
    assert_eq!(refused(options), "max_header_list_size");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_anywhere_leaves_no_load_behind() {
    let world = World::new([Answer::After(SECOND, Box::new(ok()))]);
    let balance = world.balance(Options::default());
    sleep(SECOND).await;
    for wait in [0, 1, 500, 999, 1000, 1001] {
        drop(timeout(wait * MS, call(&balance)).await);
    }
    let response = balance.clone().oneshot(request()).await.unwrap();
    let in_flight = || balance.states()[0].in_flight;
    assert_eq!(in_flight(), 1, "until the body ends");
    drop(response);
    assert_eq!(in_flight(), 0);
}
