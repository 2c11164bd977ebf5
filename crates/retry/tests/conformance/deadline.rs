//! The call's deadline, across its attempts.

use super::*;

fn within(limit: Duration) -> Request<Message> {
    let mut request = Request::new(message(3));
    request.set_timeout(limit);
    request
}

// catalogue: CC04, D19, DN-Deadline-DuringBackoff, X-no-sleep-for-nothing
#[tokio::test(start_paused = true)]
async fn a_backoff_that_outlasts_the_deadline_is_not_begun() {
    let mut client = Client::new(&retrying(4), [unavailable()]);
    let began = Instant::now();
    let outcome = client.send(within(ms(90))).await;
    assert_eq!((code(&outcome), Instant::now()), (Code::Unavailable, began));
    assert_eq!((client.server.attempts(), ledger(&outcome).stopped()), (1, Stop::Deadline));
    assert_eq!(
        client.send(within(ms(350))).await.map(drop).map_err(|s| s.code()),
        Err(Code::Unavailable)
    );
    assert_eq!(client.gaps()[1..], [100, 200]);
}

// catalogue: CC08, CC06, DN-Deadline-ExceedAfterServerCall
#[tokio::test(start_paused = true)]
async fn an_attempt_in_flight_is_ended_and_reset_at_the_deadline() {
    let mut client = Client::new(&retrying(4), [unavailable(), Answer::Hang]);
    let began = Instant::now();
    let outcome = client.send(within(ms(500))).await;
    assert_eq!(code(&outcome), Code::DeadlineExceeded);
    assert!(Instant::now() - began <= ms(501));
    settle().await;
    assert_eq!((client.server.attempts(), client.server.dropped()), (2, 1));
}

// catalogue: X-remaining-time-per-attempt, D04, JS-deadline
#[tokio::test(start_paused = true)]
async fn each_attempt_is_sent_with_its_remaining_time() {
    let slow = || Answer::After(ms(100), Box::new(unavailable()));
    let mut client = Client::new(&retrying(3), [slow(), slow(), ok()]);
    client.send(within(ms(1000))).await.unwrap();
    let left = |received: &cinchona_testkit::Received| {
        cinchona_core::Deadline::parse_timeout(&received.headers).unwrap().unwrap().as_millis()
    };
    let left: Vec<u128> = client.server.received().iter().map(left).collect();
    // Timers have the resolution of a millisecond.
    for (left, expected) in left.into_iter().zip([1000, 800, 500]) {
        assert!(left <= expected && left + 2 >= expected, "{left} of {expected}");
    }
}

// catalogue: CC17, CC18
#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_silent_is_ended_by_its_own_limit_and_retried() {
    let stack = |policy: RetryPolicy| {
        tower::ServiceBuilder::new()
            .layer(layer(policy))
            .layer(cinchona_deadline::AttemptTimeoutLayer::new(ms(300)))
    };
    let policy = retry(3, [Code::Aborted, Code::DeadlineExceeded]);
    for (script, expected) in [
        (vec![Answer::Hang, failing(Code::Aborted), ok()], Code::Ok),
        (vec![Answer::Hang], Code::DeadlineExceeded),
    ] {
        let (server, network) = (ScriptedServer::new(script), Network::new());
        let _serving = network.serve_service(server.clone());
        let mut grpc = Grpc::new(stack(policy).service(network.channel()));
        let outcome = unary(&mut grpc, Request::new(message(3))).await;
        assert_eq!((code(&outcome), server.attempts()), (expected, 3));
    }
}

// catalogue: X-local-deadline-is-never-retried, JV-serverCancelledAndClientDeadlineExceeded
#[tokio::test(start_paused = true)]
async fn the_end_of_the_call_is_never_retried_even_where_its_code_is_listed() {
    let layer = layer(retry(4, [Code::DeadlineExceeded, Code::Cancelled]));
    for last in [Code::DeadlineExceeded, Code::Cancelled] {
        let late = Answer::After(ms(200), Box::new(failing(last)));
        let mut client = Client::new(&layer, [late, ok()]);
        let outcome = client.send(within(ms(200))).await;
        assert_eq!((client.server.attempts(), code(&outcome)), (1, Code::DeadlineExceeded));
    }
}

// catalogue: GO26, GO27, JS-server-deadlines
#[tokio::test(start_paused = true)]
async fn a_timeout_that_has_passed_or_is_malformed_is_not_sent() {
    let server = ScriptedServer::new([ok()]);
    for (timeout, expected) in [("0S", Code::DeadlineExceeded), ("soon", Code::InvalidArgument)] {
        let stack = tower::ServiceBuilder::new()
            .layer(cinchona_deadline::CallDeadlineLayer::new())
            .layer(retrying(4))
            .service(server.clone());
        let request = http::Request::builder().uri("/a.B/C").header("grpc-timeout", timeout);
        let request = request.body(tonic::body::Body::empty()).unwrap();
        let error = tower::ServiceExt::oneshot(stack, request).await.unwrap_err();
        assert_eq!(Status::from_error(error).code(), expected);
    }
    assert_eq!(server.attempts(), 0);
}

// catalogue: S-A8
#[tokio::test(start_paused = true)]
async fn an_attempt_that_has_waited_for_the_service_below_sends_its_remaining_time() {
    let layers =
        [layer(retry(4, [Code::Unavailable])), layer(hedge(2, ms(100), [Code::Unavailable]))];
    for layer in layers {
        let network = Network::new();
        let slow = |answer| Answer::After(ms(1000), Box::new(answer));
        let server = ScriptedServer::new([slow(unavailable()), slow(ok()), ok()]);
        let _serving = network.serve_service(server.clone());
        // One at a time: each waits for the one before.
        let channel = tower::limit::ConcurrencyLimit::new(network.channel(), 1);
        let mut grpc = Grpc::new(layer.layer(channel));
        let mut request = Request::new(message(3));
        request.set_timeout(Duration::from_secs(5));
        let began = Instant::now();
        assert_eq!(code(&unary(&mut grpc, request).await), Code::Ok);
        for received in server.received() {
            let timeout =
                cinchona_core::Deadline::parse_timeout(&received.headers).unwrap().unwrap();
            let left = Duration::from_secs(5) - (received.at - began);
            assert!(timeout <= left && timeout + ms(2) >= left, "{timeout:?} of {left:?}");
        }
    }
}

// catalogue: JV-serverCancelledAndClientDeadlineExceeded
#[tokio::test(start_paused = true)]
async fn a_hedge_is_not_waited_for_where_the_server_asks_for_more_time_than_there_is() {
    let mut client = Client::new(
        &layer(hedge(2, ms(500), [Code::Unavailable])),
        [pushing_back(Code::Unavailable, &["60000"])],
    );
    let mut request = Request::new(message(3));
    request.set_timeout(Duration::from_secs(5));
    let began = Instant::now();
    let outcome = client.send(request).await;
    assert_eq!((code(&outcome), ledger(&outcome).stopped()), (Code::Unavailable, Stop::Deadline));
    assert!(Instant::now() - began < ms(10));
}
