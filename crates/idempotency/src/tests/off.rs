//! A layer that is off does nothing.

use super::*;
use cinchona_plumbing::timeout::encode_timeout;
use futures_util::FutureExt;
use http::HeaderMap;
use proptest::prelude::*;
use std::sync::Mutex;

/// A store that must not be touched.
#[derive(Clone)]
struct Untouched;

impl Store for Untouched {
    async fn claim(&self, _: &[u8], _: u128, _: u128, _: Duration) -> Result<Claim, BoxError> {
        panic!("it is off")
    }

    async fn finish(&self, _: &[u8], _: u128, _: &[u8]) -> Result<bool, BoxError> {
        panic!("it is off")
    }

    async fn release(&self, _: &[u8], _: u128) -> Result<(), BoxError> {
        panic!("it is off")
    }

    fn instance(&self) -> usize {
        0
    }
}

/// All settings that may affect a call.
fn off(switch: &Switch) -> DedupLayer<Untouched> {
    DedupSettings::new(methods())
        .with_required(true)
        .with_limits(1, 1)
        .with_caller(|_, _| panic!("it is off"))
        .with_authorize(|_| -> std::future::Ready<_> { panic!("it is off") })
        .with_domain("eu-1")
        .unwrap()
        .with_lease(SECOND)
        .unwrap()
        .with_switch(switch.clone())
        .layer(Untouched)
}

fn request_headers() -> impl Strategy<Value = HeaderMap> {
    let name = prop::sample::select(vec![
        "idempotency-key",
        "idempotency-domain",
        "grpc-timeout",
        "authorization",
        "grpc-encoding",
        "x-other",
    ]);
    prop::collection::vec((name, "[ -~]{0,20}"), 0..6).prop_map(|pairs| {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, HeaderValue::from_str(&value).unwrap());
        }
        headers
    })
}

/// The requests and answers of a service.
fn echo(bodies: Bytes) -> Bank {
    BoxCloneSyncService::new(service_fn(move |request: Request<Body>| {
        let bodies = bodies.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            assert_eq!(body, bodies);
            let mut response = answer(7);
            for (name, value) in &parts.headers {
                let name = http::HeaderName::try_from(format!("x-got-{name}"))?;
                response.headers_mut().append(name, value.clone());
            }
            response.headers_mut().insert("x-path", parts.uri.path().parse()?);
            Ok(response)
        }
    }))
}

proptest! {
    // catalogue: S-C10
    #[test]
    fn a_layer_that_is_off_changes_nothing_counts_nothing_and_asks_nobody(
        headers in request_headers(),
        body in prop::collection::vec(any::<u8>(), 0..20),
        path in prop::sample::select(vec!["/Bank/Pay", "/Bank/Read", "/Bank/Watch", "/O/P"]),
    ) {
        let switch = Switch::new(Mode::Off);
        let layer = off(&switch);
        let body = Bytes::from(body);
        let request = || {
            let mut request = to(path, None, body.clone());
            *request.headers_mut() = headers.clone();
            request.extensions_mut().insert(cinchona_core::Deadline::after(SECOND, later()));
            request
        };
        let (bare, off) = (echo(body.clone()), layer.layer(echo(body.clone())));
        let seen = |service: BoxCloneSyncService<_, _, _>| {
            let response = service.oneshot(request()).now_or_never().unwrap().unwrap();
            read(response).now_or_never().unwrap()
        };
        prop_assert_eq!(seen(bare), seen(BoxCloneSyncService::new(off)));
        prop_assert_eq!((layer.counters(), switch.shadowed()), (DedupCounters::default(), 0));
    }
}

fn later() -> Instant {
    static NOW: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    *NOW
}

