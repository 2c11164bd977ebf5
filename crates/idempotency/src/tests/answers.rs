//! Answers that are not of gRPC, or not whole; and what is counted of calls that end otherwise.

use super::*;
use cinchona_plumbing::status as statuses;
use futures_util::FutureExt;
use http::{StatusCode, Version};

/// A service that gives the same answer, however often it is asked.
fn answering(answer: impl Fn() -> Response<Body> + Clone + Send + Sync + 'static) -> Bank {
    BoxCloneSyncService::new(service_fn(move |_: Request<Body>| {
        let answer = answer();
        async move { Ok(answer) }
    }))
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_cut_off_before_its_status_is_not_given_again() {
    let layer = dedup();
    let cut = || {
        let response = Response::builder().header("content-type", "application/grpc");
        response.body(Body::new(Full::new(encode(&7_u32)))).unwrap()
    };
    let service = layer.layer(answering(cut));
    let (_, data, trailers) = read(ask(&service, pay("k")).await).await;
    assert_eq!((data, trailers), (encode(&7_u32), None), "as the service has sent it");
    let again = status(&ask(&service, pay("k")).await);
    assert_eq!((again.code(), &*reason(&again)), (Code::Unknown, "IDEMPOTENCY_OUTCOME_UNKNOWN"));
    assert_eq!((layer.counters().executed, layer.counters().ambiguous), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_http_is_the_same_with_the_layer() {
    for mode in [Mode::Enforce, Mode::Shadow] {
        for http in [401, 404, 429, 503] {
            let failed = move || {
                let mut response = Response::builder().status(http).version(Version::HTTP_2);
                response = response.header("x-why", "down").extension(7_u32);
                response.body(Body::empty()).unwrap()
            };
            let settings = settings().with_switch(Switch::new(mode));
            let service = settings.layer(MemoryStore::new()).layer(answering(failed));
            for n in 0..2 {
                let answered = ask(&service, pay("k")).await;
                assert_eq!(answered.status(), http, "{mode:?}, the call {n}");
                assert_eq!(answered.headers()["x-why"], "down");
                if !is_replay(&answered) {
                    assert_eq!(answered.version(), Version::HTTP_2);
                    assert_eq!(answered.extensions().get(), Some(&7_u32));
                }
                let said = statuses::of_head(&answered).code();
                assert_eq!(said, statuses::code_of_http(StatusCode::from_u16(http).unwrap()));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn in_shadow_a_mark_that_a_call_has_not_begun_stays() {
    let refused = || statuses::not_begun(Status::internal("read-only")).into_http();
    for (mode, stays) in [(Mode::Enforce, false), (Mode::Shadow, true)] {
        let settings = settings().with_switch(Switch::new(mode));
        let service = settings.layer(MemoryStore::new()).layer(answering(refused));
        let answered = ask(&service, pay("k")).await;
        assert_eq!(statuses::is_not_begun(answered.headers()), stays, "{mode:?}");
    }
    // And what has begun would not be executed again.
    let failed = || Status::internal("a fault").into_http();
    for (service, would_refuse) in [(answering(refused), 0), (answering(failed), 1)] {
        let switch = Switch::new(Mode::Shadow);
        let settings = settings().with_switch(switch.clone());
        let service = settings.layer(MemoryStore::new()).layer(service);
        for _ in 0..2 {
            ask(&service, pay("k")).await;
        }
        assert_eq!(switch.shadowed(), would_refuse);
    }
}

#[tokio::test(start_paused = true)]
async fn what_panics_or_is_too_large_is_counted() {
    let layer = settings().with_limits(100, 100).layer(MemoryStore::new());
    let service = layer.layer(bank(Duration::ZERO, &[]).0);
    let large = encode(&Any { type_url: "x".repeat(1000), value: Vec::new() });
    let refused = status(&ask(&service, to("/Bank/Pay", Some("k"), large)).await);
    assert_eq!((refused.code(), layer.counters().unreadable), (Code::OutOfRange, 1));
    let panics = layer.layer(answering(|| panic!("a fault of the service")));
    let call = AssertUnwindSafe(panics.oneshot(pay("p"))).catch_unwind();
    assert!(call.await.is_err());
    assert_eq!((layer.counters().executed, layer.counters().ambiguous), (1, 1));
}

#[test]
fn a_domain_is_printable_and_that_of_the_store() {
    for domain in ["", "caf\u{e9}", "a\nb"] {
        let refused = settings().with_domain(domain).unwrap_err();
        assert_eq!(refused.field(), "domain", "{domain:?}");
    }
    assert!(settings().with_domain("eu-1").is_ok());
    let (store, other) = (MemoryStore::new(), MemoryStore::new());
    assert_eq!(store.domain(), store.clone().domain());
    assert_ne!(store.domain(), other.domain());
    assert!(store.domain().is_some());
}
