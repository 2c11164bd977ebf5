//! `Duration::MAX` means without limit.

use crate::world::*;
use cinchona::{
    balance::{Options, OutlierDetection},
    core::IDEMPOTENCY_KEY,
    idempotency::{Claim, DedupSettings, MemoryStore, Store},
    shed::{BulkheadLayer, Queue},
};
use cinchona_testkit::ScriptedServer;
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tonic::Code;
use tower::{Layer, ServiceExt, service_fn};

const FOR_EVER: Duration = Duration::MAX;
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_its_endpoint_through_an_outage_of_a_day() {
    let mut place = Place::new(ScriptedServer::new([ok()]));
    place.kill();
    let balance = place.balance(Options { patience: FOR_EVER, ..Options::default() }).unwrap();
    let waiting = tokio::spawn(balance.clone().oneshot(request()));
    sleep(Duration::from_secs(24 * 3600)).await;
    assert!(!waiting.is_finished());
    place.revive();
    waiting.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn calls_wait_for_a_place_in_a_bulkhead_and_in_a_queue_for_as_long_as_their_callers() {
    let bulkhead = BulkheadLayer::new(1, FOR_EVER).unwrap().layer(slow());
    let (one, other) = tokio::join!(call(&bulkhead), call(&bulkhead));
    assert_eq!((one, other), (Some(Code::Ok), Some(Code::Ok)));

    let queue = Queue { longest: FOR_EVER, interval: FOR_EVER, ..Queue::default() };
    let shed = queued(queue).unwrap().layer().layer(slow());
    let (one, other) = tokio::join!(call(&shed), call(&shed));
    assert_eq!((one, other), (Some(Code::Ok), Some(Code::Ok)));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_ejected_for_ever_stays_so() {
    let outlier = OutlierDetection {
        base_ejection_time: FOR_EVER,
        consecutive_failures: Some(1),
        max_ejection_percent: 100,
        ..OutlierDetection::default()
    };
    let place = Place::new(ScriptedServer::new([unavailable(), ok()]));
    let balance = place.balance(Options { outlier, ..Options::default() }).unwrap();
    assert_eq!(call(&balance).await, Some(Code::Unavailable));
    sleep(24 * 3600 * SECOND).await;
    let (_, left) = balance.states()[0].ejected.unwrap();
    assert!(left > 29 * YEAR, "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_never_pinged_is_there_after_a_day() {
    let place = Place::new(ScriptedServer::new([ok()]));
    for keep_alive in [(FOR_EVER, SECOND), (SECOND, FOR_EVER), (FOR_EVER, FOR_EVER)] {
        let options = Options { keep_alive: Some(keep_alive), ..Options::default() };
        let before = place.network.connects();
        let balance = place.balance(options).unwrap();
        assert_eq!(call(&balance).await, Some(Code::Ok));
        sleep(3600 * SECOND).await;
        assert_eq!(call(&balance).await, Some(Code::Ok));
        assert_eq!(place.network.connects(), before + 1, "{keep_alive:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_replayed_and_an_execution_goes_on_for_ever() {
    let store = MemoryStore::new().with_ttl(FOR_EVER).unwrap();
    let slow = service_fn(async |_: http::Request<tonic::body::Body>| {
        sleep(YEAR).await;
        Ok::<_, std::convert::Infallible>(
            tonic::Status::new(Code::Ok, "").into_http::<tonic::body::Body>(),
        )
    });
    let layer = DedupSettings::new(methods()).with_lease(FOR_EVER).unwrap().layer(store);
    let service = layer.layer(slow);
    let keyed = || {
        let mut request = request();
        request.headers_mut().insert(IDEMPOTENCY_KEY, "one".parse().unwrap());
        request
    };
    let first = service.clone().oneshot(keyed()).await.unwrap();
    assert_eq!(cinchona_plumbing::status::code(first.headers()), Some(Code::Ok));
    sleep(20 * YEAR).await;
    let again = timeout(SECOND, service.clone().oneshot(keyed())).await.unwrap().unwrap();
    assert!(again.headers().contains_key("idempotent-replayed"));
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_held_for_ever_is_busy_after_a_year() {
    let store = MemoryStore::new();
    store.claim(b"one", 1, 1, FOR_EVER).await.unwrap();
    sleep(YEAR).await;
    assert!(matches!(store.claim(b"one", 1, 2, FOR_EVER).await.unwrap(), Claim::Busy(_)));
}
