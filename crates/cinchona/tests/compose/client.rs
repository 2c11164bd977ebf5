//! The whole client: what it is by default, what changes it, and what it refuses.

use crate::{asked, check, methods, ok, scripted, unavailable};
use cinchona::{
    Channel,
    client::{Part, Settings},
    config::ServiceConfig,
    core::{BoxError, Invalid, Methods, Mode, Rng},
    retry::{HedgePolicy, Ledger, RetryPolicy},
    shed::BulkheadSettings,
};
use cinchona_testkit::{Answer, Network};
use std::{error::Error, time::Duration};
use tonic::{Code, Request, Status, body::Body, transport::Endpoint};
use tonic_health::pb::health_client::HealthClient;
use tower::{Service, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);

fn settings() -> Settings {
    Settings::new(methods()).with_rng(Rng::seeded(1))
}

/// Over the network in memory.
fn over(network: &Network, settings: &Settings) -> Channel<tonic::transport::Channel> {
    settings.layers().unwrap().around(network.channel())
}

#[test]
fn a_channel_can_be_named_cloned_and_sent() {
    fn whole<T: Clone + Send + Sync + std::fmt::Debug + 'static>() {}
    whole::<Channel>();
    whole::<Settings>();
    whole::<HealthClient<Channel>>();
    fn takes<S>()
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = BoxError>,
        S::Future: Send,
    {
        let size = size_of::<S::Future>();
        assert!(size <= 256, "a future of {size} bytes");
    }
    takes::<Channel>();
    takes::<Channel<tonic::transport::Channel>>();
}

