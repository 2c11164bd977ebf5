//! What is retried, how often, and after how long.

use super::*;

// catalogue: CC01, JS-retry-few-attempts, GO03
#[tokio::test(start_paused = true)]
async fn a_listed_failure_is_retried_and_the_attempt_carries_its_number() {
    let (client, outcome) =
        play(layer(retry(3, [Code::Aborted])), [failing(Code::Aborted), ok()]).await;
    assert_eq!(outcome.unwrap().into_inner(), message(7));
    assert_eq!(client.previous(), [None, Some(1)]);
}

// catalogue: GO01, JS-retry-basic, JS-retry-fatal-code
#[tokio::test(start_paused = true)]
async fn seven_calls_in_a_row_follow_their_scripts() {
    let (listed, unlisted) = (|| unavailable(), || failing(Code::Internal));
    for (script, attempts, expected) in [
        (vec![ok()], 1, Code::Ok),
        (vec![listed(), ok()], 2, Code::Ok),
        (vec![listed(), listed(), ok()], 3, Code::Ok),
        (vec![unlisted()], 1, Code::Internal),
        (vec![listed(), unlisted()], 2, Code::Internal),
        (vec![listed(), listed(), unlisted()], 3, Code::Internal),
        (vec![listed(), listed(), listed(), failing(Code::AlreadyExists)], 4, Code::AlreadyExists),
    ] {
        let (client, outcome) = play(retrying(4), script).await;
        assert_eq!((client.server.attempts(), code(&outcome)), (attempts, expected));
    }
}

// catalogue: CC15, CC16, JS-retry-unknown-code
#[tokio::test(start_paused = true)]
async fn a_code_that_is_not_listed_ends_the_call() {
    for bad in [Code::InvalidArgument, Code::Unknown, Code::DataLoss] {
        let (client, outcome) = play(layer(retry(4, [Code::Aborted])), [failing(bad), ok()]).await;
        assert_eq!((client.server.attempts(), code(&outcome)), (1, bad));
        assert_eq!(ledger(&outcome).stopped(), Stop::NotRetryable);
    }
    let mut headers = HeaderMap::new();
    headers.insert("grpc-status", "99".parse().unwrap());
    let (client, _) = play(layer(retry(4, [Code::Aborted])), [Answer::Raw(headers), ok()]).await;
    assert_eq!(client.server.attempts(), 1);
}

// catalogue: CC32, JS-retry-many-fail, GO05, JV-maxRetryAttempts
#[tokio::test(start_paused = true)]
async fn the_last_failure_is_the_calls_once_attempts_are_exhausted() {
    let last = Answer::Status(Status::unavailable("the last one"));
    let (client, outcome) = play(retrying(2), [unavailable(), last, ok()]).await;
    assert_eq!((client.server.attempts(), code(&outcome)), (2, Code::Unavailable));
    assert_eq!(outcome.as_ref().unwrap_err().message(), "the last one");
    assert_eq!(ledger(&outcome).stopped(), Stop::Exhausted);
}

// catalogue: JV-expBackoff, X-first-backoff-capped, D13, CU-retry-state
#[tokio::test(start_paused = true)]
async fn waits_grow_to_their_cap_which_holds_for_the_first_as_well() {
    let (client, _) = play(retrying(6), [unavailable()]).await;
    assert_eq!(client.gaps(), [100, 200, 400, 700, 700]);
    let capped = Backoff::new(ms(1000), 2.0, ms(100)).unwrap().with_jitter(Jitter::None);
    let policy = retry(3, [Code::Unavailable]).with_backoff(capped);
    assert_eq!(play(layer(policy), [unavailable()]).await.0.gaps(), [100, 100]);
}

// catalogue: D02, X-jitter-rounding-to-zero
#[tokio::test(start_paused = true)]
async fn a_wait_that_rounds_to_zero_is_no_wait() {
    let tiny = Backoff::new(Duration::from_nanos(3), 1.0, ms(1)).unwrap().with_jitter(Jitter::Grpc);
    let policy = retry(4, [Code::Unavailable]).with_backoff(tiny);
    let calls = async {
        for _ in 0..50 {
            play(layer(policy), [unavailable()]).await.1.unwrap_err();
        }
    };
    tokio::time::timeout(ms(1000), calls).await.expect("no call hangs");
}

// catalogue: CC09, GO21, JS-retry-disabled, JS-retry-not-configured, CU-retry-state
#[tokio::test(start_paused = true)]
async fn without_a_policy_there_is_one_attempt() {
    for policy in [Policy::default(), retry(1, [Code::Unavailable]).into()] {
        let (client, outcome) = play(layer(policy), [unavailable(), ok()]).await;
        assert_eq!((client.server.attempts(), code(&outcome)), (1, Code::Unavailable));
    }
}

