//! gRPC's retry throttle, over calls.

use super::*;

fn throttled(attempts: u32, max: f64, ratio: f64) -> RetryLayer {
    retrying_settings(attempts).with_throttle(max, ratio).unwrap().layer()
}

// catalogue: GO02, CC31, DN-Unary-TriggerRetryThrottling
#[tokio::test(start_paused = true)]
async fn the_reference_sequence_of_twelve_calls() {
    let (f, o) = (unavailable, ok);
    let script =
        [o(), f(), f(), o(), f(), f(), o(), f(), f(), f(), o(), o(), o(), o(), o(), f(), o(), f()];
    let layer = throttled(4, 10.0, 0.5);
    let mut client = Client::new(&layer, script);
    let mut seen = Vec::new();
    for _ in 0..12 {
        let before = client.server.attempts();
        let outcome = client.call().await;
        let attempts = client.server.attempts() - before;
        seen.push((code(&outcome) == Code::Ok, attempts, layer.counters().throttle_tokens));
    }
    let expected = [
        (true, 1, 10.0),
        (true, 3, 8.5),
        (true, 3, 7.0),
        (false, 2, 5.0),
        (false, 1, 4.0),
        (true, 1, 4.5),
        (true, 1, 5.0),
        (true, 1, 5.5),
        (true, 1, 6.0),
        (true, 1, 6.5),
        (true, 2, 6.0),
        (false, 1, 5.0),
    ];
    assert_eq!(seen, expected);
}

// catalogue: JV-throttledStream, JV-throttledStream-Succeed
#[tokio::test(start_paused = true)]
async fn each_kind_of_failure_takes_its_token_or_none() {
    for (answer, tokens) in [
        (unavailable(), 3.0),
        (failing(Code::Internal), 4.0),
        (pushing_back(Code::Unavailable, &["1"]), 3.0),
        (pushing_back(Code::Unavailable, &["-1"]), 3.0),
        (pushing_back(Code::Internal, &["1"]), 4.0),
        (pushing_back(Code::Internal, &["-1"]), 3.0),
        (ok(), 4.0),
    ] {
        let layer = throttled(2, 4.0, 1.0);
        let stopping = layer.clone();
        // A single attempt each: the throttle is read after it.
        stopping.set_policies(retry(1, [Code::Unavailable]).into_policies()).unwrap();
        _ = play(layer.clone(), [answer.clone()]).await;
        assert_eq!(layer.counters().throttle_tokens, tokens, "{answer:?}");
    }
}

// catalogue: D17, X-committed-failures-count
#[tokio::test(start_paused = true)]
async fn a_failure_after_the_response_has_begun_counts_too() {
    let layer = throttled(4, 10.0, 1.0);
    let late = Answer::HeadersThenStatus(Status::unavailable("late"));
    play(layer.clone(), [late]).await.1.unwrap_err();
    assert_eq!(layer.counters().throttle_tokens, 9.0);
}

// catalogue: X-transparent-retries-cost-nothing
#[tokio::test(start_paused = true)]
async fn a_transparent_retry_takes_no_token() {
    let layer = throttled(4, 10.0, 1.0);
    play(layer.clone(), [Answer::Reset(h2::Reason::REFUSED_STREAM), ok()]).await.1.unwrap();
    assert_eq!(layer.counters().throttle_tokens, 10.0);
}

// catalogue: X-throttle-shared-by-clones, JV-hedging-throttledByOtherCall
#[tokio::test(start_paused = true)]
async fn clones_and_hedges_share_the_tokens() {
    let layer = throttled(4, 4.0, 0.1);
    play(layer.clone(), [unavailable()]).await.1.unwrap_err();
    layer.set_policies(hedge(3, ms(100), [Code::Unavailable]).into_policies()).unwrap();
    let (client, outcome) = play(layer, [unavailable()]).await;
    assert_eq!((client.server.attempts(), ledger(&outcome).stopped()), (1, Stop::Throttled));
}

trait IntoPolicies {
    fn into_policies(self) -> cinchona_core::PerMethod<Policy>;
}

impl<P: Into<Policy>> IntoPolicies for P {
    fn into_policies(self) -> cinchona_core::PerMethod<Policy> {
        self.into().into()
    }
}
