//! Laws of all layers: the counters are right, and off is off.

use super::*;
use bytes::Bytes;
use cinchona_core::MethodKind;
use std::pin::pin;

type Boxed = tower::util::BoxCloneService<Request<Body>, Response<Body>, BoxError>;

const KINDS: [Option<MethodKind>; 4] =
    [None, Some(MethodKind::Unary), Some(MethodKind::ServerStreaming), Some(MethodKind::Bidi)];

fn boxed<S, B>(service: S) -> Boxed
where
    S: Service<Request<Body>, Response = Response<B>, Future: Send> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let service = service.map_err(Into::into);
    Boxed::new(service.map_response(|response: Response<B>| response.map(Body::new)))
}

/// A call that begins at some time, is of some kind, and is dropped after some time, if at all.
#[derive(Clone, Debug)]
struct Call {
    at: u64,
    kind: Option<MethodKind>,
    class: Criticality,
    patience: Option<u64>,
    /// Whether the response is read to its end.
    reads: bool,
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let call = (
        0..200u64,
        proptest::sample::select(&KINDS[..]),
        proptest::sample::select(&Criticality::ALL[..]),
        proptest::option::of(0..150u64),
        any::<bool>(),
    );
    let call = call.prop_map(|(at, kind, class, patience, reads)| Call {
        at,
        kind,
        class,
        patience,
        reads,
    });
    proptest::collection::vec(call, 1..60)
}

fn answers() -> impl Strategy<Value = Answer> {
    let late = |answer: Answer| {
        (0..60u64).prop_map(move |wait| Answer::After(MS * wait as u32, Box::new(answer.clone())))
    };
    prop_oneof![
        late(Answer::Ok(encode(&7_u32))),
        late(Answer::Status(Status::unavailable("busy"))),
        late(Answer::HeadersThenHang),
        late(Answer::MessageThenReset(encode(&7_u32), h2::Reason::CANCEL)),
        Just(Answer::Hang),
    ]
}

async fn make(service: Boxed, call: Call, began: Instant) {
    sleep_until(began + MS * call.at as u32).await;
    let mut request = marked(call.class);
    call.kind.into_iter().for_each(|kind| _ = request.extensions_mut().insert(kind));
    let made = async {
        let Ok(response) = service.oneshot(request).await else { return };
        if call.reads {
            _ = response.into_body().collect().await;
        }
    };
    let patience = MS * call.patience.unwrap_or(300) as u32;
    _ = timeout(patience, made).await;
}

