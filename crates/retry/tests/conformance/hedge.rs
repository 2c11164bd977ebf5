//! Hedging, by gRFC A6 and beyond it.

use super::*;
use cinchona_core::{AttemptKind, Stage, Verdict};

const U: Code = Code::Unavailable;

fn after(millis: u64, answer: Answer) -> Answer {
    Answer::After(ms(millis), Box::new(answer))
}

fn hedging_settings(attempts: u32, delay: u64) -> RetrySettings {
    settings(hedge(attempts, ms(delay), [U]))
}

fn hedging(attempts: u32, delay: u64) -> RetryLayer {
    hedging_settings(attempts, delay).layer()
}

/// When each attempt arrived, in milliseconds.
async fn arrivals(layer: RetryLayer, script: Vec<Answer>) -> (Vec<u64>, Code, Client) {
    let began = Instant::now();
    let (client, outcome) = play(layer, script).await;
    settle().await;
    let at = |received: &cinchona_testkit::Received| (received.at - began).as_millis() as u64;
    (client.server.received().iter().map(at).collect(), code(&outcome), client)
}

// catalogue: JS-hedging-basic, JV-hedging-receiveHeaders, DN-OneAttempt-Success
// catalogue: X-slow-first-fast-second
#[tokio::test(start_paused = true)]
async fn a_slow_attempt_is_overtaken_and_reset() {
    let (at, code, client) = arrivals(hedging(4, 100), vec![after(1000, ok()), ok()]).await;
    assert_eq!((at, code, client.server.dropped()), (vec![0, 100], Code::Ok, 1));
    assert_eq!(client.previous(), [None, Some(1)]);
    let (at, code, _) = arrivals(hedging(4, 100), vec![ok()]).await;
    assert_eq!((at, code), (vec![0], Code::Ok));
}

// catalogue: D09, JS-hedging-few, X-non-fatal-launches-at-once
// catalogue: DN-NoActiveCalls-WaitsForNextCall
#[tokio::test(start_paused = true)]
async fn a_failure_that_is_not_fatal_begins_the_next_attempt_immediately() {
    let (at, code, _) = arrivals(hedging(4, 1000), vec![unavailable(), unavailable(), ok()]).await;
    assert_eq!((at, code), (vec![0, 0, 0], Code::Ok));
    // And the schedule continues from there.
    let script = vec![after(300, unavailable()), after(9000, ok()), after(9000, ok()), ok()];
    let (at, code, _) = arrivals(hedging(4, 1000), script).await;
    assert_eq!((at, code), (vec![0, 300, 1300, 2300], Code::Ok));
}

// catalogue: JS-hedging-fatal, JV-hedging-oneNonFatal-oneFatal, DN-FatalStatusCode
#[tokio::test(start_paused = true)]
async fn a_fatal_failure_ends_the_call_and_resets_the_others() {
    let fatal = after(50, failing(Code::Internal));
    let (at, code, client) = arrivals(hedging(4, 100), vec![after(1000, ok()), fatal]).await;
    assert_eq!((at, code, client.server.dropped()), (vec![0, 100], Code::Internal, 1));
}

// catalogue: JS-hedging-many-fail, JV-hedging-maxAttempts, DN-ExceedAttempts
#[tokio::test(start_paused = true)]
async fn when_all_have_failed_the_last_failure_is_the_calls() {
    let last = Answer::Status(Status::unavailable("the last one"));
    let script =
        vec![unavailable(), unavailable(), unavailable(), unavailable(), unavailable(), last];
    let mut client = Client::new(&hedging(6, 100), script);
    let outcome = client.call().await;
    assert_eq!(
        (client.server.attempts(), outcome.as_ref().unwrap_err().message()),
        (6, "the last one")
    );
    assert_eq!(
        (ledger(&outcome).attempts().len(), ledger(&outcome).stopped()),
        (6, Stop::Exhausted)
    );
    let mut script = vec![unavailable(); 5];
    script.push(ok());
    assert_eq!(arrivals(hedging(6, 100), script).await.1, Code::Ok);
}

