//! What is retried, when, and why not.

use super::*;
use cinchona_core::{Deadline, Rng};
use std::sync::atomic::{AtomicBool, Ordering};

#[tokio::test(start_paused = true)]
async fn the_default_waits_are_1_2_and_4_seconds_plus_up_to_1_each() {
    for seed in 0..50 {
        let layer = settings(RetryPolicy::default()).with_rng(Rng::seeded(seed)).layer();
        let (server, outcome) = play(layer, [failing(Code::DeadlineExceeded)], request()).await;
        let (code, ledger) = outcome.unwrap_err();
        assert_eq!((code, ledger.stopped()), (Code::DeadlineExceeded, Stop::Exhausted));
        let gaps = gaps(&server);
        assert_eq!(gaps.len(), 3);
        for (least, gap) in [1, 2, 4].into_iter().zip(gaps) {
            assert!(least * SECOND <= gap && gap < (least + 1) * SECOND, "{least}: {gap:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn unavailable_is_retried_once_it_is_named() {
    for (policy, attempts, stop) in [
        (RetryPolicy::default(), 1, Stop::NotRetryable),
        (on([Code::Unavailable]), 4, Stop::Exhausted),
        (on([Code::Unavailable]).with_max_retries(0), 1, Stop::Exhausted),
        (on([Code::Unavailable]).with_max_retries(1), 2, Stop::Exhausted),
    ] {
        let (server, outcome) = play(layer(policy), [failing(Code::Unavailable)], request()).await;
        assert_eq!((server.attempts(), outcome.unwrap_err().1.stopped()), (attempts, stop));
    }
}

#[tokio::test(start_paused = true)]
async fn codes_that_cannot_become_ok_are_refused_unless_forced() {
    for code in [
        Code::InvalidArgument,
        Code::NotFound,
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::FailedPrecondition,
        Code::OutOfRange,
        Code::Unimplemented,
        Code::DataLoss,
        Code::Unauthenticated,
    ] {
        let refused = RetryPolicy::default().with_codes([Code::Unavailable, code]).unwrap_err();
        assert!(refused.to_string().contains(cinchona_plumbing::code::name(code)), "{refused}");
        let forced = RetryPolicy::default().with_forced_codes([code]);
        for (policy, attempts) in [(RetryPolicy::default(), 1), (forced, 4)] {
            assert_eq!(
                play(layer(policy), [failing(code)], request()).await.0.attempts(),
                attempts
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_wait_is_begun_that_would_outlast_the_deadline() {
    let began = Instant::now();
    let mut request = request();
    request.extensions_mut().insert(Deadline(began + SECOND / 2));
    let script = [failing(Code::DeadlineExceeded)];
    let (server, outcome) = play(layer(RetryPolicy::default()), script, request).await;
    assert_eq!(outcome.unwrap_err().1.stopped(), Stop::Deadline);
    assert_eq!((server.attempts(), Instant::now()), (1, began));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_in_flight_ends_at_the_deadline_with_its_ledger() {
    let began = Instant::now();
    let policy = on([Code::Unavailable]);
    let script = [failing(Code::Unavailable), Answer::Hang];
    let (server, outcome) = play(layer(policy), script, with_header("grpc-timeout", "5S")).await;
    let (code, ledger) = outcome.unwrap_err();
    assert_eq!((code, ledger.stopped()), (Code::DeadlineExceeded, Stop::Deadline));
    assert_eq!((Instant::now() - began, server.dropped()), (5 * SECOND, 1));
    let [first, second] = ledger.attempts() else { panic!("{ledger}") };
    // Timers have the resolution of a millisecond.
    let accounted = first.wait + second.duration;
    assert!(5 * SECOND - accounted < Duration::from_millis(1), "{accounted:?}");
}

#[tokio::test(start_paused = true)]
async fn a_possibly_executed_request_is_repeated_only_if_that_is_harmless() {
    let lost = || [failing(Code::Unavailable), ok()];
    let unknown = || {
        let policy = on([Code::Unavailable]);
        RetrySettings::new(policy, Methods::unknown()).with_rng(Rng::seeded(1)).layer()
    };
    let (server, outcome) = play(unknown(), lost(), request()).await;
    assert_eq!(outcome.unwrap_err().1.stopped(), Stop::NotIdempotent);
    assert_eq!(server.attempts(), 1);
    let keyed = with_header("idempotency-key", "k");
    assert_eq!(play(unknown(), lost(), keyed).await.0.attempts(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_provably_unprocessed_request_is_repeated_for_any_method() {
    let connected = Arc::new(AtomicBool::new(false));
    let server = tower::service_fn(move |_: Request| {
        let up = connected.swap(true, Ordering::Relaxed);
        let refused = || std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        std::future::ready(if up {
            Ok(Status::ok("").into_http::<Body>())
        } else {
            Err(tonic::ConnectError(refused().into()))
        })
    });
    let client = RetryLayer::new(on([Code::Unavailable]), Methods::unknown()).layer(server);
    let response = client.oneshot(request()).await.unwrap();
    assert_eq!(response.extensions().get::<Ledger>().unwrap().attempts().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_success_carries_a_ledger_only_if_it_was_retried() {
    let retried = [failing(Code::Unavailable), failing(Code::Unavailable), ok()];
    let (_, outcome) = play(layer(on([Code::Unavailable])), retried, request()).await;
    let response = outcome.unwrap();
    let ledger = response.extensions().get::<Ledger>().unwrap();
    let codes: Vec<Code> = ledger.attempts().iter().map(|a| a.verdict.code()).collect();
    assert_eq!(codes, [Code::Unavailable, Code::Unavailable, Code::Ok]);
    assert_eq!(ledger.stopped(), Stop::Succeeded);
    let (_, outcome) = play(layer(on([Code::Unavailable])), [ok()], request()).await;
    assert!(outcome.unwrap().extensions().get::<Ledger>().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_malformed_timeout_is_an_invalid_argument_and_is_not_sent() {
    let server = ScriptedServer::new([ok()]);
    let client = layer(RetryPolicy::default()).layer(server.clone());
    let error = client.oneshot(with_header("grpc-timeout", "soon")).await.unwrap_err();
    let status = Status::from_error(error);
    assert_eq!((status.code(), server.attempts()), (Code::InvalidArgument, 0));
}

#[tokio::test(start_paused = true)]
async fn each_retry_is_logged_once() {
    let logs = cinchona_testkit::Logs::of("cinchona_retry");
    let script = [failing(Code::Unavailable), failing(Code::Unavailable), ok()];
    play(layer(on([Code::Unavailable])), script, with_header("x-request-id", "r7"))
        .await
        .1
        .unwrap();
    let events = logs.events();
    let retries: Vec<_> = events.iter().filter(|e| e.level == tracing::Level::INFO).collect();
    assert_eq!(retries.len(), 2);
    for (n, event) in retries.iter().enumerate() {
        let field = |name: &str| event.fields[name].as_str();
        assert_eq!(event.message, "attempt failed, retrying");
        assert_eq!((field("rpc.method"), field("request_id")), ("/a.B/C", "r7"));
        assert_eq!((field("attempt"), field("of")), (&*(n + 1).to_string(), "4"));
        assert!(field("code").contains("UNAVAILABLE") && field("wait").ends_with('s'), "{event:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn towers_own_retry_decides_the_same_and_knows_the_deadline_from_above() {
    for (deadline, attempts) in [(60, 4), (5, 3), (1, 1)] {
        let server = ScriptedServer::new([failing(Code::DeadlineExceeded)]);
        let policy = TowerPolicy::new(RetryPolicy::default(), Methods::all_idempotent());
        let client = tower::ServiceBuilder::new()
            .map_request(|request| TowerBody::capture(request, 1024))
            .retry(policy)
            .map_request(TowerBody::release)
            .service(server.clone());
        let mut request = request();
        request.extensions_mut().insert(Deadline(Instant::now() + deadline * SECOND));
        client.oneshot(request).await.unwrap();
        assert_eq!(server.attempts(), attempts);
        for (n, received) in server.received().iter().enumerate() {
            let previous = cinchona_plumbing::status::previous_attempts(&received.headers);
            assert_eq!(previous as usize, n);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_backoff_that_is_set_is_the_one_that_is_waited() {
    let backoff = Backoff::new(7 * SECOND, 1.0, 7 * SECOND).unwrap();
    let policy = on([Code::Unavailable]).with_backoff(backoff.with_jitter(Jitter::None));
    let (server, _) = play(layer(policy), [failing(Code::Unavailable)], request()).await;
    assert_eq!(gaps(&server), [7 * SECOND; 3]);
}

/// However soon the server wants them.
#[tokio::test(start_paused = true)]
async fn at_most_two_attempts_of_a_call_begin_within_a_millisecond() {
    let at_once = [("grpc-status", "14"), ("grpc-retry-pushback-ms", "0")];
    let at_once = at_once.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    let policy = on([Code::Unavailable]).with_max_retries(9);
    let script = [Answer::Raw(at_once.into_iter().collect())];
    let (server, _) = play(layer(policy), script, request()).await;
    let began: Vec<_> = server.received().iter().map(|received| received.at).collect();
    assert_eq!(began.len(), 10);
    assert!(
        began.windows(3).all(|three| three[2] - three[0] >= cinchona_policy::retry::PACE),
        "{began:?}"
    );
    assert!(
        began[9] - began[0] <= 9 * cinchona_policy::retry::PACE,
        "and no later than that: {began:?}"
    );
}
