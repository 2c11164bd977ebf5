//! Shedding as callers see it, in virtual time.

use super::*;
use cinchona_core::{BoxError, Mode, Rejected, Rng, Switch, Verdict};
use cinchona_plumbing::status::{self, Pushback};
use cinchona_testkit::{Answer, ScriptedServer, encode};
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt;
use proptest::prelude::*;
use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service, ServiceExt, service_fn};

mod bound;
mod clients;
mod laws;
mod overload;
mod simulation;
mod streams;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn request() -> Request<Body> {
    Request::post("/calculator.Calculator/Add").body(Body::empty()).unwrap()
}

fn marked(criticality: Criticality) -> Request<Body> {
    let mut request = request();
    request.headers_mut().insert(CRITICALITY, HeaderValue::from_static(criticality.name()));
    request
}

fn settings(limit: u32) -> ShedSettings {
    ShedSettings::new(Limit::Fixed(limit)).unwrap().with_rng(Rng::seeded(1))
}

fn fixed(limit: u32) -> ShedLayer {
    settings(limit).layer()
}

/// Takes this long for each call.
fn working(
    takes: Duration,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
+ Clone
+ Send {
    service_fn(move |_: Request<Body>| async move {
        sleep(takes).await;
        Ok(Status::ok("").into_http())
    })
}

fn call<S, B>(service: &S, request: Request<Body>) -> impl Future<Output = Code> + use<S, B>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone,
    S::Error: Into<BoxError>,
    B: http_body::Body,
    B::Error: Into<BoxError>,
{
    let answered = service.clone().oneshot(request);
    async { code(answered.await).await }
}

async fn code<B, E>(answered: Result<Response<B>, E>) -> Code
where
    B: http_body::Body,
    E: Into<BoxError>,
{
    match answered {
        Err(error) => Verdict::status_of(error.into()).code(),
        Ok(response) => {
            let head = status::code(response.headers());
            let body = response.into_body().collect().await;
            let end = body.ok().and_then(|body| body.trailers().and_then(status::code));
            head.or(end).unwrap_or(Code::Unknown)
        }
    }
}

#[tokio::test(start_paused = true)]
async fn calls_over_the_limit_get_unavailable_and_a_pushback() {
    let layer = settings(2).with_queue(Queue::none()).layer();
    let service = layer.layer(working(SECOND));
    let mut calls = JoinSet::new();
    for _ in 0..2 {
        let service = service.clone();
        calls.spawn(async move { call(&service, request()).await });
    }
    sleep(MS).await;
    let began = Instant::now();
    let turned_away = service.clone().oneshot(request()).await.unwrap();
    assert_eq!(Instant::now(), began, "at once");
    assert_eq!(status::code(turned_away.headers()), Some(Code::Unavailable));
    let Some(Pushback::After(wait)) = status::pushback(turned_away.headers()) else {
        panic!("no pushback");
    };
    assert!((50 * MS..=150 * MS).contains(&wait), "{wait:?}");
    assert!(http_body::Body::is_end_stream(turned_away.body()));
    assert_eq!((layer.counters().in_progress, layer.counters().shed), (2, 1));
    assert_eq!(calls.join_all().await, [Code::Ok; 2]);
    assert_eq!(layer.counters().in_progress, 0);
    assert_eq!(call(&service, request()).await, Code::Ok);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_is_admitted_when_a_place_is_free_and_refused_after_100_ms() {
    let layer = fixed(1);
    let service = layer.layer(working(60 * MS));
    let began = Instant::now();
    let mut calls = JoinSet::new();
    for n in 0..4 {
        let service = service.clone();
        calls.spawn(async move {
            let code = call(&service, request()).await;
            (n, code, Instant::now() - began)
        });
    }
    let mut seen = calls.join_all().await;
    seen.sort_unstable_by_key(|(n, ..)| *n);
    assert_eq!(seen[0], (0, Code::Ok, 60 * MS));
    assert_eq!(seen[1], (1, Code::Ok, 120 * MS));
    // At 120 ms there is a place, but they have waited for too long.
    for late in &seen[2..] {
        assert_eq!((late.1, late.2), (Code::Unavailable, 100 * MS));
    }
    assert_eq!(
        (layer.counters().in_progress, layer.counters().waiting, layer.counters().shed),
        (0, 0, 2)
    );
}

#[tokio::test(start_paused = true)]
async fn no_call_waits_longer_than_its_deadline() {
    let service = fixed(1).layer(working(SECOND));
    let _first = tokio::spawn({
        let service = service.clone();
        async move { call(&service, request()).await }
    });
    sleep(MS).await;
    let mut short = request();
    short.headers_mut().insert("grpc-timeout", HeaderValue::from_static("20m"));
    let began = Instant::now();
    assert_eq!(call(&service, short).await, Code::Unavailable);
    assert_eq!(Instant::now() - began, 20 * MS);
}

#[tokio::test(start_paused = true)]
async fn the_more_critical_go_first_and_take_the_place_of_the_less_critical() {
    use Criticality::{Critical, CriticalPlus, Sheddable, SheddablePlus};
    let queue = Queue { capacity: 2, ..Queue::default() };
    let layer = settings(1).with_queue(queue).layer();
    let order = Arc::new(Mutex::new(Vec::new()));
    let service = layer.layer({
        let order = order.clone();
        service_fn(move |request: Request<Body>| {
            order.lock().unwrap().push(Criticality::of(request.headers()));
            async {
                sleep(20 * MS).await;
                Ok::<_, Infallible>(Status::ok("").into_http::<Body>())
            }
        })
    });
    let mut calls = Vec::new();
    for class in [Critical, Sheddable, SheddablePlus, Critical, CriticalPlus] {
        let service = service.clone();
        calls.push(tokio::spawn(async move { call(&service, marked(class)).await }));
        sleep(MS).await;
    }
    let mut codes = Vec::new();
    for call in calls {
        codes.push(call.await.unwrap());
    }
    let (ok, away) = (Code::Ok, Code::Unavailable);
    assert_eq!(codes, [ok, away, away, ok, ok]);
    assert_eq!(*order.lock().unwrap(), [Critical, CriticalPlus, Critical]);
    assert_eq!(
        (layer.counters().shed_of(Sheddable), layer.counters().shed_of(SheddablePlus)),
        (1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn health_checks_are_always_let_in() {
    let layer = settings(1).with_queue(Queue::none()).layer();
    let service = layer.layer(working(SECOND));
    let _busy = tokio::spawn({
        let service = service.clone();
        async move { call(&service, request()).await }
    });
    sleep(MS).await;
    let mut check = request();
    *check.uri_mut() = "/grpc.health.v1.Health/Check".parse().unwrap();
    assert_eq!(call(&service, check).await, Code::Ok);
    assert_eq!(layer.counters().shed, 0);
}

#[tokio::test(start_paused = true)]
async fn in_shadow_it_counts_and_off_it_ignores_calls() {
    for (mode, counted) in [(Mode::Shadow, 3), (Mode::Off, 0)] {
        let switch = Switch::new(mode);
        let layer = settings(1).with_queue(Queue::none()).with_switch(switch.clone()).layer();
        let service = layer.layer(working(SECOND));
        let calls: JoinSet<_> = (0..4)
            .map(|_| {
                let service = service.clone();
                async move { call(&service, request()).await }
            })
            .collect();
        assert_eq!(calls.join_all().await, [Code::Ok; 4]);
        assert_eq!((switch.shadowed(), layer.counters().shed), (counted, 0), "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_wait_leaves_nothing_behind() {
    let layer = fixed(1);
    let service = layer.layer(working(50 * MS));
    let first = tokio::spawn({
        let service = service.clone();
        async move { call(&service, request()).await }
    });
    sleep(MS).await;
    for _ in 0..200 {
        assert!(
            timeout(MS, service.clone().oneshot(request())).await.is_err() || first.is_finished()
        );
        if first.is_finished() {
            break;
        }
    }
    assert_eq!(first.await.unwrap(), Code::Ok);
    sleep(200 * MS).await;
    assert_eq!((layer.counters().in_progress, layer.counters().waiting), (0, 0));
    assert_eq!(call(&service, request()).await, Code::Ok);
}

#[tokio::test(start_paused = true)]
async fn it_is_ready_when_the_service_below_is_and_calls_the_one_that_is() {
    let layer = fixed(1);
    let (mut service, mut below) = tower_test::mock::spawn_with(|mock| layer.layer(mock));
    below.allow(0);
    tokio_test::assert_pending!(service.poll_ready());
    below.allow(2);
    tokio_test::assert_ready_ok!(service.poll_ready());
    let mut first = tokio_test::task::spawn(service.call(request()));
    let (_, answer): (Request<Body>, _) = below.next_request().await.unwrap();
    tokio_test::assert_ready_ok!(service.poll_ready());
    let mut second = tokio_test::task::spawn(service.call(request()));
    tokio_test::assert_pending!(second.poll());
    answer.send_response(Status::ok("").into_http::<Body>());
    drop(tokio_test::assert_ready_ok!(first.poll()));
    assert!(second.is_woken());
    tokio_test::assert_pending!(second.poll());
    assert!(below.next_request().await.is_some());
}

#[test]
fn a_value_out_of_range_is_refused() {
    let refused = ShedLayer::new(Limit::Fixed(0)).unwrap_err();
    assert_eq!(refused.to_string(), "limit: 0 is not allowed; the range is at least 1");
    assert!(BulkheadLayer::new(0, SECOND).is_err());
    assert!(RateLimitLayer::new(0, 1).unwrap_err().to_string().starts_with("per_second: 0"));
    assert!(RateLimitLayer::new(1, 0).unwrap_err().to_string().starts_with("burst: 0"));
    for k in [0.5, f64::NAN, 101.0] {
        assert!(AdaptiveThrottleLayer::new(k).unwrap_err().to_string().starts_with("k: "));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever calls do, and wherever they are dropped, there are never more in flight than the
    /// limit, and none is left behind.
    #[test]
    fn places_never_leak(
        limit in 1..5u32,
        capacity in 0..5u32,
        calls in proptest::collection::vec(
            (0..60u64, 0..80u64, proptest::option::of(0..120u64), 0..4usize),
            1..60,
        ),
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async move {
            let layer = settings(limit).with_queue(Queue { capacity, ..Queue::default() }).layer();
            let (now, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
            let takes: Arc<Mutex<VecDeque<u64>>> =
                Arc::new(Mutex::new(calls.iter().map(|call| call.1).collect()));
            let service = layer.layer(service_fn({
                let (now, most) = (now.clone(), most.clone());
                move |_: Request<Body>| {
                    let takes = takes.lock().unwrap().pop_front().unwrap_or(0);
                    most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                    let left = Left(now.clone());
                    async move {
                        let _left = left;
                        sleep(MS * takes as u32).await;
                        Ok::<_, Infallible>(Status::ok("").into_http::<Body>())
                    }
                }
            }));
            let began = Instant::now();
            let (mut at, mut running) = (0, JoinSet::new());
            for (pause, _, patience, class) in calls {
                at += pause / 10;
                let service = service.clone();
                running.spawn(async move {
                    sleep_until(began + MS * at as u32).await;
                    let call = call(&service, marked(Criticality::ALL[class]));
                    match patience {
                        Some(patience) => drop(timeout(MS * patience as u32, call).await),
                        None => drop(call.await),
                    }
                });
            }
            running.join_all().await;
            assert!(most.load(Ordering::Relaxed) <= limit);
            // Abandoned waits are removed when the next call leaves.
            assert_eq!(call(&service, request()).await, Code::Ok);
            assert_eq!((layer.counters().in_progress, now.load(Ordering::Relaxed)), (0, 0));
            assert_eq!(layer.counters().waiting, 0);
        });
    }
}

struct Left(Arc<AtomicU32>);

impl Drop for Left {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
