//! Settings are plain data: what is made of them holds and counts for itself.

use crate::{asked, check, methods, ok, scripted, unavailable};
use cinchona::{
    client,
    core::{Methods, Mode},
    fallback::{Cache, FallbackSettings},
    idempotency::MemoryStore,
    server,
    shed::{BulkheadSettings, Limit, Queue, ShedSettings},
};
use cinchona_testkit::{Answer, Logs};
use std::{convert::Infallible, time::Duration};
use tokio::time::{sleep, timeout};
use tonic::{Code, body::Body};
use tonic_health::pb::health_client::HealthClient;
use tower::{Layer, ServiceExt, service_fn};

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_holds_no_place_of_another_of_the_same_settings() {
    let bulkhead = BulkheadSettings::new(1, Duration::ZERO).unwrap();
    let settings = client::Settings::new(methods()).with_bulkhead(bulkhead);
    let (_hanging, hangs, _one) = scripted([Answer::Hang]);
    let (_answering, answers, _two) = scripted([ok()]);
    let [first, second] =
        [hangs, answers].map(|network| settings.layers().unwrap().around(network.channel()));
    let waiting = tokio::spawn(check(first.clone()));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(check(first).await.unwrap_err().code(), Code::Unavailable, "it has one place");
    assert_eq!(check(second).await.unwrap(), 1);
    waiting.abort();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_full_turns_no_call_of_another_of_the_same_settings_away() {
    let shed = ShedSettings::new(Limit::Fixed(1)).unwrap().with_queue(Queue::none());
    let settings = server::Settings::new(methods()).with_shed(shed);
    let hangs = service_fn(|_: http::Request<Body>| {
        std::future::pending::<Result<http::Response<Body>, Infallible>>()
    });
    let [full, idle] = [(); 2].map(|()| settings.layers().unwrap().layer(hangs));
    let request = || http::Request::post("/shop.Order/Read").body(Body::empty()).unwrap();
    let is_refused = |service| async move {
        timeout(Duration::from_secs(1), ServiceExt::oneshot(service, request())).await.is_ok()
    };
    let _held = tokio::spawn(full.clone().oneshot(request()));
    tokio::task::yield_now().await;
    assert!(is_refused(full).await);
    assert!(!is_refused(idle).await);
}

#[tokio::test(start_paused = true)]
async fn a_second_answer_of_one_client_is_none_of_another_and_each_counts_its_own() {
    let fallback = FallbackSettings::new(methods()).with_cache(Cache::default()).unwrap();
    let settings = client::Settings::new(methods())
        .with_fallback(fallback)
        .with_mode(client::Part::Retry, Mode::Off);
    let (_one, good, _serving) = scripted([ok(), unavailable()]);
    let (_two, bad, _serving_too) = scripted([unavailable()]);
    let layers = [settings.layers().unwrap(), settings.layers().unwrap()];
    let first = layers[0].around(good.channel());
    let second = layers[1].around(bad.channel());
    assert_eq!(check(first.clone()).await.unwrap(), 1);
    assert_eq!(check(first).await.unwrap(), 1, "its own answer, again");
    assert_eq!(check(second).await.unwrap_err().code(), Code::Unavailable);
    let given = layers.map(|layers| layers.fallback.counters());
    assert_ne!(given[0], given[1]);
}

#[tokio::test(start_paused = true)]
async fn keys_and_stores_that_can_recognise_nothing_are_warned_of() {
    let logs = Logs::of("cinchona_idempotency");
    let warned = || logs.events().iter().filter(|event| event.message.contains("Methods")).count();
    let (_server, network, _serving) = scripted([ok()]);
    let client = client::Settings::new(Methods::all_idempotent()).with_keys();
    _ = client.layers().unwrap().around(network.channel());
    assert_eq!(warned(), 1, "no call is given a key");
    let server = server::Settings::new(Methods::unknown()).with_store(MemoryStore::new());
    _ = server.layers().unwrap().layer(network.channel());
    assert_eq!(warned(), 2, "no repeated call is recognised");
    _ = client::Settings::new(methods()).with_keys().layers().unwrap().around(network.channel());
    _ = client::Settings::new(Methods::unknown()).layers().unwrap().around(network.channel());
    assert_eq!(warned(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_method_that_is_given_more_time_has_it_in_one_attempt() {
    let slow = || Answer::After(Duration::from_secs(40), Box::new(ok()));
    let long = Some(Duration::from_secs(120));
    let settings = client::Settings::new(methods());
    let settings = settings.with_deadline_of("grpc.health.v1.Health", "", long).unwrap();
    let (server, network, _serving) = scripted([slow(), slow()]);
    let channel = settings.layers().unwrap().around(network.channel());
    assert_eq!((check(channel).await.unwrap(), server.received().len()), (1, 1));
    let limit = Some(Duration::from_secs(20));
    let limited = settings.with_timeout_of("grpc.health.v1.Health", "Check", limit).unwrap();
    let (server, network, _serving) = scripted([slow(), ok()]);
    let channel = limited.layers().unwrap().around(network.channel());
    assert_eq!((check(channel).await.unwrap(), server.received().len()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_asks_for_more_time_than_the_defaults_has_it_in_one_attempt() {
    let called = |settings: client::Settings, seconds: u64| async move {
        let slow = || Answer::After(Duration::from_secs(seconds - 5), Box::new(ok()));
        let (server, network, _serving) = scripted([slow(), ok()]);
        let channel = settings.layers().unwrap().around(network.channel());
        let mut request = tonic::Request::new(asked());
        request.set_timeout(Duration::from_secs(seconds));
        HealthClient::new(channel).check(request).await.unwrap();
        server.received().len()
    };
    let settings = || client::Settings::new(methods());
    assert_eq!(called(settings(), 25).await, 1);
    assert_eq!(called(settings(), 60).await, 1, "nor does the default deadline end it");
    let chosen = settings().with_timeout(Duration::from_secs(5));
    assert_eq!(called(chosen, 25).await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_mode_that_was_set_stays_whatever_is_configured_after_it() {
    let modes = [Mode::Off, Mode::Shadow, Mode::Enforce];
    for mode in modes {
        let keys = client::Settings::new(methods()).with_mode(client::Part::Key, mode).with_keys();
        assert_eq!(keys.mode(client::Part::Key), mode);
        let parts = [server::Part::Quota, server::Part::Faults, server::Part::Dedup];
        let settings = server::Settings::new(methods());
        let settings = parts.iter().fold(settings, |own, part| own.with_mode(*part, mode));
        let settings = settings.with_quota(1, 1).unwrap().with_faults(Default::default()).unwrap();
        let settings = settings.with_store(MemoryStore::new());
        assert_eq!(parts.map(|part| settings.mode(part)), [mode; 3]);
    }
    let quota = server::Settings::new(methods()).with_quota(1, 1).unwrap();
    assert_eq!(quota.mode(server::Part::Quota), Mode::Enforce);
}