// catalogue: CC14
#[tokio::test(start_paused = true)]
async fn a_connection_that_cannot_be_made_is_retried_by_the_policy() {
    let mut client = Client::new(&retrying(4), [ok()]);
    client.network.refuse(true);
    let began = Instant::now();
    let outcome = client.call().await;
    assert_eq!((code(&outcome), client.server.attempts()), (Code::Unavailable, 0));
    assert_eq!((client.network.connects(), Instant::now() - began), (4, ms(700)));
}

// catalogue: CC23, X-metadata-on-every-attempt, JV-everythingDrained
#[tokio::test(start_paused = true)]
async fn every_attempt_carries_the_applications_metadata_but_not_its_reserved_header() {
    let mut client = Client::new(&retrying(3), [unavailable(), unavailable(), ok()]);
    let mut request = Request::new(message(3));
    request.metadata_mut().append("k", "v".parse().unwrap());
    request.metadata_mut().append("k", "w".parse().unwrap());
    request
        .metadata_mut()
        .insert_bin("b-bin", tonic::metadata::MetadataValue::from_bytes(&[0, 255]));
    request.metadata_mut().insert("grpc-previous-rpc-attempts", "41".parse().unwrap());
    client.send(request).await.unwrap();
    assert_eq!(client.previous(), [None, Some(1), Some(2)]);
    for received in client.server.received() {
        let values: Vec<_> = received.headers.get_all("k").iter().map(|v| v.as_bytes()).collect();
        assert_eq!((values, received.message()), (vec![&b"v"[..], b"w"], Some(message(3))));
        assert_eq!(received.headers["b-bin"], "AP8");
    }
}

// catalogue: X-server-deadline-exceeded-is-retried
#[tokio::test(start_paused = true)]
async fn deadline_exceeded_from_the_server_is_a_code_like_any_other() {
    let policy = retry(2, [Code::DeadlineExceeded]);
    let (client, outcome) = play(layer(policy), [failing(Code::DeadlineExceeded), ok()]).await;
    assert_eq!((client.server.attempts(), code(&outcome)), (2, Code::Ok));
}

// catalogue: X-per-method-policies
#[tokio::test(start_paused = true)]
async fn each_method_has_its_own_policy() {
    let mut policies = cinchona_core::PerMethod::new();
    policies.insert("a.B", "C", retry(3, [Code::Unavailable]).into()).unwrap();
    let layer = retrying_settings(2).with_policies(policies).unwrap().layer();
    let (client, _) = play(layer.clone(), [unavailable()]).await;
    assert_eq!(client.server.attempts(), 3);
    let server = ScriptedServer::new([unavailable()]);
    let other = http::Request::builder().uri("/a.B/D").body(tonic::body::Body::empty()).unwrap();
    tower::ServiceExt::oneshot(layer.layer(server.clone()), other).await.unwrap_err();
    assert_eq!(server.attempts(), 1);
}

// catalogue: X-hot-swap
#[tokio::test(start_paused = true)]
async fn policies_are_replaced_while_a_call_goes_on_by_its_own() {
    let layer = retrying(4);
    let mut client = Client::new(&layer, [unavailable()]);
    let swap = async {
        tokio::time::sleep(ms(150)).await;
        layer.set_policies(Policy::default().into()).unwrap();
    };
    tokio::join!(client.call(), swap).0.unwrap_err();
    assert_eq!(client.server.attempts(), 4);
    client.call().await.unwrap_err();
    assert_eq!(client.server.attempts(), 5);
}

// catalogue: X-chain-stop
#[tokio::test(start_paused = true)]
async fn a_handler_that_serves_a_retry_does_not_retry() {
    let inbound = |previous_attempts| cinchona_core::ServerContext::new(None, previous_attempts);
    for (previous, attempts) in [(0, 4), (1, 1)] {
        let (client, outcome) = inbound(previous).scope(play(retrying(4), [unavailable()])).await;
        assert_eq!(client.server.attempts(), attempts);
        let stop = if attempts == 1 { Stop::Chained } else { Stop::Exhausted };
        assert_eq!(ledger(&outcome).stopped(), stop);
    }
    let stubborn = retrying_settings(4).with_retries_of_retries().layer();
    let (client, _) = inbound(1).scope(play(stubborn, [unavailable()])).await;
    assert_eq!(client.server.attempts(), 4);
}

// catalogue: X-budget
#[tokio::test(start_paused = true)]
async fn an_outage_is_answered_with_a_tenth_more_attempts_at_most() {
    // The backoffs take minutes, and bring tokens.
    let budget = Budget::default().with_per_second(0.0).unwrap();
    let layer = retrying_settings(4).with_budget(Some(budget)).layer();
    let mut client = Client::new(&layer, [unavailable()]);
    let mut stops = Vec::new();
    for _ in 0..1000 {
        stops.push(ledger(&client.call().await).stopped());
    }
    assert!(client.server.attempts() <= 1100, "{}", client.server.attempts());
    assert_eq!((stops[0], stops[999]), (Stop::Exhausted, Stop::Budget));
}
