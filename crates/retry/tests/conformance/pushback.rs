//! `grpc-retry-pushback-ms`.

use super::*;

const U: Code = Code::Unavailable;

// catalogue: CC26, GO16, JV-pushback, DN-PushbackExplicitDelay
#[tokio::test(start_paused = true)]
async fn pushback_is_the_wait_to_the_millisecond_and_the_backoff_begins_anew() {
    let script = [unavailable(), pushing_back(U, &["20"]), unavailable(), unavailable()];
    let (client, _) = play(retrying(5), script).await;
    assert_eq!(client.gaps(), [100, 20, 100, 200]);
}

// catalogue: CC27, GO13, JV-pushback-noRetry, DN-PushbackStop, CU-retry-state
#[tokio::test(start_paused = true)]
async fn negative_pushback_ends_the_call() {
    let (client, outcome) =
        play(retrying(4), [unavailable(), pushing_back(U, &["-1"]), ok()]).await;
    assert_eq!((client.server.attempts(), code(&outcome)), (2, U));
    assert_eq!(ledger(&outcome).stopped(), Stop::Pushback);
}

// catalogue: GO14, GO15, D07, D14, X-garbage-pushback
#[tokio::test(start_paused = true)]
async fn pushback_that_is_no_32_bit_integer_ends_the_call_with_its_own_status() {
    for values in [
        &["xxx"][..],
        &["12abc"],
        &[""],
        &["10.5"],
        &["1e3"],
        &[" 10"],
        &["2147483648"],
        &["-2147483649"],
        &["99999999999999999999"],
        &["10", "20"],
        &["10", "10"],
    ] {
        let (client, outcome) = play(retrying(4), [pushing_back(U, values), ok()]).await;
        assert_eq!((client.server.attempts(), code(&outcome)), (1, U), "{values:?}");
        assert_eq!(ledger(&outcome).stopped(), Stop::Pushback, "{values:?}");
    }
}

// catalogue: D01, X-pushback-zero
#[tokio::test(start_paused = true)]
async fn pushback_of_zero_retries_immediately() {
    let began = Instant::now();
    let (client, outcome) = play(retrying(4), [pushing_back(U, &["0"]), ok()]).await;
    assert_eq!((client.server.attempts(), code(&outcome)), (2, Code::Ok));
    assert_eq!(Instant::now(), began);
}

// catalogue: X-pushback-leniency
#[tokio::test(start_paused = true)]
async fn a_sign_and_leading_zeros_are_read_leniently() {
    for (value, wait) in [("007", 7), ("+100", 100), ("2147483647", 2_147_483_647)] {
        let (client, _) = play(retrying(4), [pushing_back(U, &[value]), ok()]).await;
        assert_eq!(client.gaps(), [wait]);
    }
}

// catalogue: D11, X-pushback-on-unlisted-code
#[tokio::test(start_paused = true)]
async fn pushback_does_not_make_an_unlisted_code_retryable() {
    let (client, outcome) = play(retrying(4), [pushing_back(Code::Internal, &["1"]), ok()]).await;
    assert_eq!((client.server.attempts(), code(&outcome)), (1, Code::Internal));
}

// catalogue: DN-PushbackExplicitDelayExceedAttempts
#[tokio::test(start_paused = true)]
async fn pushback_does_not_override_the_number_of_attempts() {
    let (client, outcome) = play(retrying(2), [pushing_back(U, &["5"])]).await;
    assert_eq!((client.server.attempts(), ledger(&outcome).stopped()), (2, Stop::Exhausted));
}
