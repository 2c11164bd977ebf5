//! Quotas, bulkheads and throttling.

use super::*;

#[tokio::test(start_paused = true)]
async fn each_caller_has_a_quota_and_a_refusal_beyond_it_forbids_retries() {
    let layer =
        RateLimitSettings::new(10, 3).unwrap().by_header(http::header::AUTHORIZATION).layer();
    let service = layer.layer(working(Duration::ZERO));
    let by = |name: &'static str| {
        let mut request = request();
        request.headers_mut().insert(http::header::AUTHORIZATION, HeaderValue::from_static(name));
        request
    };
    for _ in 0..3 {
        assert_eq!(call(&service, by("one")).await, Code::Ok);
    }
    let refused = service.clone().oneshot(by("one")).await.unwrap();
    let said = status::from_headers(refused.headers()).unwrap();
    assert_eq!(said.code(), Code::ResourceExhausted);
    assert_eq!(
        said.message(),
        "over the quota of 10 calls a second, 3 at once; one more in 100.0ms"
    );
    assert_eq!(status::pushback(refused.headers()), Some(Pushback::Stop));
    assert_eq!(call(&service, by("other")).await, Code::Ok);
    sleep(100 * MS).await;
    assert_eq!(call(&service, by("one")).await, Code::Ok);
    assert_eq!(call(&service, by("one")).await, Code::ResourceExhausted);
    assert_eq!(layer.counters().limited, 2);
    let mut health = by("one");
    *health.uri_mut() = "/grpc.health.v1.Health/Check".parse().unwrap();
    assert_eq!(call(&service, health).await, Code::Ok);
}

// catalogue: S-F9
#[tokio::test(start_paused = true)]
async fn names_that_are_made_up_count_against_their_address() {
    let settings = RateLimitSettings::new(10, 10).unwrap().by_header(http::header::AUTHORIZATION);
    for settings in [settings.clone(), settings.with_switch(Switch::default())] {
        let service = settings.layer().layer(working(Duration::ZERO));
        let by = |name: String| {
            let mut request = request();
            request.headers_mut().insert(http::header::AUTHORIZATION, name.parse().unwrap());
            call(&service, request)
        };
        assert_eq!(by("known".into()).await, Code::Ok);
        let mut passed = 0;
        for n in 0..1000 {
            passed += u32::from(by(format!("made up {n}")).await == Code::Ok);
        }
        assert_eq!(passed, 9);
        for _ in 0..9 {
            assert_eq!(by("known".into()).await, Code::Ok, "it has a quota of its own");
        }
        assert_eq!(by("known".into()).await, Code::ResourceExhausted);
    }
}