#[test]
fn a_layer_that_is_off_allocates_nothing_and_holds_no_shared_state() {
    let layer = off(&Switch::new(Mode::Off));
    let references = |layer: &DedupLayer<_>| Arc::strong_count(&layer.shared);
    let shared = layer.clone();
    let inner = service_fn(move |_: Request<Body>| {
        assert_eq!(references(&shared), 3, "those of two layers and the service");
        std::future::ready(Ok::<_, std::convert::Infallible>(Response::new(Body::empty())))
    });
    let mut service = layer.layer(inner);
    let request = pay("k");
    let counts = allocation_counter::measure(|| {
        let answered = service.call(request).now_or_never().unwrap().unwrap();
        assert!(answered.headers().is_empty());
    });
    // The box of a body is freed, not allocated.
    assert_eq!(counts.count_total, 0, "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn in_shadow_a_would_be_refusal_is_passed_on_unchanged() {
    let large = encode(&Any { type_url: "x".repeat(1000), value: Vec::new() });
    let long = "k".repeat(256);
    let mut elsewhere = pay("k");
    elsewhere.headers_mut().insert(DOMAIN, HeaderValue::from_static("us-1"));
    let mut compressed = message("", 0).to_vec();
    compressed[0] = 1;
    for (request, body) in [
        (pay(&long), message("", 0)),
        (pay("ok"), message("", 0)),
        (to("/Bank/Pay", None, message("", 0)), message("", 0)),
        (to("/Bank/Pay", Some("k"), large.clone()), large),
        (elsewhere, message("", 0)),
        (to("/Bank/Pay", Some("k"), compressed.clone().into()), compressed.into()),
    ] {
        let is_sound = request.headers().get(IDEMPOTENCY_KEY).is_some_and(|key| key == "ok");
        let switch = Switch::new(Mode::Shadow);
        let layer = settings()
            .with_required(true)
            .with_limits(100, 100)
            .with_switch(switch.clone())
            .layer(MemoryStore::new());
        let answered = ask(&layer.layer(echo(body)), request).await;
        assert_eq!(status(&answered).code(), Code::Ok);
        assert!(answered.headers().contains_key("x-path"), "the service has answered");
        assert_eq!(switch.shadowed(), u64::from(!is_sound));
    }
}

/// The bank, which takes so long, and what it has seen of each call: its deadline, and whether it
/// came to its end.
fn slow(seconds: u64, seen: &Arc<Mutex<Vec<String>>>) -> Bank {
    let seen = seen.clone();
    BoxCloneSyncService::new(service_fn(move |request: Request<Body>| {
        let seen = seen.clone();
        async move {
            let deadline = request.extensions().get::<cinchona_core::Deadline>().copied();
            let timeout = request.headers().get("grpc-timeout").cloned();
            seen.lock().unwrap().push(format!("{deadline:?} {timeout:?}"));
            request.into_body().collect().await?;
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            seen.lock().unwrap().push("ended".into());
            Ok(answer(7))
        }
    }))
}

proptest! {
    #[test]
    fn in_shadow_a_call_is_what_it_would_be_without_the_layer(
        calls in prop::collection::vec((0..3_u8, 0..100_u64, 0..100_u64), 1..4),
        seconds in 0..100_u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let began = later();
        let results = [false, true].map(|is_layered| runtime.block_on(async {
            let seen = Arc::default();
            let settings = settings().with_switch(Switch::new(Mode::Shadow));
            let layer = settings.layer(MemoryStore::new());
            let bank = slow(seconds, &seen);
            let bank = match is_layered {
                true => BoxCloneSyncService::new(layer.layer(bank)),
                false => bank,
            };
            let first = Instant::now();
            let calls = calls.iter().map(|(key, after, patience)| {
                let mut request = pay(&key.to_string());
                let timeout = Duration::from_secs(*patience);
                request.headers_mut().insert("grpc-timeout", encode_timeout(timeout));
                request.extensions_mut().insert(cinchona_core::Deadline::after(timeout, began));
                let bank = bank.clone();
                async move {
                    tokio::time::sleep(Duration::from_secs(*after)).await;
                    let answered = tokio::time::timeout(timeout, ask(&bank, request)).await;
                    let headers = answered.map(|response| response.headers().clone());
                    (headers.ok(), Instant::now() - first)
                }
            });
            let answers = futures_util::future::join_all(calls).await;
            // Whatever goes on without its caller.
            tokio::time::sleep(Duration::from_secs(1000)).await;
            let seen = std::mem::take(&mut *seen.lock().unwrap());
            (answers, seen)
        }));
        prop_assert_eq!(&results[0], &results[1]);
    }
}

#[test]
fn a_first_call_makes_at_most_twenty_allocations() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let counted = |service: Bank, key: &str| {
        // Already canonical, as most messages are.
        let body = encode(&Any { type_url: key.into(), value: Vec::new() });
        let request = to("/Bank/Pay", None, body);
        let call = async { read(service.oneshot(request).await.unwrap()).await };
        allocation_counter::measure(|| drop(runtime.block_on(call))).count_total
    };
    let bare = || {
        BoxCloneSyncService::new(service_fn(|request: Request<Body>| async {
            request.into_body().collect().await?;
            Ok(answer(7))
        }))
    };
    let layered = BoxCloneSyncService::new(dedup().layer(bare()));
    // Growing buffers have reached their size.
    for n in 0..2000 {
        counted(layered.clone(), &n.to_string());
    }
    let more = counted(layered.clone(), "first") - counted(bare(), "first");
    assert!(more <= 20, "{more}");
}

#[tokio::test(start_paused = true)]
async fn a_layer_within_another_leaves_its_calls_alone_and_warns_once() {
    let logs = cinchona_testkit::Logs::of("cinchona_idempotency");
    let (bank, executed) = bank(Duration::ZERO, &[]);
    let inner = dedup();
    let service = dedup().layer(inner.clone().layer(bank));
    for _ in 0..2 {
        assert_eq!(status(&ask(&service, pay("k")).await).code(), Code::Ok);
    }
    assert_eq!((executed.load(Ordering::Relaxed), inner.counters().executed), (1, 0));
    let warned = logs.events().iter().filter(|event| event.level == tracing::Level::WARN).count();
    assert!(warned <= 1, "another test may have been first");
}