// catalogue: X-hedge-delay-absent, DN-ManyAttemptsNoDelay, JV-hedging-everythingDrained
#[tokio::test(start_paused = true)]
async fn without_a_delay_all_begin_together() {
    let script = vec![after(300, ok()), after(200, ok()), after(100, ok())];
    let (at, code, client) = arrivals(hedging(3, 0), script).await;
    assert_eq!((at, code, client.server.dropped()), (vec![0, 0, 0], Code::Ok, 2));
    assert_eq!(client.previous(), [None, Some(1), Some(2)]);
}

// catalogue: D15, X-hedge-pushback-larger, JV-hedging-pushback-positive
// catalogue: DN-PushbackDelay-Updates
#[tokio::test(start_paused = true)]
async fn pushback_moves_the_next_attempt_later_or_earlier() {
    for delay in [1000, 100] {
        let script = vec![pushing_back(U, &["400"]), after(5000, ok()), ok()];
        let (at, code, _) = arrivals(hedging(3, delay), script).await;
        assert_eq!((at, code), (vec![0, 400, 400 + delay], Code::Ok), "delay {delay}");
    }
}

// catalogue: D15, D18, X-hedge-freeze, JV-hedging-pushback-negative
// catalogue: DN-PushbackStop-SuccessAfter
#[tokio::test(start_paused = true)]
async fn pushback_that_forbids_more_does_not_end_those_in_flight() {
    for stop in ["-1", "xxx"] {
        let script = vec![after(400, ok()), pushing_back(U, &[stop]), ok()];
        let (at, code, client) = arrivals(hedging(4, 100), script).await;
        assert_eq!((at, code, client.server.dropped()), (vec![0, 100], Code::Ok, 0), "{stop}");
        let script = vec![after(400, unavailable()), pushing_back(U, &[stop]), ok()];
        assert_eq!(arrivals(hedging(4, 100), script).await.0, [0, 100], "{stop}");
    }
}

// catalogue: D15, JV-hedging-throttledByHedgingStreams, X-hedge-throttle-at-send
// catalogue: DN-TriggerRetryThrottling
#[tokio::test(start_paused = true)]
async fn hedges_are_throttled_when_they_are_to_be_sent() {
    let layer = hedging_settings(3, 100).with_throttle(4.0, 0.5).unwrap().layer();
    let mut client = Client::new(&layer, [unavailable()]);
    let mut seen = Vec::new();
    for _ in 0..4 {
        let before = client.server.attempts();
        client.call().await.unwrap_err();
        seen.push(client.server.attempts() - before);
    }
    assert_eq!(seen, [2, 1, 1, 1]);
    // One that was due after another call had used up the tokens is not sent.
    let layer = hedging_settings(3, 100).with_throttle(4.0, 0.5).unwrap().layer();
    let draining = layer.clone();
    let slow = tokio::spawn(arrivals(layer, vec![after(300, ok())]));
    settle().await;
    play(draining, [unavailable()]).await.1.unwrap_err();
    assert_eq!(slow.await.unwrap().0, [0]);
}

// catalogue: JV-hedging-transparentRetry, X-hedge-transparent
#[tokio::test(start_paused = true)]
async fn a_refused_hedge_is_replaced_and_does_not_count() {
    let script = vec![Answer::Reset(h2::Reason::REFUSED_STREAM), after(150, ok()), ok()];
    let (at, code, client) = arrivals(hedging(2, 100), script).await;
    assert_eq!((at, code), (vec![0, 0, 100], Code::Ok));
    assert_eq!(client.previous(), [None, None, Some(1)]);
}

// catalogue: JV-hedging-transparentRetryNotAllowed
#[tokio::test(start_paused = true)]
async fn it_is_replaced_once_a_call() {
    let refused = || Answer::Reset(h2::Reason::REFUSED_STREAM);
    let (at, code, _) =
        arrivals(hedging(2, 100), vec![refused(), refused(), refused(), ok()]).await;
    // The first in place, the second as a failure that is not fatal, which begins the third.
    assert_eq!((at.len(), code), (3, U));
}