/// Runs the calls, and reads `seen` after each millisecond.
fn run(service: impl FnOnce(ScriptedServer) -> Boxed, script: Vec<Answer>, calls: Vec<Call>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let service = service(ScriptedServer::new(script));
    runtime.unwrap().block_on(async {
        let began = Instant::now();
        let calls: JoinSet<_> =
            calls.into_iter().map(|call| make(service.clone(), call, began)).collect();
        calls.join_all().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // catalogue: S-E15
    #[test]
    fn every_gauge_returns_to_0_with_the_last_call_however_it_ends(
        limit in 1..4u32,
        capacity in 0..5u32,
        script in proptest::collection::vec(answers(), 1..20),
        calls in calls(),
    ) {
        let queue = Queue { capacity, ..Queue::default() };
        for limit in [Limit::Fixed(limit), Limit::default()] {
            let settings = ShedSettings::new(limit).unwrap().with_queue(queue);
            let shed = settings.with_streams(3).unwrap().layer();
            run(|server| boxed(shed.layer(server)), script.clone(), calls.clone());
            let seen = shed.counters();
            prop_assert_eq!((seen.in_progress, seen.waiting, seen.streams), (0, 0, 0));
        }
        let settings = BulkheadSettings::new(limit, 20 * MS).unwrap();
        let bulkhead = settings.with_streams(3).unwrap().layer();
        run(|server| boxed(bulkhead.layer(server)), script, calls);
        let seen = bulkhead.counters();
        prop_assert_eq!((seen.in_progress, seen.waiting, seen.streams), (0, 0, 0));
    }

    // catalogue: S-C10
    #[test]
    fn a_layer_that_is_off_changes_nothing_and_counts_nothing(
        script in proptest::collection::vec(answers(), 1..20),
        calls in calls(),
    ) {
        let off = || Switch::new(Mode::Off);
        let switches = [(); 4].map(|()| off());
        let [one, two, three, four] = switches.clone();
        let settings = settings(1).with_queue(Queue::none()).with_switch(one);
        let shed = settings.with_streams(1).unwrap().layer();
        let bulkhead = BulkheadSettings::new(1, Duration::ZERO).unwrap().with_switch(two).layer();
        let throttle = AdaptiveThrottleSettings::new(1.0).unwrap().with_switch(three).layer();
        let quota = RateLimitSettings::new(1, 1).unwrap().with_switch(four).layer();
        let mut seen = Vec::new();
        let all = [
            boxed as fn(ScriptedServer) -> Boxed,
        ];
        for layer in 0..5 {
            let server = Arc::new(Mutex::new(None));
            let service = |scripted: ScriptedServer| {
                *server.lock().unwrap() = Some(scripted.clone());
                match layer {
                    0 => boxed(shed.layer(scripted)),
                    1 => boxed(bulkhead.layer(scripted)),
                    2 => boxed(throttle.layer(scripted)),
                    3 => boxed(quota.layer(scripted)),
                    _ => all[0](scripted),
                }
            };
            run(service, script.clone(), calls.clone());
            let server = server.lock().unwrap().take().unwrap();
            let attempts = (server.attempts(), server.dropped());
            seen.push(attempts);
        }
        for layer in &seen {
            prop_assert_eq!(layer, &seen[4], "{:?}", seen);
        }
        let (shed, bulkhead) = (shed.counters(), bulkhead.counters());
        prop_assert_eq!((shed.shed, shed.late, bulkhead.shed), (0, 0, 0));
        prop_assert_eq!((throttle.counters().throttled, quota.counters().limited), (0, 0));
        prop_assert!(switches.iter().all(|switch| switch.shadowed() == 0));
    }
}

// catalogue: S-C10
#[tokio::test(start_paused = true)]
async fn a_call_through_a_layer_that_is_off_touches_nothing_that_is_shared() {
    let off = || Switch::new(Mode::Off);
    let (shed, bulkhead) = (
        settings(1).with_switch(off()).layer(),
        BulkheadSettings::default().with_switch(off()).layer(),
    );
    let throttle = AdaptiveThrottleSettings::default().with_switch(off()).layer();
    let quota = RateLimitSettings::default().with_switch(off()).layer();
    for kind in KINDS {
        let services = [
            boxed(shed.layer(working(SECOND))),
            boxed(bulkhead.layer(working(SECOND))),
            boxed(throttle.layer(working(SECOND))),
            boxed(quota.layer(working(SECOND))),
        ];
        let counts = || {
            let counts = (shed.references(), bulkhead.references());
            (counts, throttle.references(), quota.references())
        };
        let mut services = services.map(|service| pin!(service).get_mut().clone());
        for service in &mut services {
            let mut request = request();
            kind.into_iter().for_each(|kind| _ = request.extensions_mut().insert(kind));
            let before = counts();
            let mut called = tokio_test::task::spawn(service.ready().await.unwrap().call(request));
            tokio_test::assert_pending!(called.poll());
            assert_eq!(counts(), before, "not even a reference, {kind:?}");
            let gauges = (
                shed.counters().in_progress,
                shed.counters().streams,
                bulkhead.counters().in_progress,
            );
            assert_eq!(gauges, (0, 0, 0));
        }
    }
}

// catalogue: S-C10
#[tokio::test(start_paused = true)]
async fn a_throttle_that_was_off_has_no_history_of_that_time() {
    let switch = Switch::new(Mode::Off);
    let settings = AdaptiveThrottleSettings::new(1.0).unwrap().with_rng(Rng::seeded(1));
    let throttle = settings.with_switch(switch.clone()).layer();
    let (up, down) = (
        throttle.layer(working(Duration::ZERO)),
        throttle.layer(ScriptedServer::new([Answer::Status(Status::unavailable("down"))])),
    );
    for _ in 0..1000 {
        call(&up, request()).await;
        call(&down, request()).await;
    }
    switch.set(Mode::Enforce);
    // As a new one: ten requests are too few, and after them most are refused.
    for _ in 0..10 {
        call(&down, request()).await;
    }
    assert_eq!(throttle.counters().throttled, 0);
    for _ in 0..100 {
        call(&down, request()).await;
    }
    assert!(throttle.counters().throttled >= 60, "{}", throttle.counters().throttled);
}

// catalogue: S-E15
#[tokio::test(start_paused = true)]
async fn an_abandoned_wait_is_not_counted_any_more() {
    let layer =
        settings(1).with_queue(Queue { longest: Duration::MAX, ..Queue::default() }).layer();
    let service = layer.layer(working(3600 * SECOND));
    let _busy = tokio::spawn(call(&service, request()));
    sleep(MS).await;
    for _ in 0..200 {
        let mut waits = tokio_test::task::spawn(service.clone().oneshot(request()));
        tokio_test::assert_pending!(waits.poll());
        assert_eq!(layer.counters().waiting, 1);
        drop(waits);
        assert_eq!(layer.counters().waiting, 0);
    }
}
