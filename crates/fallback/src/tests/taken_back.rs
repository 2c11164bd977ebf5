//! A kept answer is not given after the application has revoked it.

use super::manual::{Flight, Manual, proxy, respond};
use super::*;
use http::{HeaderValue, header::CACHE_CONTROL};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

const ALL: [Code; 16] = [
    Code::Cancelled,
    Code::Unknown,
    Code::InvalidArgument,
    Code::DeadlineExceeded,
    Code::NotFound,
    Code::AlreadyExists,
    Code::PermissionDenied,
    Code::ResourceExhausted,
    Code::FailedPrecondition,
    Code::Aborted,
    Code::OutOfRange,
    Code::Unimplemented,
    Code::Internal,
    Code::Unavailable,
    Code::DataLoss,
    Code::Unauthenticated,
];

/// The answer to each repetition of the same request.
const REFUSALS: [Code; 9] = [
    Code::InvalidArgument,
    Code::NotFound,
    Code::AlreadyExists,
    Code::PermissionDenied,
    Code::FailedPrecondition,
    Code::OutOfRange,
    Code::Unimplemented,
    Code::DataLoss,
    Code::Unauthenticated,
];

/// Answers with these, one after the other, and is down after that.
fn answers(all: impl IntoIterator<Item = Response<Body>>) -> Fallback<impl Answers> {
    caching().layer(serving(all))
}

fn serving(all: impl IntoIterator<Item = Response<Body>>) -> impl Answers {
    let all = Arc::new(Mutex::new(all.into_iter().collect::<VecDeque<_>>()));
    tower::service_fn(move |_: Request<Body>| {
        let answer = all.lock().unwrap().pop_front().unwrap_or_else(|| respond(down()));
        async { Ok::<_, std::convert::Infallible>(answer) }
    })
}

trait Answers:
    Service<
        Request<Body>,
        Response = Response<Body>,
        Error = std::convert::Infallible,
        Future: Send,
    > + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Answers for S where
    S: Service<
            Request<Body>,
            Response = Response<Body>,
            Error = std::convert::Infallible,
            Future: Send,
        > + Clone
        + Send
        + Sync
        + 'static
{
}

fn with_header(
    reply: Reply,
    name: impl http::header::IntoHeaderName,
    value: &'static str,
) -> Response<Body> {
    let mut response = respond(reply);
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}