// catalogue: JV-hedging-cancelled, DN-Dispose-ActiveCalls, DN-CancellationDuringBackoff
#[tokio::test(start_paused = true)]
async fn a_dropped_call_resets_every_attempt_and_begins_no_other() {
    let mut client = Client::new(&hedging(3, 100), [Answer::Hang]);
    _ = tokio::time::timeout(ms(150), client.call()).await.unwrap_err();
    tokio::time::sleep(ms(1000)).await;
    assert_eq!((client.server.attempts(), client.server.dropped()), (2, 2));
}

// catalogue: DN-Deadline-AfterServerCall, DN-ExceedDeadlineWithActiveCalls
#[tokio::test(start_paused = true)]
async fn the_deadline_covers_all_attempts() {
    let mut client = Client::new(&hedging(3, 100), [Answer::Hang]);
    let mut request = Request::new(message(3));
    request.set_timeout(ms(250));
    let began = Instant::now();
    let outcome = client.send(request).await;
    assert_eq!(code(&outcome), Code::DeadlineExceeded);
    assert!(Instant::now() - began <= ms(251));
    assert_eq!(ledger(&outcome).stopped(), Stop::Deadline);
    settle().await;
    assert_eq!(client.server.dropped(), 3);
}

// catalogue: X-hedge-needs-safety
#[tokio::test(start_paused = true)]
async fn a_method_with_effects_is_hedged_only_under_an_idempotency_key() {
    let settings = RetrySettings::new(RetryPolicy::default(), Methods::unknown());
    let policies = Policy::from(hedge(3, ms(100), [U])).into();
    let layer = settings.with_policies(policies).unwrap().layer();
    let script = || vec![after(350, ok()), ok()];
    assert_eq!(arrivals(layer.clone(), script()).await.0, [0]);
    let mut client = Client::new(&layer, script());
    let mut request = Request::new(message(3));
    request.metadata_mut().insert("idempotency-key", "k".parse().unwrap());
    client.send(request).await.unwrap();
    assert_eq!(client.server.attempts(), 2);
    let mut named = cinchona_core::PerMethod::new();
    named.insert("a.B", "C", Policy::from(hedge(3, ms(100), [U]))).unwrap();
    let refused = layer.set_policies(named).unwrap_err().to_string();
    assert!(refused.starts_with("hedgingPolicy: /a.B/C is not allowed"), "{refused}");
}

// catalogue: X-hedge-wins-ledger, DN-SuccessAfterRetry
#[tokio::test(start_paused = true)]
async fn the_ledger_of_a_hedged_call_has_its_losers() {
    let (_, outcome) = play(hedging(3, 100), [after(1000, ok()), ok()]).await;
    let codes: Vec<Code> = ledger(&outcome).attempts().iter().map(|a| a.verdict.code()).collect();
    assert_eq!(codes, [Code::Ok, Code::Cancelled]);
}

// catalogue: X-hedge-wins-ledger
#[tokio::test(start_paused = true)]
async fn the_ledger_of_a_hedged_call_has_the_attempt_that_was_refused_and_sent_again() {
    let (_, outcome) =
        play(hedging(3, 1000), [Answer::Reset(h2::Reason::REFUSED_STREAM), ok()]).await;
    let kinds: Vec<_> = ledger(&outcome).attempts().iter().map(|a| (a.kind, a.verdict)).collect();
    let refused = Verdict::NotProcessed(Stage::RefusedStream);
    assert_eq!(kinds, [(AttemptKind::First, refused), (AttemptKind::Transparent, Verdict::Ok)]);
}

// catalogue: X-hedge-reset-limits, JV-hedging-deadlock, DN-ManyParallelRequests
#[tokio::test(start_paused = true)]
async fn ten_thousand_hedged_calls_do_not_trip_the_limits_on_resets() {
    let layer = hedging(2, 10);
    let slow_then_fast = |n: usize| if n.is_multiple_of(2) { after(50, ok()) } else { ok() };
    let server = ScriptedServer::new((0..20_000).map(slow_then_fast));
    let network = Network::new();
    let router = tonic::transport::Server::builder().add_routes(server.routes());
    tokio::spawn(router.serve_with_incoming(network.incoming()));
    let grpc = Grpc::new(layer.layer(network.channel()));
    for _ in 0..100 {
        let calls: Vec<_> = (0..100)
            .map(|_| {
                let mut grpc = grpc.clone();
                tokio::spawn(async move { unary(&mut grpc, Request::new(message(3))).await })
            })
            .collect();
        for call in calls {
            call.await.unwrap().unwrap();
        }
    }
    assert_eq!(network.connects(), 1);
    assert!(server.dropped() > 4000, "{}", server.dropped());
}