#[tokio::test(start_paused = true)]
async fn a_quota_in_shadow_only_counts() {
    let switch = Switch::new(Mode::Shadow);
    let layer = RateLimitSettings::new(1, 1).unwrap().with_switch(switch.clone()).layer();
    let service = layer.layer(working(Duration::ZERO));
    for _ in 0..5 {
        assert_eq!(call(&service, request()).await, Code::Ok);
    }
    assert_eq!((switch.shadowed(), layer.counters().limited), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn a_bulkhead_fails_calls_over_its_limit_unsent() {
    let layer = BulkheadLayer::new(2, Duration::ZERO).unwrap();
    let service = layer.layer(working(SECOND));
    let mut calls = JoinSet::new();
    for _ in 0..2 {
        let service = service.clone();
        calls.spawn(async move { call(&service, request()).await });
    }
    sleep(MS).await;
    let error = service.clone().oneshot(request()).await.unwrap_err();
    assert!(matches!(Verdict::of_error(&*error), Verdict::NotProcessed(_)));
    let unsent: &Rejected = cinchona_plumbing::cause::find_cause(&*error).unwrap();
    assert_eq!(unsent.to_string(), "bulkhead: 2 calls are under way already");
    assert_eq!(Status::from_error(error).code(), Code::Unavailable);
    assert_eq!(calls.join_all().await, [Code::Ok; 2]);
    assert_eq!((layer.counters().in_progress, layer.counters().shed), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_patient_bulkhead_lets_as_many_wait_as_are_under_way() {
    let service = BulkheadLayer::new(2, SECOND).unwrap().layer(working(400 * MS));
    let calls: JoinSet<_> = (0..6)
        .map(|_| {
            let service = service.clone();
            async move { call(&service, request()).await }
        })
        .collect();
    let codes = calls.join_all().await;
    let ok = codes.iter().filter(|code| **code == Code::Ok).count();
    assert_eq!((ok, codes.len() - ok), (4, 2));
}

/// Accepts this many calls in each tenth of a second.
fn accepting(
    capacity: Arc<AtomicU32>,
    asked: Arc<AtomicU32>,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone {
    let began = Instant::now();
    let accepted = Arc::new(Mutex::new((0, 0)));
    service_fn(move |_: Request<Body>| {
        asked.fetch_add(1, Ordering::Relaxed);
        let now = (Instant::now() - began).as_millis() / 100;
        let mut accepted = accepted.lock().unwrap();
        if accepted.0 != now {
            *accepted = (now, 0);
        }
        accepted.1 += 1;
        let ok = accepted.1 <= capacity.load(Ordering::Relaxed);
        let status = if ok { Status::ok("") } else { Status::unavailable("overloaded") };
        std::future::ready(Ok(status.into_http()))
    })
}

#[tokio::test(start_paused = true)]
async fn a_throttle_lets_through_twice_what_is_accepted_and_notices_a_recovery() {
    let (capacity, asked) = (Arc::new(AtomicU32::new(10)), Arc::new(AtomicU32::new(0)));
    let layer = AdaptiveThrottleSettings::new(2.0).unwrap().with_rng(Rng::seeded(1)).layer();
    let service = layer.layer(accepting(capacity.clone(), asked.clone()));
    // 500 a second, where 100 are accepted.
    let mut accepted = 0;
    for _ in 0..60_000 {
        accepted += u32::from(call(&service, request()).await == Code::Ok);
        sleep(2 * MS).await;
    }
    let sent = asked.load(Ordering::Relaxed);
    assert_eq!(u64::from(sent) + layer.counters().throttled, 60_000);
    assert!(accepted > 11_000, "the server is used to the full: {accepted}");
    let ratio = f64::from(sent) / f64::from(accepted);
    assert!((1.8..2.3).contains(&ratio), "{ratio}");
    capacity.store(u32::MAX, Ordering::Relaxed);
    for _ in 0..15_000 {
        call(&service, request()).await;
        sleep(2 * MS).await;
    }
    let before = layer.counters().throttled;
    for _ in 0..1000 {
        assert_eq!(call(&service, request()).await, Code::Ok);
    }
    assert_eq!(layer.counters().throttled, before, "30 s later all is well again");
}

#[tokio::test(start_paused = true)]
async fn a_throttle_does_nothing_to_a_server_that_answers() {
    let (capacity, asked) = (Arc::new(AtomicU32::new(u32::MAX)), Arc::new(AtomicU32::new(0)));
    let layer = AdaptiveThrottleLayer::new(1.1).unwrap();
    let service = layer.layer(accepting(capacity, asked.clone()));
    for _ in 0..1000 {
        assert_eq!(call(&service, request()).await, Code::Ok);
    }
    let refusing = layer.layer(service_fn(|_: Request<Body>| async {
        Ok::<_, Infallible>(Status::not_found("").into_http::<Body>())
    }));
    for _ in 0..1000 {
        assert_eq!(call(&refusing, request()).await, Code::NotFound);
    }
    assert_eq!((layer.counters().throttled, asked.load(Ordering::Relaxed)), (0, 1000));
}

// catalogue: S-A8
#[tokio::test(start_paused = true)]
async fn a_call_that_has_waited_for_its_place_sends_its_remaining_time() {
    use cinchona_core::Deadline;
    let server =
        ScriptedServer::new([Answer::After(3 * SECOND, Box::new(Answer::Ok(encode(&1_u32))))]);
    let client = BulkheadLayer::new(1, 10 * SECOND).unwrap().layer(server.clone());
    let began = tokio::time::Instant::now();
    let call = || {
        let mut request = http::Request::post("/a.B/C").body(Body::empty()).unwrap();
        Deadline::after(5 * SECOND, began).stamp(request.headers_mut(), began);
        client.clone().oneshot(request)
    };
    // Each gives its place back with its response.
    let answered = async || assert!(call().await.is_ok());
    tokio::join!(answered(), answered());
    for received in server.received() {
        let timeout = Deadline::parse_timeout(&received.headers).unwrap().unwrap();
        assert!(timeout <= 5 * SECOND - (received.at - began), "{timeout:?}");
    }
    assert_eq!(server.attempts(), 2);
}

/// What callers give up, such as the loser of a hedge, was not refused by the server.
#[tokio::test(start_paused = true)]
async fn calls_that_are_given_up_throttle_no_others() {
    let layer = AdaptiveThrottleLayer::default();
    let service = layer.layer(working(SECOND));
    for _ in 0..300 {
        let given_up = timeout(MS, call(&service, request())).await;
        assert!(given_up.is_err());
    }
    for _ in 0..50 {
        assert_eq!(call(&service, request()).await, Code::Ok);
    }
    assert_eq!(layer.counters().throttled, 0);
}