#[tokio::test(start_paused = true)]
async fn what_can_succeed_is_tried_again_by_default() {
    let (server, network, _serving) = scripted([unavailable(), ok()]);
    let channel = over(&network, &settings());
    assert_eq!(check(channel.clone()).await.unwrap(), 1);
    assert_eq!(server.attempts(), 2);
    let text = channel.metrics().render();
    assert!(text.contains("grpc_client_attempt_started_total"), "{text}");
    assert!(text.contains("cinchona_retry_budget_tokens{grpc_target=\"channel\"}"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn what_may_have_had_an_effect_is_not_tried_again_by_default() {
    let (server, network, _serving) = scripted([unavailable(), ok()]);
    let unknown = Settings::new(Methods::unknown());
    let failed = check(over(&network, &unknown)).await.unwrap_err();
    assert_eq!((failed.code(), server.attempts()), (Code::Unavailable, 1));
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_within_its_deadline_whatever_the_server_does() {
    let (_server, network, _serving) = scripted([Answer::Hang]);
    let channel = over(&network, &settings().with_deadline(3 * SECOND));
    let began = tokio::time::Instant::now();
    let failed = check(channel).await.unwrap_err();
    assert_eq!(
        (failed.code(), tokio::time::Instant::now() - began),
        (Code::DeadlineExceeded, 3 * SECOND)
    );
}

#[tokio::test(start_paused = true)]
async fn each_part_can_be_turned_off_while_calls_run() {
    let (server, network, _serving) =
        scripted([unavailable(), ok(), unavailable(), unavailable(), ok()]);
    let channel = over(&network, &settings());
    check(channel.clone()).await.unwrap();
    channel.layers().switch(Part::Retry).set(Mode::Off);
    check(channel.clone()).await.unwrap_err();
    channel.layers().switch(Part::Retry).set(Mode::Enforce);
    check(channel.clone()).await.unwrap();
    assert_eq!(server.attempts(), 5);
    for part in Part::ALL {
        let (_server, network, _serving) = scripted([ok(), ok()]);
        let channel = over(&network, &settings().with_mode(part, Mode::Off));
        assert_eq!(check(channel.clone()).await.unwrap(), 1, "{part:?}");
        channel.layers().switch(part).set(Mode::Enforce);
        assert_eq!(check(channel).await.unwrap(), 1, "{part:?}");
    }
    // And with nothing at all.
    let (_server, network, _serving) = scripted([unavailable()]);
    let bare = Part::ALL.into_iter().fold(settings(), |all, part| all.with_mode(part, Mode::Off));
    assert_eq!(check(over(&network, &bare)).await.unwrap_err().message(), "not now");
}

#[tokio::test(start_paused = true)]
async fn an_error_always_holds_a_status() {
    fn status(error: &(dyn Error + 'static)) -> Option<Code> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(status) = error.downcast_ref::<Status>() {
                return Some(status.code());
            }
            next = error.source();
        }
        None
    }
    let refusing = Network::new();
    refusing.refuse(true);
    for mode in [Mode::Enforce, Mode::Off] {
        let all = Part::ALL.into_iter();
        let settings = all.fold(settings(), |all, part| all.with_mode(part, mode));
        let channel = over(&refusing, &settings.with_budget(None));
        let request = http::Request::post(format!("http://any{}", crate::CHECK));
        let error = channel.oneshot(request.body(Body::empty()).unwrap()).await.err().unwrap();
        assert_eq!(status(&*error), Some(Code::Unavailable), "{mode:?}: {error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_method_can_have_its_own_deadline_and_policy() {
    let (server, network, _serving) = scripted([unavailable()]);
    let once = settings()
        .with_policy_of(
            "grpc.health.v1.Health",
            "Check",
            RetryPolicy::default().with_max_retries(0),
        )
        .unwrap();
    check(over(&network, &once)).await.unwrap_err();
    assert_eq!(server.attempts(), 1);
    let (server, network, _serving) = scripted([Answer::Hang, ok()]);
    let hedged = HedgePolicy::default().with_delay(SECOND).with_max_attempts(2);
    let hedged = settings().with_policy_of("grpc.health.v1.Health", "", hedged).unwrap();
    check(over(&network, &hedged)).await.unwrap();
    assert_eq!(server.attempts(), 2);
    let (_server, network, _serving) = scripted([Answer::Hang]);
    let short =
        settings().with_deadline_of("grpc.health.v1.Health", "Check", Some(SECOND)).unwrap();
    let began = tokio::time::Instant::now();
    check(over(&network, &short)).await.unwrap_err();
    assert_eq!(tokio::time::Instant::now() - began, SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_service_config_is_put_in_at_first_and_while_calls_run() {
    let config = |attempts: u32| {
        let json = format!(
            r#"{{"methodConfig": [{{"name": [{{}}], "retryPolicy": {{
                "maxAttempts": {attempts}, "initialBackoff": "0.01s", "maxBackoff": "0.1s",
                "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}}}}]}}"#
        );
        ServiceConfig::parse(&json).unwrap()
    };
    let (server, network, _serving) = scripted((0..9).map(|_| unavailable()));
    let channel = over(&network, &settings().with_service_config(config(2)));
    check(channel.clone()).await.unwrap_err();
    assert_eq!(server.attempts(), 2);
    // The .proto does not declare that an order may be placed twice.
    let warnings = channel.apply(&config(5)).unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    check(channel).await.unwrap_err();
    assert_eq!(server.attempts(), 7);
}

#[tokio::test]
async fn a_service_config_in_a_file_is_followed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.json");
    let throttled = r#"{"retryThrottling": {"maxTokens": 7, "tokenRatio": 0.5}}"#;
    std::fs::write(&file, throttled).unwrap();
    let layers = settings().layers().unwrap();
    let retry = layers.retry.clone();
    let followed = tokio::spawn(async move { layers.follow(&file, SECOND).await });
    while retry.counters().throttle_max_tokens != Some(7.0) {
        tokio::task::yield_now().await;
    }
    followed.abort();
}

#[tokio::test(start_paused = true)]
async fn the_story_of_a_call_is_where_it_was() {
    let (_server, network, _serving) = scripted([unavailable(), ok()]);
    let mut client = HealthClient::new(over(&network, &settings()));
    let response = client.check(Request::new(asked())).await.unwrap();
    assert_eq!(response.extensions().get::<Ledger>().unwrap().attempts().len(), 2);
}

#[tokio::test]
async fn what_cannot_be_connected_to_is_refused_by_name() {
    let refused = |result: Result<Channel, Invalid>| result.unwrap_err();
    let settings = settings();
    for address in ["", "orders:50051", "ftp://orders:1", "http://orders", "/run/x.sock"] {
        let invalid = refused(settings.connect(address));
        assert_eq!(invalid.field(), "target", "{address}");
        assert!(invalid.to_string().contains(address), "{invalid}");
        assert_eq!(refused(settings.connect(["http://a:1", address])).field(), "target");
    }
    for address in ["dns:", "dns:///orders", "dns:orders:1", "dns:///:1", "dns:ftp://orders:1"] {
        assert_eq!(refused(settings.connect(address)).field(), "target", "{address}");
    }
    assert_eq!(refused(settings.connect(["dns:///a:1", "dns:///b:1"])).field(), "target");
    assert_eq!(refused(settings.connect([""; 0])).field(), "endpoints");
    assert_eq!(refused(settings.connect(Vec::<Endpoint>::new())).field(), "endpoints");
    let secret = refused(settings.connect("ftp://user:secret@orders:1"));
    assert!(!secret.to_string().contains("secret"), "{secret}");
    assert_eq!(
        refused(settings.clone().with_deadline(Duration::ZERO).connect("http://a:1")).field(),
        "deadline"
    );
}

#[test]
fn without_a_runtime_a_channel_is_refused() {
    assert_eq!(settings().connect("http://a:1").unwrap_err().field(), "runtime");
}

// catalogue: S-D9
#[test]
fn a_name_that_is_in_no_descriptor_set_is_refused() {
    let refused = |settings: Result<Settings, Invalid>| settings.unwrap().layers().unwrap_err();
    for (service, method) in [("shop.Order", "Plce"), ("shop.Orders", ""), ("Order", "Place")] {
        let deadline = refused(settings().with_deadline_of(service, method, None));
        assert_eq!(deadline.field(), "deadlines");
        assert!(deadline.to_string().contains(&format!("/{service}/{method}")), "{deadline}");
        let timeout = refused(settings().with_timeout_of(service, method, None));
        assert_eq!(timeout.field(), "timeouts");
        let once = RetryPolicy::default();
        assert_eq!(refused(settings().with_policy_of(service, method, once)).field(), "policies");
        let exempt = BulkheadSettings::default().with_exempt(service, method).unwrap();
        assert_eq!(refused(Ok(settings().with_bulkhead(exempt))).field(), "bulkhead");
    }
    assert!(settings().with_deadline_of("/shop.Order", "Place", None).is_err());
    assert!(Methods::from_file_descriptor_set(&[]).is_err());
    assert!(Methods::from_file_descriptor_set(b"no set").is_err());
    // Where no descriptor set was read, any name may be one.
    let unknown = Settings::new(Methods::unknown());
    unknown.with_deadline_of("shop.Order", "Plce", None).unwrap().layers().unwrap();
}

// catalogue: S-D8
#[tokio::test(start_paused = true)]
async fn a_key_that_comes_after_the_retries_lets_nothing_be_executed_twice() {
    use cinchona::{
        idempotency::IdempotencyKeyLayer,
        retry::{RetryLayer, RetryPolicy},
    };
    use tower::ServiceBuilder;
    let (server, network, _serving) = scripted([unavailable(), ok()]);
    let policy = RetryPolicy::default().with_codes([Code::Unavailable]).unwrap();
    let wrong = ServiceBuilder::new()
        .layer(RetryLayer::new(policy, methods().keyed()))
        .layer(IdempotencyKeyLayer::new(methods()))
        .service(network.channel());
    let request = http::Request::post("http://any/shop.Order/Place").body(Body::empty()).unwrap();
    assert!(wrong.oneshot(request).await.is_err());
    assert_eq!(server.attempts(), 1);
}