// catalogue: X-extra-load
#[tokio::test(start_paused = true)]
async fn a_given_extra_load_cuts_the_tail_tenfold_and_costs_no_more() {
    const CALLS: u32 = 3000;
    async fn run(policy: Policy) -> (f64, Duration) {
        let slow_one = |n: u32| if n % 100 == 99 { after(200, ok()) } else { after(2, ok()) };
        let layer = layer(policy);
        let mut client = Client::new(&layer, (0..2 * CALLS).map(slow_one));
        let mut took = Vec::new();
        for _ in 0..CALLS {
            let began = Instant::now();
            client.call().await.unwrap();
            took.push(Instant::now() - began);
        }
        took.sort_unstable();
        let p999 = took[CALLS as usize * 999 / 1000];
        (client.server.attempts() as f64 / f64::from(CALLS) - 1.0, p999)
    }
    let (_, plain) = run(Policy::default()).await;
    let adaptive = HedgePolicy::default().with_extra_load(0.02).unwrap();
    let (extra, hedged) = run(adaptive.into()).await;
    assert!(extra <= 0.025, "{extra}");
    assert!(hedged * 10 <= plain, "{plain:?} to {hedged:?}");
}

/// Calls that take 2 ms each, and then one that takes 200 ms: whether that one was hedged.
async fn hedges_a_slow_call_after(
    calls: usize,
    layer: &RetryLayer,
    request: impl Fn() -> Request<Message>,
) -> bool {
    let fast = (0..calls).map(|_| after(2, ok()));
    let mut client = Client::new(layer, fast.chain([after(200, ok()), ok()]));
    for _ in 0..=calls {
        client.send(request()).await.unwrap();
    }
    client.server.attempts() > calls + 1
}

#[tokio::test(start_paused = true)]
async fn two_layers_of_the_same_settings_learn_apart() {
    let adaptive = HedgePolicy::default().with_extra_load(0.02).unwrap();
    let settings = settings(adaptive.clone());
    let request = || Request::new(message(3));
    let (one, other) = (settings.layer(), settings.layer());
    assert!(hedges_a_slow_call_after(100, &one, request).await);
    assert!(!hedges_a_slow_call_after(0, &other, request).await, "it knows no latency yet");
    assert!(hedges_a_slow_call_after(0, &one, request).await);
    let same = settings.clone().with_policies(Policy::from(adaptive).into()).unwrap();
    assert_eq!(same, settings, "what layers learn changes no setting");
}

#[tokio::test(start_paused = true)]
async fn policies_that_are_set_again_keep_what_they_have_learned_unless_they_differ() {
    let by_load = |share| Policy::from(HedgePolicy::default().with_extra_load(share).unwrap());
    let request = || Request::new(message(3));
    let layer = layer(by_load(0.02));
    assert!(hedges_a_slow_call_after(100, &layer, request).await);
    layer.set_policies(by_load(0.02).into()).unwrap();
    assert!(hedges_a_slow_call_after(0, &layer, request).await);
    layer.set_policies(by_load(0.03).into()).unwrap();
    assert!(!hedges_a_slow_call_after(0, &layer, request).await);
}

#[tokio::test(start_paused = true)]
async fn the_calls_that_bring_equal_policies_learn_together_within_a_layer() {
    let request = |share| {
        move || {
            let mut request = Request::new(message(3));
            let own = HedgePolicy::default().with_extra_load(share).unwrap();
            request.extensions_mut().insert(Policy::from(own));
            request
        }
    };
    let layers = [layer(Policy::default()), layer(Policy::default())];
    assert!(hedges_a_slow_call_after(100, &layers[0], request(0.02)).await);
    assert!(hedges_a_slow_call_after(0, &layers[0], request(0.02)).await);
    assert!(!hedges_a_slow_call_after(0, &layers[0], request(0.03)).await);
    assert!(!hedges_a_slow_call_after(0, &layers[1], request(0.02)).await);
}
