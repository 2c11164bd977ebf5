//! The evidence about an endpoint.

use super::*;
use cinchona_core::Deadline;
use http::StatusCode;

fn page(status: u16, text: &'static str) -> Answer {
    Answer::Http(StatusCode::from_u16(status).unwrap(), "text/html", text.into())
}

fn after(millis: u32, answer: Answer) -> Answer {
    Answer::After(millis * MS, Box::new(answer))
}

fn ejecting(picker: Picker) -> Options {
    let outlier = OutlierDetection {
        consecutive_failures: Some(5),
        max_ejection_percent: 100,
        ..OutlierDetection::default()
    };
    Options { outlier, panic_threshold: 0, ..by(picker) }
}

fn ejected(balance: &Balance) -> usize {
    balance.states().iter().filter(|state| state.ejected.is_some()).count()
}

// catalogue: S-A3
#[tokio::test(start_paused = true)]
async fn a_proxy_that_answers_immediately_for_a_server_does_not_attract_calls() {
    for answer in [
        page(200, "<html>"),
        page(200, ""),
        page(404, "<html>"),
        page(302, ""),
        Answer::Ok("<html>".into()),
        Answer::Ok("\0\0\0\0\x09abc".into()),
        // Trailers-only without a status, and a stream that ends without trailers.
        Answer::Raw(http::HeaderMap::new()),
    ] {
        let slow = || after(20, ok());
        let world = World::new([answer.clone(), slow(), slow()]);
        let balance = world.balance(by(Picker::PeakEwma));
        sleep(SECOND).await;
        for _ in 0..200 {
            call(&balance).await;
        }
        let attempts = world.attempts();
        assert!(attempts[0] <= 10, "{answer:?}: {attempts:?}");

        let world = World::new([answer.clone(), slow(), slow()]);
        let balance = world.balance(ejecting(Picker::RoundRobin));
        sleep(SECOND).await;
        calls(&balance, 60).await;
        assert_eq!(ejected(&balance), 1, "{answer:?}");
        assert_eq!(world.attempts()[0], 5, "{answer:?}");
    }
}

// catalogue: S-A4
#[tokio::test(start_paused = true)]
async fn an_answer_about_the_request_ejects_no_endpoint() {
    let refusals = [
        Code::NotFound,
        Code::AlreadyExists,
        Code::InvalidArgument,
        Code::FailedPrecondition,
        Code::PermissionDenied,
        Code::Unauthenticated,
        Code::OutOfRange,
        Code::Aborted,
        Code::Unimplemented,
        Code::ResourceExhausted,
        Code::Cancelled,
    ];
    let bodies = refusals.map(|code| Answer::HeadersThenStatus(Status::new(code, "")));
    let heads = refusals.map(|code| Answer::Status(Status::new(code, "")));
    for answer in heads.into_iter().chain(bodies).chain([page(401, ""), page(403, "")]) {
        let world = World::new(vec![answer.clone(); 3]);
        let balance = world.balance(ejecting(Picker::RoundRobin));
        calls(&balance, 60).await;
        assert_eq!(ejected(&balance), 0, "{answer:?}");
    }
}

// catalogue: S-A5
#[tokio::test(start_paused = true)]
async fn short_deadlines_eject_no_endpoint_and_a_server_that_hangs_is_ejected() {
    let late = after(5, ok());
    for (answer, timeout_ms, call_ms, expected) in [
        (late.clone(), 1, None, 0),
        (late.clone(), 1, Some(1), 0),
        (late, 1, Some(1000), 2),
        (Answer::Hang, 200, None, 2),
        (Answer::Hang, 200, Some(200), 2),
        (Answer::HeadersThenHang, 200, Some(1000), 2),
        // A quiet stream, perhaps.
        (Answer::HeadersThenHang, 200, None, 0),
    ] {
        let world = World::new(vec![answer.clone(); 2]);
        let balance = world.balance(ejecting(Picker::RoundRobin));
        sleep(SECOND).await;
        for _ in 0..15 {
            let mut request = request();
            let header = format!("{timeout_ms}m").parse().unwrap();
            request.headers_mut().insert("grpc-timeout", header);
            if let Some(call_ms) = call_ms {
                let deadline = Deadline(Instant::now() + call_ms * MS);
                request.extensions_mut().insert(deadline);
            }
            _ = timeout(timeout_ms * MS, send(&balance, request)).await;
        }
        assert_eq!(ejected(&balance), expected, "{answer:?} {timeout_ms} ms {call_ms:?}");
    }
}