// catalogue: S-F4
#[tokio::test(start_paused = true)]
async fn a_refusal_removes_the_kept_answer_and_a_failure_does_not() {
    for code in ALL {
        let status = || Status::new(code, "simulated");
        let forms = [
            Reply::Status(status()),
            Reply::HeadersThenStatus(status()),
            Reply::MessageThenStatus(encode(&9_u32), status()),
        ];
        for form in forms {
            let layer = caching();
            let client = layer.layer(ScriptedServer::new([ok(7), form.clone(), down()]));
            assert_eq!(ask(&client, balance()).await, live(7));
            let is_refusal = REFUSALS.contains(&code);
            let is_passed_on = is_refusal || code == Code::Cancelled;
            let expected = if is_passed_on { failed(code) } else { cached(7, 0) };
            assert_eq!(ask(&client, balance()).await, expected, "{form:?}");
            let expected = if is_refusal { unavailable() } else { cached(7, 0) };
            assert_eq!(ask(&client, balance()).await, expected, "{form:?}, then an outage");
            assert_eq!(layer.counters().kept_entries, u64::from(!is_refusal));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_removes_only_the_answer_to_its_own_request_and_caller() {
    let refused = Reply::Status(Status::permission_denied("simulated"));
    let client = caching().layer(ScriptedServer::new([ok(7), ok(8), ok(9), refused, down()]));
    let key = HeaderName::from_static("x-api-key");
    let by = |n, who| with(request(BALANCE, n), key.clone(), who);
    for (n, who) in [(1, "alice"), (1, "bob"), (2, "alice"), (1, "alice")] {
        ask(&client, by(n, who)).await;
    }
    assert_eq!(ask(&client, by(1, "alice")).await, unavailable());
    assert_eq!(ask(&client, by(1, "bob")).await, cached(8, 0));
    assert_eq!(ask(&client, by(2, "alice")).await, cached(9, 0));
}

#[tokio::test(start_paused = true)]
async fn a_proxy_may_refuse_a_caller_and_is_no_evidence_otherwise() {
    for status in [400, 401, 403, 404, 405, 407, 408, 410, 421, 429, 451, 500, 502, 503, 504] {
        let is_refusal = [401, 403].contains(&status);
        let client = answers([respond(ok(7)), proxy(status)]);
        ask(&client, balance()).await;
        let got = client.clone().oneshot(balance()).await.unwrap();
        assert_eq!(got.status(), if is_refusal { status } else { 200 });
        let expected = if is_refusal { unavailable() } else { cached(7, 0) };
        assert_eq!(ask(&client, balance()).await, expected, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_newer_answer_that_cannot_be_kept_replaces_the_older() {
    let large = || respond(Reply::Ok(encode(&"x".repeat(70_000))));
    let bare = || {
        let grpc = Response::builder().header("content-type", "application/grpc");
        grpc.body(framed_body(&8_u32)).unwrap()
    };
    for newer in [
        large(),
        bare(),
        with_header(ok(8), CACHE_CONTROL, "no-store"),
        with_header(ok(8), AGE, "301"),
        respond(Reply::Ok(Bytes::from_static(&[0, 0, 0, 0, 9, 1]))),
        respond(Reply::Ok(Bytes::from_static(&[2, 0, 0, 0, 1, 1]))),
    ] {
        let shown = format!("{newer:?}");
        let client = answers([respond(ok(7)), newer]);
        ask(&client, balance()).await;
        drop(client.clone().oneshot(balance()).await.unwrap());
        assert_eq!(ask(&client, balance()).await, unavailable(), "{shown}");
    }
    let room = Cache { max_bytes: 1000, max_answer: 1000, ..Cache::default() };
    let layer = FallbackSettings::new(methods()).with_cache(room).unwrap().layer();
    let client = layer.layer(serving([respond(ok(7)), respond(Reply::Ok(vec![9; 900].into()))]));
    ask(&client, balance()).await;
    assert_eq!(layer.counters().kept_entries, 1);
    drop(client.clone().oneshot(balance()).await.unwrap());
    assert_eq!(ask(&client, balance()).await, unavailable());
}

#[tokio::test(start_paused = true)]
async fn a_degraded_answer_does_not_replace_the_kept_one() {
    let trailing = {
        let (head, body) = respond(ok(8)).into_parts();
        let marked = body.map_frame(|frame| match frame.into_trailers() {
            Ok(mut trailers) => {
                trailers.insert(DEGRADED, HeaderValue::from_static("partial"));
                http_body::Frame::trailers(trailers)
            }
            Err(frame) => frame,
        });
        Response::from_parts(head, Body::new(marked))
    };
    for degraded in [with_header(ok(8), DEGRADED, "partial"), trailing] {
        let client = answers([respond(ok(7)), degraded]);
        ask(&client, balance()).await;
        assert_eq!(ask(&client, balance()).await.value, Some(8));
        assert_eq!(ask(&client, balance()).await, cached(7, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_does_not_restore_a_revoked_one() {
    let refused = || Reply::Status(Status::not_found("simulated"));
    let client = caching().layer(Manual::default());
    let begin = || Flight::begin(&client, balance());
    let (older, refusing, newer) = (begin(), begin(), begin());
    assert_eq!(refusing.answer(refused()), failed(Code::NotFound));
    assert_eq!(older.answer(ok(6)), live(6));
    assert_eq!(begin().answer(down()), unavailable(), "it was under way");
    assert_eq!(newer.answer(ok(7)), live(7));
    assert_eq!(begin().answer(down()), unavailable(), "it may have been answered before");
    assert_eq!(begin().answer(ok(8)), live(8));
    assert_eq!(begin().answer(down()), cached(8, 0));
}

#[tokio::test(start_paused = true)]
async fn a_late_refusal_removes_the_answer_to_a_later_call() {
    let client = caching().layer(Manual::default());
    let begin = || Flight::begin(&client, balance());
    let (refusing, later) = (begin(), begin());
    assert_eq!(later.answer(ok(7)), live(7));
    let refused = Reply::HeadersThenStatus(Status::permission_denied("simulated"));
    assert_eq!(refusing.answer(refused), failed(Code::PermissionDenied));
    assert_eq!(begin().answer(down()), unavailable());
}

#[tokio::test(start_paused = true)]
async fn of_two_answers_that_of_the_later_call_is_kept_in_any_order() {
    let client = caching().layer(Manual::default());
    let begin = || Flight::begin(&client, balance());
    let (mut older, newer) = (begin(), begin());
    older.head(ok(7));
    assert_eq!(newer.answer(ok(8)), live(8));
    assert_eq!(older.rest(), live(7));
    assert_eq!(begin().answer(down()), cached(8, 0));

    let (older, newer) = (begin(), begin());
    assert_eq!(newer.answer(Reply::Ok(encode(&"x".repeat(70_000)))).code, Code::Ok);
    assert_eq!(older.answer(ok(9)), live(9));
    assert_eq!(begin().answer(down()), unavailable(), "there was a newer one, if not kept");
}

#[tokio::test(start_paused = true)]
async fn an_evicted_answer_is_not_replaced_by_an_older_one() {
    let cache = Cache { max_bytes: 900, max_answer: 500, ..Cache::default() };
    let client = FallbackSettings::new(methods())
        .with_cache(cache)
        .unwrap()
        .layer()
        .layer(Manual::default());
    let begin = |n| Flight::begin(&client, request(BALANCE, n));
    let (older, newer) = (begin(1), begin(1));
    newer.answer(ok(8));
    begin(2).answer(ok(2));
    assert_eq!(begin(1).answer(down()), unavailable(), "the least recently used made room");
    older.answer(ok(7));
    assert_eq!(begin(1).answer(down()), unavailable());
    assert_eq!(begin(2).answer(down()), cached(2, 0));
}

#[tokio::test(start_paused = true)]
async fn an_expired_answer_is_not_replaced_by_an_older_one() {
    let client = caching().layer(Manual::default());
    let begin = || Flight::begin(&client, balance());
    let (older, newer) = (begin(), begin());
    newer.answer(ok(8));
    advance(301 * SECOND).await;
    assert_eq!(begin().answer(down()), unavailable());
    assert_eq!(older.answer(ok(7)), live(7));
    assert_eq!(begin().answer(down()), unavailable());
}

#[tokio::test(start_paused = true)]
async fn in_shadow_refusals_remove_answers_as_well() {
    let switch = Switch::default();
    let refused = Reply::Status(Status::not_found("simulated"));
    let server = ScriptedServer::new([ok(7), refused, down()]);
    let client = settings().with_switch(switch.clone()).layer().layer(server);
    ask(&client, balance()).await;
    switch.set(Mode::Shadow);
    assert_eq!(ask(&client, balance()).await, failed(Code::NotFound));
    switch.set(Mode::Enforce);
    assert_eq!(ask(&client, balance()).await, unavailable());
}

#[tokio::test(start_paused = true)]
async fn answers_kept_before_the_layer_was_off_are_not_given_after_it() {
    let refused = || Reply::Status(Status::not_found("simulated"));
    let partly = Reply::HeadersThenStatus(Status::unavailable("simulated"));
    for unseen in [refused(), ok(8), partly, down()] {
        let switch = Switch::default();
        let server = ScriptedServer::new([ok(7), unseen.clone(), down()]);
        let layer = settings().with_switch(switch.clone()).layer();
        let client = layer.layer(server);
        ask(&client, balance()).await;
        switch.set(Mode::Off);
        let before = layer.counters();
        assert!(ask(&client, balance()).await.degraded.is_none());
        assert_eq!(layer.counters(), before, "off, it is not there");
        switch.set(Mode::Enforce);
        assert_eq!(ask(&client, balance()).await, unavailable(), "{unseen:?}");
        assert_eq!(layer.counters().kept_entries, 0);
    }
    let switch = Switch::default();
    let client = settings().with_switch(switch.clone()).layer().layer(Manual::default());
    let begin = || Flight::begin(&client, balance());
    let under_way = begin();
    switch.set(Mode::Off);
    assert_eq!(begin().answer(refused()), failed(Code::NotFound));
    switch.set(Mode::Enforce);
    assert_eq!(under_way.answer(ok(7)), live(7));
    assert_eq!(begin().answer(down()), unavailable());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_alternate_counts_only_if_it_refuses_the_caller() {
    for (code, denied) in [
        (Code::PermissionDenied, true),
        (Code::Unauthenticated, true),
        (Code::NotFound, false),
        (Code::Unimplemented, false),
        (Code::Unavailable, false),
    ] {
        for form in [Reply::Status, Reply::HeadersThenStatus] {
            let alternate = ScriptedServer::new([form(Status::new(code, "simulated")), down()]);
            let layer = settings().with_alternate(alternate).layer();
            let client = layer.layer(ScriptedServer::new([ok(7), down()]));
            ask(&client, balance()).await;
            for _ in 0..2 {
                let expected = if denied { unavailable() } else { cached(7, 0) };
                assert_eq!(ask(&client, balance()).await, expected, "{code}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn age_counts_from_the_arrival_of_the_answer_plus_its_own_age() {
    let client = caching().layer(Manual::default());
    let begin = || Flight::begin(&client, balance());
    let mut slow = begin();
    advance(400 * SECOND).await;
    slow.head(ok(7));
    advance(400 * SECOND).await;
    assert_eq!(slow.rest(), live(7));
    advance(300 * SECOND).await;
    assert_eq!(begin().answer(down()), cached(7, 300));
    advance(SECOND).await;
    assert_eq!(begin().answer(down()), unavailable());

    for (age, expected) in [("100", cached(7, 150)), ("-1", cached(7, 50)), ("x", cached(7, 50))] {
        let client = answers([with_header(ok(7), AGE, age)]);
        ask(&client, balance()).await;
        advance(50 * SECOND).await;
        assert_eq!(ask(&client, balance()).await, expected, "{age}");
    }
    let client = answers([with_header(ok(7), AGE, "18446744073709551615")]);
    ask(&client, balance()).await;
    assert_eq!(ask(&client, balance()).await, unavailable());
}
// content-type than application/grpc* a failure (A3). Nothing else in the crate has to change:
// `Reading::of` asks `Verdict::of_head` before it reads a body.
#[tokio::test(start_paused = true)]
async fn an_http_200_that_is_no_grpc_answer_is_a_failure_and_says_nothing() {
    let client = answers([respond(ok(7)), proxy(200)]);
    ask(&client, balance()).await;
    assert_eq!(ask(&client, balance()).await, cached(7, 0));
    assert_eq!(ask(&client, balance()).await, cached(7, 0), "then an outage");
}

// catalogue: S-F4
#[tokio::test(start_paused = true)]
async fn a_refusal_of_a_call_that_bypasses_the_cache_removes_the_answer_too() {
    for directive in ["no-cache", "no-store", "max-age=0"] {
        let refused = Reply::Status(Status::permission_denied("no more"));
        let client = caching().layer(ScriptedServer::new([ok(7), refused, down()]));
        ask(&client, balance()).await;
        ask(&client, with(balance(), http::header::CACHE_CONTROL, directive)).await;
        assert_eq!(ask(&client, balance()).await, unavailable(), "{directive}");
    }
}
