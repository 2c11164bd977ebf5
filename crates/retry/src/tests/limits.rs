//! The limits on the further attempts of all calls together: the budget, and the throttle.

use super::*;
use http_body_util::BodyExt;
use std::{
    future::{Ready, ready},
    sync::atomic::{AtomicU32, Ordering},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tower::util::{ServiceFn, service_fn};

const MINUTE: Duration = Duration::from_secs(60);

type Now = Ready<Result<Response, BoxError>>;

/// Fails while `fails` is true for a path.
fn server<F: Fn(&str) -> bool + Clone>(fails: F) -> ServiceFn<impl Fn(Request) -> Now + Clone> {
    service_fn(move |request: Request| {
        let status = match fails(request.uri().path()) {
            true => Status::unavailable("simulated"),
            false => Status::new(Code::Ok, ""),
        };
        ready(Ok(status.into_http::<Body>()))
    })
}

fn to(path: &str) -> Request {
    http::Request::builder().uri(format!("http://s{path}")).body(Body::empty()).unwrap()
}

/// Why a call ended.
fn stop<B>(outcome: Result<B, BoxError>) -> Stop {
    match outcome {
        Ok(_) => Stop::Succeeded,
        Err(error) => Ledger::of(&Status::from_error(error)).unwrap().stopped(),
    }
}

fn drain(layer: &RetryLayer) -> impl Future<Output = ()> {
    let client = layer.clone().layer(server(|_| true));
    async move {
        let mut calls = JoinSet::new();
        (0..200).for_each(|_| _ = calls.spawn(client.clone().oneshot(to("/a.B/C"))));
        while calls.join_next().await.is_some() {}
    }
}

// catalogue: S-F7
#[tokio::test(start_paused = true)]
async fn after_an_outage_no_call_a_minute_fails_for_want_of_budget() {
    let layer = layer(on([Code::Unavailable]));
    drain(&layer).await;
    let (left, most) = layer.counters().budget_tokens.unwrap();
    assert!(left < 20.0 && most == 100.0, "{left} of {most}");
    // Two attempts of each call fail.
    let seen = Arc::new(AtomicU32::new(0));
    let client = layer.layer(server(move |_| seen.fetch_add(1, Ordering::Relaxed) % 3 < 2));
    for _ in 0..60 {
        sleep(MINUTE).await;
        assert_eq!(stop(client.clone().oneshot(to("/a.B/C")).await), Stop::Succeeded);
    }
    assert!(layer.counters().budget_tokens.unwrap().0 > 95.0);
}

/// Of 1,199 calls to a good method, one a second, beside a bad one that is called each `pause`: how
/// many failed for want of budget, and how many failed.
async fn beside_a_bad_method(budget: Budget, pause: Duration) -> [usize; 2] {
    let layer = settings(on([Code::Unavailable])).with_budget(Some(budget)).layer();
    let seen = Arc::new(AtomicU32::new(0));
    // One of 20 attempts fails, and then another.
    let flaky = move || seen.fetch_add(1, Ordering::Relaxed) % 20 < 2;
    let client = layer.layer(server(move |path| path == "/a.B/Bad" || flaky()));
    stop(client.clone().oneshot(to("/a.B/Good")).await);
    let bad = client.clone();
    let bad = tokio::spawn(async move {
        loop {
            sleep(pause).await;
            tokio::spawn(bad.clone().oneshot(to("/a.B/Bad")));
        }
    });
    let mut stops = Vec::new();
    for _ in 0..1199 {
        sleep(SECOND).await;
        stops.push(stop(client.clone().oneshot(to("/a.B/Good")).await));
    }
    bad.abort();
    let unpaid = stops.iter().filter(|stop| **stop == Stop::Budget).count();
    [unpaid, stops.iter().filter(|stop| **stop != Stop::Succeeded).count()]
}

// catalogue: S-F7
#[tokio::test(start_paused = true)]
async fn a_bad_method_costs_a_good_one_no_retry() {
    let tight = Budget::new(0.2, 10).unwrap();
    for (budget, pause) in [
        (Budget::default(), 250),
        (Budget::default(), 1000),
        (Budget::default().with_per_second(0.0).unwrap(), 500),
        (tight, 500),
    ] {
        let pause = Duration::from_millis(pause);
        assert_eq!(beside_a_bad_method(budget, pause).await, [0, 0], "{budget:?}, {pause:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_tower_policy_comes_back_to_its_budget_too() {
    let policy = TowerPolicy::new(on([Code::Unavailable]), Methods::all_idempotent());
    let seen = Arc::new(AtomicU32::new(0));
    let count = seen.clone();
    let inner = server(move |_| count.fetch_add(1, Ordering::Relaxed) < 1000);
    let client = tower::ServiceBuilder::new()
        .map_request(|request| TowerBody::capture(request, 1024))
        .retry(policy)
        .map_request(TowerBody::release)
        .map_err(|error: BoxError| std::io::Error::other(error))
        .service(inner);
    while seen.load(Ordering::Relaxed) < 1000 {
        _ = client.clone().oneshot(to("/a.B/C")).await;
    }
    sleep(MINUTE).await;
    seen.store(998, Ordering::Relaxed);
    let answer = client.oneshot(to("/a.B/C")).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "0");
}

/// How many attempts a failing call makes, and the throttle's tokens then, if `then` runs in its
/// first backoff.
async fn attempts_across(layer: &RetryLayer, then: impl FnOnce()) -> (u32, Stop, f64) {
    let seen = Arc::new(AtomicU32::new(0));
    let count = seen.clone();
    let fails = move |_: &str| {
        count.fetch_add(1, Ordering::Relaxed);
        true
    };
    let call = tokio::spawn(layer.clone().layer(server(fails)).oneshot(to("/a.B/C")));
    sleep(SECOND / 2).await;
    assert_eq!(seen.load(Ordering::Relaxed), 1);
    then();
    let stop = stop(call.await.unwrap());
    (seen.load(Ordering::Relaxed), stop, layer.counters().throttle_tokens)
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_by_the_throttle_it_began_with() {
    let unthrottled = || layer(on([Code::Unavailable]));
    let throttled =
        |max| settings(on([Code::Unavailable])).with_throttle(max, 1.0).unwrap().layer();
    let exhausted = (4, Stop::Exhausted);
    // Before, in mid-call, and what is seen: of the new one only the share is the old one's.
    for (before, after, expected, tokens) in [
        (Some(100.0), Some(2.0), exhausted, 1.98),
        (Some(100.0), None, exhausted, 0.0),
        (None, Some(1.0), exhausted, 1.0),
        (Some(4.0), Some(1000.0), (2, Stop::Throttled), 750.0),
        (Some(4.0), None, (2, Stop::Throttled), 0.0),
        (Some(4.0), Some(4.0), (2, Stop::Throttled), 2.0),
    ] {
        let layer = before.map_or_else(unthrottled, throttled);
        let set = || layer.set_throttle(after.map(|max| (max, 1.0))).unwrap();
        let (attempts, stop, left) = attempts_across(&layer, set).await;
        assert_eq!(((attempts, stop), left), (expected, tokens), "{before:?} to {after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_by_the_policy_it_began_with() {
    let layer = layer(on([Code::Unavailable]));
    let set = || layer.set_policies(PerMethod::new()).unwrap();
    assert_eq!(attempts_across(&layer, set).await, (4, Stop::Exhausted, 0.0));
    assert_eq!(attempts_across(&layer, || ()).await, (1, Stop::NotRetryable, 0.0));
}

#[tokio::test(start_paused = true)]
async fn trailers_count_for_the_throttle_the_call_began_with() {
    for (answer, tokens) in
        [(ok(), 4.0), (Answer::HeadersThenStatus(Status::unavailable("late")), 2.0)]
    {
        let layer = settings(on([Code::Unavailable])).with_throttle(4.0, 1.0).unwrap().layer();
        let client = layer.clone().layer(ScriptedServer::new([failing(Code::Unavailable), answer]));
        let answered = client.oneshot(request()).await.unwrap();
        assert_eq!(layer.counters().throttle_tokens, 3.0);
        let before = layer.shared.throttle.now();
        layer.set_throttle(Some((8.0, 1.0))).unwrap();
        _ = answered.into_body().collect().await;
        assert_eq!((before.tokens(), layer.counters().throttle_tokens), (tokens, 6.0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_hedged_call_ends_by_the_throttle_it_began_with() {
    let hedge = HedgePolicy::default().with_max_attempts(3).with_delay(SECOND);
    let settings = RetrySettings::new(RetryPolicy::default(), Methods::all_idempotent());
    let layer = settings.with_policies(Policy::from(hedge).into()).unwrap().layer();
    let server = ScriptedServer::new([Answer::Hang]);
    let call = tokio::spawn(layer.clone().layer(server.clone()).oneshot(request()));
    sleep(SECOND / 2).await;
    layer.set_throttle(Some((1.0, 1.0))).unwrap();
    layer.shared.throttle.now().failed();
    sleep(5 * SECOND).await;
    assert_eq!(server.attempts(), 3);
    call.abort();
    let next = layer.layer(server.clone()).oneshot(request());
    timeout(5 * SECOND, next).await.unwrap_err();
    assert_eq!(server.attempts(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_the_budget_of_all_calls_refuses_costs_the_policy_nothing() {
    let hedge = HedgePolicy::default().with_extra_load(0.5).unwrap();
    let layer = RetrySettings::new(RetryPolicy::default(), Methods::all_idempotent())
        .with_budget(Some(Budget::new(0.0, 0).unwrap().with_per_second(0.001).unwrap()))
        .with_policies(Policy::from(hedge).into())
        .unwrap()
        .layer();
    let quick = layer.clone().layer(ScriptedServer::new([ok()]));
    for _ in 0..200 {
        quick.clone().oneshot(request()).await.unwrap();
    }
    let slow = ScriptedServer::new([Answer::Hang]);
    for _ in 0..20 {
        timeout(SECOND, layer.clone().layer(slow.clone()).oneshot(request())).await.unwrap_err();
    }
    assert_eq!(slow.attempts(), 20);
    sleep(1000 * SECOND).await;
    timeout(SECOND, layer.layer(slow.clone()).oneshot(request())).await.unwrap_err();
    assert_eq!(slow.attempts(), 22);
}