// catalogue: S-A5
#[tokio::test(start_paused = true)]
async fn a_stream_that_has_sent_a_message_may_be_cut_by_its_deadline() {
    let message = encode(&1_u32);
    let stream = Answer::MessageThenHang(message);
    let world = World::new(vec![stream; 2]);
    let balance = world.balance(ejecting(Picker::RoundRobin));
    for _ in 0..20 {
        let mut request = request();
        request.headers_mut().insert("grpc-timeout", "1S".parse().unwrap());
        _ = timeout(SECOND, send(&balance, request)).await;
    }
    assert_eq!(ejected(&balance), 0);
}

// catalogue: S-F1
#[tokio::test(start_paused = true)]
async fn an_error_of_this_client_ejects_no_endpoint() {
    let world = World::of(2);
    let balance = world.balance(ejecting(Picker::RoundRobin));
    for _ in 0..20 {
        let failing = [Err::<http_body::Frame<bytes::Bytes>, _>(Status::out_of_range("large"))];
        let body = Body::new(http_body_util::StreamBody::new(tokio_stream::iter(failing)));
        assert_eq!(send(&balance, request().map(|_| body)).await, Code::Internal);
    }
    let states = balance.states();
    assert_eq!((ejected(&balance), states[0].failures + states[1].failures), (0, 0));
}

// catalogue: S-A7
#[tokio::test(start_paused = true)]
async fn a_call_that_has_used_all_endpoints_is_picked_for_like_a_new_one() {
    for (endpoints, expected) in [(2, [3, 2, 0]), (3, [2, 2, 1])] {
        let world = World::of(endpoints);
        let balance = world.balance(by(Picker::RoundRobin));
        sleep(SECOND).await;
        let call = record();
        for _ in 0..5 {
            assert_eq!(send(&balance, of_call(&call)).await, Code::Ok);
        }
        let mut attempts = world.attempts();
        attempts.resize(3, 0);
        attempts.sort_by(|a, b| b.cmp(a));
        assert_eq!(attempts, expected);
    }
    // Twelve calls of five attempts each over three endpoints: each gets its share.
    let world = World::of(3);
    let balance = world.balance(by(Picker::RoundRobin));
    sleep(SECOND).await;
    for _ in 0..12 {
        let call = record();
        for _ in 0..5 {
            send(&balance, of_call(&call)).await;
        }
    }
    let attempts = world.attempts();
    assert!(attempts.iter().all(|count| (17..=23).contains(count)), "{attempts:?}");
}

// catalogue: S-A8
#[tokio::test(start_paused = true)]
async fn a_call_that_has_waited_for_an_endpoint_sends_its_remaining_time() {
    let world = World::of(1);
    world.networks[0].refuse(true);
    let balance = world.balance(Options { patience: 10 * SECOND, ..by(Picker::RoundRobin) });
    let network = world.networks[0].clone();
    tokio::spawn(async move {
        sleep(1100 * MS).await;
        network.refuse(false);
    });
    let began = Instant::now();
    let mut request = request();
    request.headers_mut().insert("grpc-timeout", "5S".parse().unwrap());
    assert_eq!(send(&balance, request).await, Code::Ok);
    let received = &world.servers[0].received()[0];
    let timeout = cinchona_core::Deadline::parse_timeout(&received.headers).unwrap().unwrap();
    let left = 5 * SECOND - (received.at - began);
    assert!(
        left < 4 * SECOND && timeout <= left && timeout >= left - MS,
        "{timeout:?} of {left:?}"
    );
}

// catalogue: S-A13
#[tokio::test(start_paused = true)]
async fn a_status_within_the_limit_is_passed_on_and_a_longer_ones_error_names_it() {
    let long = |bytes: usize| Answer::Status(Status::unavailable("x".repeat(bytes)));
    let world = World::new([long(20_000)]);
    let balance = world.balance(by(Picker::RoundRobin));
    let response = timeout(SECOND, balance.clone().oneshot(request())).await.unwrap().unwrap();
    let status = cinchona_plumbing::status::of_head(&response);
    assert_eq!((status.code(), status.message().len()), (Code::Unavailable, 20_000));

    let world = World::new([long(20_000)]);
    let small = Options { max_header_list_size: 16 * 1024, ..by(Picker::RoundRobin) };
    let balance = world.balance(small);
    let error = timeout(SECOND, balance.oneshot(request())).await.unwrap().unwrap_err();
    let status = cinchona_core::Verdict::status_of(error);
    assert!(status.message().contains("max_header_list_size"), "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_is_sent_though_the_balancer_was_dropped() {
    let world = World::of(1);
    let balance = world.balance(by(Picker::RoundRobin));
    let response = timeout(SECOND, balance.oneshot(request())).await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}
