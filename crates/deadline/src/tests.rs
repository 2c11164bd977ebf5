//! The laws of both layers, in virtual time.

use super::*;
use bytes::Bytes;
use cinchona_core::{BoxError, Deadline, MethodKind, Mode, Switch, Verdict};
use cinchona_plumbing::{Elapsed, cause::find_cause};
use http::HeaderMap;
use http_body_util::{BodyExt, Full, StreamBody, channel::Channel};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::time::{Instant, advance};
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok, task};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_test::mock;

type Request = http::Request<Body>;
type Response = http::Response<Body>;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Of a unary method.
fn request() -> Request {
    let request = http::Request::builder().uri("/a.B/C").extension(MethodKind::Unary);
    request.body(Body::empty()).unwrap()
}

fn with_timeout(value: &str) -> Request {
    let mut request = request();
    request.headers_mut().insert("grpc-timeout", value.parse().unwrap());
    request
}

fn code(error: BoxError) -> Code {
    Status::from_error(error).code()
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_at_its_deadline_and_not_before() {
    let (mut service, mut handle) = mock::spawn_layer::<Request, Response, _>(
        CallDeadlineSettings::new().with_limit(ms(10)).layer(),
    );
    assert_ready_ok!(service.poll_ready());
    let mut call = task::spawn(service.call(request()));
    let (_request, _held) = handle.next_request().await.unwrap();
    advance(ms(9)).await;
    assert_pending!(call.poll());
    advance(ms(1)).await;
    let error = assert_ready_err!(call.poll());
    assert_eq!(Verdict::of_error(&*error), Verdict::Deadline);
    let said = "call deadline of 10ms exceeded by /a.B/C, attempt 1, waiting for the response";
    assert_eq!(error.to_string(), said);
    assert_eq!(code(error), Code::DeadlineExceeded);
}

#[tokio::test(start_paused = true)]
async fn the_earlier_of_header_and_limit_is_the_deadline_and_is_passed_on() {
    for (asked, expected) in [("5m", 5), ("50m", 10)] {
        let (mut service, mut handle) = mock::spawn_layer::<Request, Response, _>(
            CallDeadlineSettings::new().with_limit(ms(10)).layer(),
        );
        assert_ready_ok!(service.poll_ready());
        let _call = task::spawn(service.call(with_timeout(asked)));
        let (sent, _held) = handle.next_request().await.unwrap();
        let deadline = Deadline::handed_on(&sent).unwrap();
        assert_eq!(deadline.remaining(Instant::now()), ms(expected));
        let timeout = cinchona_plumbing::timeout::parse_timeout(sent.headers()).unwrap();
        assert_eq!(timeout, Some(ms(expected)));
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_for_readiness_counts_and_the_rest_is_stamped() {
    let (service, mut handle) = mock::pair::<Request, Response>();
    handle.allow(0);
    let mut service = CallDeadlineSettings::new().with_limit(ms(100)).layer().layer(service);
    service.ready().await.unwrap();
    let mut call = task::spawn(service.call(request()));
    assert_pending!(call.poll());
    advance(ms(40)).await;
    handle.allow(1);
    assert_pending!(call.poll());
    let (sent, _held) = handle.next_request().await.unwrap();
    assert_eq!(sent.headers()["grpc-timeout"], "60000000n");

    let mut late = task::spawn(service.call(request()));
    handle.allow(0);
    assert_pending!(late.poll());
    advance(ms(100)).await;
    assert!(find_cause::<Elapsed>(&*assert_ready_err!(late.poll())).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_failure_to_become_ready_is_answered_by_the_call() {
    let (service, mut handle) = mock::pair::<Request, Response>();
    handle.send_error(Status::unavailable("worker gone"));
    let mut service = CallDeadlineLayer::new().layer(service);
    let error = service.ready().await.unwrap().call(request()).await.err().unwrap();
    assert_eq!(code(error), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn without_a_deadline_a_call_takes_its_time() {
    let (mut service, mut handle) =
        mock::spawn_layer::<Request, Response, _>(CallDeadlineLayer::new());
    assert_ready_ok!(service.poll_ready());
    let mut call = task::spawn(service.call(request()));
    let (sent, respond) = handle.next_request().await.unwrap();
    assert!(!sent.headers().contains_key("grpc-timeout"));
    advance(Duration::from_secs(86_400)).await;
    assert_pending!(call.poll());
    respond.send_response(Response::new(Body::empty()));
    assert_ready_ok!(call.poll());
}

#[tokio::test(start_paused = true)]
async fn a_malformed_or_expired_timeout_is_answered_without_sending() {
    for (asked, expected) in [
        ("1", Code::InvalidArgument),
        ("-1S", Code::InvalidArgument),
        ("0m", Code::DeadlineExceeded),
    ] {
        let never =
            service_fn(|_: Request| async { panic!("sent") as Result<Response, Infallible> });
        let call = CallDeadlineLayer::new().layer(never).oneshot(with_timeout(asked));
        assert_eq!(code(call.await.err().unwrap()), expected, "{asked}");
        let attempt = AttemptTimeoutLayer::default().layer(never).oneshot(with_timeout(asked));
        assert_eq!(code(attempt.await.err().unwrap()), expected, "{asked}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_gets_its_limit_or_the_remaining_time_of_the_call() {
    let echo = service_fn(|request: Request| async move {
        let mut response = Response::new(Body::empty());
        *response.headers_mut() = request.headers().clone();
        Ok::<_, Infallible>(response)
    });
    let attempt =
        |limit| CallDeadlineLayer::new().layer(AttemptTimeoutLayer::new(limit).layer(echo));
    let answer = attempt(ms(3)).oneshot(with_timeout("5m")).await.unwrap();
    assert_eq!(answer.headers()["grpc-timeout"], "3000000n");
    let answer = attempt(ms(9)).oneshot(with_timeout("5m")).await.unwrap();
    assert_eq!(answer.headers()["grpc-timeout"], "5000000n");
}

#[tokio::test(start_paused = true)]
async fn one_call_can_have_another_attempt_limit() {
    let hang = service_fn(|_: Request| std::future::pending::<Result<Response, Infallible>>());
    let service = AttemptTimeoutLayer::new(ms(10)).layer(hang);
    for (limit, ends) in [(Some(ms(5)), Some(5)), (Some(ms(50)), Some(50)), (None, None)] {
        let mut request = request();
        request.extensions_mut().insert(AttemptLimit(limit));
        let began = Instant::now();
        let call = tokio::time::timeout(ms(1000), service.clone().oneshot(request)).await;
        assert_eq!(call.ok().map(|_| (Instant::now() - began).as_millis()), ends);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_is_ended_and_dropped() {
    let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
    sender.send_data("frame".into()).await.unwrap();
    let mut body = Some(Body::new(body));
    let stall = service_fn(move |_: Request| {
        let body = body.take().unwrap();
        async move { Ok::<_, Infallible>(Response::new(body)) }
    });
    let service = tower::buffer::Buffer::new(stall, 1);
    let service = CallDeadlineSettings::new().with_limit(ms(10)).layer().layer(service);
    let mut body = Box::pin(service.oneshot(request()).await.unwrap().into_body());
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "frame");
    let began = Instant::now();
    let error = body.frame().await.unwrap().err().unwrap();
    assert_eq!((Instant::now() - began, error.code()), (ms(10), Code::DeadlineExceeded));
    assert!(body.frame().await.is_none());
    assert!(sender.send_data("late".into()).await.is_err(), "the stream is still open");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_ends_in_time_is_untouched() {
    let frames = [Ok::<_, Infallible>(http_body::Frame::data(Bytes::from("frame")))];
    let body = Body::new(StreamBody::new(tokio_stream::iter(frames)));
    let (mut service, mut handle) =
        mock::spawn_layer::<Request, Response, _>(AttemptTimeoutLayer::default());
    assert_ready_ok!(service.poll_ready());
    let mut call = task::spawn(service.call(request()));
    handle.next_request().await.unwrap().1.send_response(Response::new(body));
    let response = assert_ready_ok!(call.poll());
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "frame");
}

// catalogue: S-A10
#[tokio::test(start_paused = true)]
async fn the_timer_of_a_tonic_server_is_a_deadline_only_when_it_can_have_fired() {
    let says = |after: Duration, message: &'static str| {
        service_fn(move |_: Request| async move {
            tokio::time::sleep(after).await;
            Ok::<_, Infallible>(Status::cancelled(message).into_http::<Body>())
        })
    };
    for (after, limit, message, expected) in [
        (ms(99), Some(ms(100)), "Timeout expired", "4"),
        (ms(100), Some(ms(100)), "Timeout expired", "4"),
        (ms(97), Some(ms(100)), "Timeout expired", "1"),
        (ms(100), Some(ms(100)), "the user left", "1"),
        (ms(0), None, "Timeout expired", "1"),
    ] {
        let layer = CallDeadlineSettings::new().with_limit(limit.unwrap_or(Duration::MAX)).layer();
        let response = layer.layer(says(after, message)).oneshot(request()).await.unwrap();
        assert_eq!(response.headers()["grpc-status"], expected, "{after:?} {limit:?} {message}");
        let said = cinchona_plumbing::status::from_headers(response.headers()).unwrap();
        assert_eq!(said.message(), message);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_ends_or_is_dropped_drops_the_call_below() {
    let below = Arc::new(());
    let held = below.clone();
    let hang = service_fn(move |_: Request| {
        let held = held.clone();
        async move {
            std::future::pending::<()>().await;
            drop(held);
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }
    });
    let service = CallDeadlineSettings::new().with_limit(ms(10)).layer().layer(hang);
    let mut dropped = task::spawn(service.clone().oneshot(request()));
    let mut ended = task::spawn(service.clone().oneshot(request()));
    assert_pending!(dropped.poll());
    assert_pending!(ended.poll());
    let idle = Arc::strong_count(&below) - 1;
    drop(dropped);
    assert_eq!(Arc::strong_count(&below), idle);
    advance(ms(10)).await;
    assert_ready_err!(ended.poll());
    assert_eq!(Arc::strong_count(&below), idle - 1);
}

#[tokio::test(start_paused = true)]
async fn a_place_in_the_queue_is_kept_and_given_back() {
    // ConcurrencyLimit hands its permits out at readiness, in order: a layer that polled one clone
    // and called another would wait for itself.
    let slow = service_fn(|_: Request| async {
        tokio::time::sleep(ms(10)).await;
        Ok::<_, Infallible>(Response::new(Body::empty()))
    });
    let limited = tower::limit::ConcurrencyLimit::new(slow, 1);
    let service = CallDeadlineSettings::new().with_limit(ms(1000)).layer().layer(limited);
    let began = Instant::now();
    let calls: Vec<_> = (0..5).map(|_| tokio::spawn(service.clone().oneshot(request()))).collect();
    let abandoned = tokio::spawn(service.clone().oneshot(request()));
    tokio::task::yield_now().await;
    abandoned.abort();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    service.oneshot(request()).await.unwrap();
    assert_eq!(Instant::now() - began, ms(60));
}

#[tokio::test(start_paused = true)]
async fn in_shadow_a_limit_that_is_exceeded_is_counted_and_the_call_goes_on() {
    let (call, attempt) = (Switch::new(Mode::Shadow), Switch::new(Mode::Shadow));
    let slow = service_fn(|request: Request| async move {
        assert!(!request.headers().contains_key("grpc-timeout"));
        tokio::time::sleep(ms(50)).await;
        Ok::<_, Status>(Response::new(Body::empty()))
    });
    let stack = tower::ServiceBuilder::new()
        .layer(CallDeadlineSettings::new().with_limit(ms(20)).with_switch(call.clone()).layer())
        .layer(AttemptTimeoutSettings::new(ms(10)).with_switch(attempt.clone()).layer())
        .service(slow);
    stack.clone().oneshot(request()).await.unwrap();
    assert_eq!((call.shadowed(), attempt.shadowed()), (1, 1));
    call.set(Mode::Off);
    attempt.set(Mode::Off);
    stack.clone().oneshot(request()).await.unwrap();
    assert_eq!((call.shadowed(), attempt.shadowed()), (1, 1));
    call.set(Mode::Enforce);
    // From now on the deadline is stamped, which the service above refuses.
    assert!(tokio::spawn(stack.oneshot(request())).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn in_shadow_a_call_without_time_and_a_stream_that_never_waits_are_counted_once() {
    let call = Switch::new(Mode::Shadow);
    let prompt = service_fn(|_: Request| async { Ok::<_, Status>(Response::new(Body::empty())) });
    let layer = CallDeadlineSettings::new().with_switch(call.clone()).layer();
    layer.layer(prompt).oneshot(with_timeout("0n")).await.unwrap();
    assert_eq!(call.shadowed(), 1);
    // Its frames are there, and it ends late.
    let stream = service_fn(|_: Request| async {
        let (mut sender, body) = Channel::<Bytes, Infallible>::new(8);
        for _ in 0..5 {
            sender.send_data(Bytes::from_static(&[0; 5])).await.unwrap();
        }
        Ok::<_, Status>(Response::new(Body::new(body)))
    });
    let response = layer.layer(stream).oneshot(with_timeout("20m")).await.unwrap();
    let mut body = response.into_body();
    for _ in 0..5 {
        assert!(body.frame().await.unwrap().unwrap().is_data());
        tokio::time::advance(ms(10)).await;
    }
    assert_eq!((body.frame().await.is_none(), call.shadowed()), (true, 2));
}

#[tokio::test(start_paused = true)]
async fn in_shadow_a_malformed_timeout_is_counted_and_passed_on() {
    for asked in ["1", "-1S"] {
        let (call, attempt) = (Switch::new(Mode::Shadow), Switch::new(Mode::Shadow));
        let echo = service_fn(move |request: Request| async move {
            assert_eq!(request.headers()["grpc-timeout"], asked);
            Ok::<_, Status>(Response::new(Body::empty()))
        });
        let stack = tower::ServiceBuilder::new()
            .layer(CallDeadlineSettings::new().with_switch(call.clone()).layer())
            .layer(AttemptTimeoutSettings::new(ms(10)).with_switch(attempt.clone()).layer())
            .service(echo);
        stack.oneshot(with_timeout(asked)).await.unwrap();
        assert_eq!((call.shadowed(), attempt.shadowed()), (1, 1), "{asked}");
    }
}

mod announced;
mod kinds;

mod server {
    use super::*;
    use cinchona_core::ServerContext;

    fn served(
        layer: ServerDeadlineLayer,
        took: Duration,
    ) -> impl Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone {
        layer
            .layer(service_fn(move |_: Request| async move {
                tokio::time::sleep(took).await;
                let trailers = HeaderMap::from_iter([(Status::GRPC_STATUS, "0".parse().unwrap())]);
                let answer = Full::new(Bytes::new()).with_trailers(async { Some(Ok(trailers)) });
                Ok(Response::new(Body::new(answer)))
            }))
            .map_response(|response: http::Response<ResponseBody>| response.map(Body::new))
    }

    async fn ask(
        service: impl Service<Request, Response = Response, Error = Infallible>,
        timeout: &str,
    ) -> (Option<Code>, Duration) {
        let began = Instant::now();
        let request = if timeout.is_empty() { request() } else { with_timeout(timeout) };
        let response = service.oneshot(request).await.unwrap();
        let code = cinchona_plumbing::status::code(response.headers());
        response.into_body().collect().await.unwrap();
        (code, Instant::now() - began)
    }

    #[tokio::test(start_paused = true)]
    async fn work_is_dropped_at_the_callers_deadline() {
        let service = served(ServerDeadlineLayer::new(), ms(1000));
        let (code, took) = ask(service.clone(), "100m").await;
        assert!(code == Some(Code::DeadlineExceeded) && took <= ms(100), "{took:?}");
        assert_eq!(ask(service.clone(), "2S").await, (None, ms(1000)));
        assert_eq!(ask(service, "").await, (None, ms(1000)));
    }

    #[tokio::test(start_paused = true)]
    async fn work_is_not_begun_after_its_deadline_or_for_a_malformed_one() {
        let service = served(ServerDeadlineLayer::new(), ms(1000));
        for (timeout, code) in [("0m", Code::DeadlineExceeded), ("soon", Code::Internal)] {
            assert_eq!(ask(service.clone(), timeout).await, (Some(code), ms(0)));
        }
        let limited = served(ServerDeadlineSettings::new().with_limit(ms(50)).layer(), ms(1000));
        assert!(ask(limited, "").await.1 <= ms(50));
    }

    #[tokio::test(start_paused = true)]
    async fn hopeless_calls_are_counted_by_default_and_refused_if_configured() {
        let switch = Switch::new(Mode::Shadow);
        let layer = ServerDeadlineSettings::new().with_hopeless(switch.clone()).layer();
        let service = served(layer, ms(200));
        for _ in 0..100 {
            assert_eq!(ask(service.clone(), "1S").await.0, None);
        }
        assert!(ask(service.clone(), "100m").await.1 > ms(90));
        assert_eq!(switch.shadowed(), 1);
        switch.set(Mode::Enforce);
        assert_eq!(ask(service.clone(), "100m").await, (Some(Code::DeadlineExceeded), ms(0)));
        assert_eq!(ask(service, "1S").await.0, None);
    }

    /// The latency of most calls is that of another.
    #[tokio::test(start_paused = true)]
    async fn each_hopeless_call_is_counted_also_when_few_are_timed() {
        let switch = Switch::new(Mode::Shadow);
        let layer = ServerDeadlineSettings::new().with_hopeless(switch.clone()).layer();
        let service = served(layer, ms(200));
        for _ in 0..2000 {
            assert_eq!(ask(service.clone(), "1S").await.0, None);
        }
        for hopeless in 1..=50 {
            assert!(ask(service.clone(), "100m").await.1 > ms(90));
            assert_eq!(switch.shadowed(), hopeless);
            assert_eq!(ask(service.clone(), "300m").await.0, None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_at_the_deadline_with_that_status_in_its_trailers() {
        let streaming = service_fn(|_: Request| async {
            let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
            sender.send_data("first".into()).await.unwrap();
            std::mem::forget(sender);
            Ok::<_, Infallible>(Response::new(Body::new(body)))
        });
        let service = ServerDeadlineLayer::new().layer(streaming);
        let mut body = service.oneshot(with_timeout("100m")).await.unwrap().into_body();
        assert!(body.frame().await.unwrap().unwrap().is_data());
        let last = body.frame().await.unwrap().unwrap();
        assert_eq!(last.trailers_ref().unwrap()["grpc-status"], "4");
        assert!(body.frame().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn in_shadow_each_call_that_would_end_is_counted_and_its_handler_finds_no_deadline() {
        let handler = service_fn(|request: Request| async move {
            let known = ServerContext::find(&request).and_then(|found| found.deadline);
            assert!(known.is_none() && ServerContext::current().is_none());
            tokio::time::sleep(ms(30)).await;
            let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
            tokio::spawn(async move {
                for _ in 0..2 {
                    tokio::time::sleep(ms(30)).await;
                    sender.send_data("frame".into()).await.unwrap();
                }
            });
            Ok::<_, Infallible>(Response::new(Body::new(body)))
        });
        let switch = Switch::new(Mode::Shadow);
        let settings = ServerDeadlineSettings::new().with_switch(switch.clone());
        let layers = [settings.layer(), settings.with_limit(ms(50)).layer()];
        for (limited, timeout, counted) in [
            (false, "soon", 1),
            (false, "1n", 1),
            (false, "20m", 1),
            (false, "70m", 1),
            (false, "1S", 0),
            (true, "1S", 1),
        ] {
            let before = (Instant::now(), switch.shadowed());
            let service = layers[usize::from(limited)].layer(handler);
            let response = service.oneshot(with_timeout(timeout)).await.unwrap();
            let read = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!((&*read, Instant::now() - before.0), (&b"frameframe"[..], ms(90)));
            assert_eq!(switch.shadowed() - before.1, counted, "{timeout}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_handler_finds_the_deadline_and_the_number_of_the_attempt() {
        let service = service_fn(|request: Request| async move {
            let inbound = ServerContext::current().unwrap();
            let deadline = ServerContext::find(&request).and_then(|found| found.deadline);
            assert_eq!((inbound.deadline, inbound.previous_attempts), (deadline, 2));
            assert_eq!(deadline.unwrap().remaining(Instant::now()), ms(100));
            Ok::<_, Infallible>(Response::new(Body::empty()))
        });
        let mut request = with_timeout("100m");
        request.headers_mut().insert("grpc-previous-rpc-attempts", "2".parse().unwrap());
        ServerDeadlineLayer::new().layer(service).oneshot(request).await.unwrap();
        assert!(ServerContext::current().is_none());
    }
}

/// Polls the service below once, and then only holds it.
async fn parked(future: impl Future + Send + 'static) -> Result<Response, BoxError> {
    let mut future = Box::pin(future);
    std::future::poll_fn(|cx| {
        _ = future.as_mut().poll(cx);
        std::task::Poll::Ready(())
    })
    .await;
    std::future::pending().await
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_at_its_deadline_though_the_attempt_with_the_timer_is_not_polled() {
    for (limit, spawns) in [(ms(10), false), (ms(60), false), (ms(10), true), (ms(60), true)] {
        let hang = service_fn(|_: Request| std::future::pending::<Result<Response, Infallible>>());
        let attempt = AttemptTimeoutLayer::new(limit).layer(hang);
        let between = service_fn(move |request: Request| {
            let attempt = attempt.clone();
            async move {
                let sent = async move { parked(attempt.oneshot(request)).await };
                if spawns { tokio::spawn(sent).await.unwrap() } else { sent.await }
            }
        });
        let began = Instant::now();
        let call = CallDeadlineSettings::new().with_limit(ms(50)).layer().layer(between);
        let error = call.oneshot(Request::new(Body::empty())).await.unwrap_err();
        assert!(find_cause::<Elapsed>(&*error).is_some(), "{error}");
        assert_eq!(Instant::now() - began, ms(50), "{limit:?} {spawns}");
    }
}
