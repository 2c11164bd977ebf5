//! Every accepted value of a setting works.

use super::*;

fn durations() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::ZERO),
        Just(Duration::from_nanos(1)),
        Just(Duration::MAX),
        Just(Duration::MAX - Duration::from_nanos(1)),
        Just(Duration::from_secs(u64::MAX / 1_000_000_000)),
        Just(Duration::from_secs(30 * 365 * 24 * 3600)),
        (0..100_000_u64).prop_map(Duration::from_millis),
        any::<Duration>(),
    ]
}

fn shares() -> impl Strategy<Value = f64> {
    prop_oneof![
        proptest::sample::select(vec![
            0.0,
            -0.0,
            -1.0,
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::MIN_POSITIVE,
            f64::MAX,
            1.0,
        ]),
        0.0..1.0,
    ]
}

fn counts() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), Just(1), Just(u32::MAX), 0..300_u32, any::<u32>()]
}

/// The accepted ones of these settings; the others are refused by name.
fn settled(
    policy: BreakerPolicy,
    change: impl FnOnce(BreakerPolicy) -> Result<BreakerPolicy, cinchona_core::Invalid>,
) -> BreakerPolicy {
    change(policy).unwrap_or_else(|invalid| {
        assert!(!invalid.field().is_empty() && invalid.to_string().contains("the range is"));
        policy
    })
}

/// Calls and answers at one instant and at others, near and far.
async fn play(policy: BreakerPolicy, limit: &str) {
    let layer = layer(policy);
    let hang = [Answer::Hang, Answer::After(MS, Box::new(answer(Code::Ok)))];
    let codes = [Code::Unavailable, Code::Ok, Code::DeadlineExceeded].map(answer);
    let server = ScriptedServer::new(codes.into_iter().cycle().take(30).chain(hang));
    let service = layer.layer(server);
    for n in 0..40 {
        let mut request = request();
        if n % 2 == 0 {
            request.headers_mut().insert("grpc-timeout", limit.parse().unwrap());
        }
        let _ = timeout(MS, service.clone().oneshot(request)).await;
        let circuit = circuit(&layer);
        let _ = (circuit.next_probe_in(), circuit.failure_rate(), format!("{circuit:?}"));
    }
    let (gate, now) = (layer.endpoint("far"), Instant::now());
    const YEARS: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    let early = now.checked_sub(SECOND).unwrap_or(now);
    for (n, at) in
        [now, now + YEARS, now + 2 * YEARS, early, now].into_iter().cycle().take(50).enumerate()
    {
        gate.is_open_to("/s/M", at);
        let Ok(ticket) = gate.enter("/s/M", at) else { continue };
        let took = [Duration::ZERO, Duration::MAX][n % 2];
        let bad = Evidence::Bad(Code::DeadlineExceeded);
        let good = Evidence::Good(Code::Ok);
        let evidence = [Evidence::Nothing(None), bad, good, bad][n % 4];
        gate.leave(ticket, evidence, took, at);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    // catalogue: S-D7
    #[test]
    fn each_setting_is_refused_by_name_or_works(
        (open, longest, slow, time, lasting) in
            (durations(), durations(), durations(), durations(), durations()),
        (rate, slow_rate) in (shares(), shares()),
        (run, most, calls, min) in (counts(), counts(), counts(), counts()),
        is_time: bool, in_a_row: bool,
        limit in proptest::sample::select(vec!["0n", "1n", "0S", "99999999H", "1m", "x"]),
    ) {
        let window = if is_time { Window::Time(time) } else { Window::Count(calls) };
        let policy = BreakerPolicy::default();
        let policy = settled(policy, |policy| policy.with_open_for(open, longest));
        let policy = settled(policy, |policy| policy.with_slow_calls(slow, slow_rate));
        let policy = settled(policy, |policy| policy.with_failure_rate(rate));
        let policy = settled(policy, |policy| policy.with_window(window));
        let policy = settled(policy, |policy| policy.with_min_calls(min));
        let policy = settled(policy, |policy| policy.with_outage(run, lasting));
        let policy = settled(policy, |policy| match in_a_row {
            true => policy.with_consecutive_failures(Some(run)),
            false => Ok(policy),
        });
        let policy = settled(policy, |policy| policy.with_probes(most));
        let policy = settled(policy, |policy| policy.with_successes(most));
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(play(policy, limit));
    }
}

// catalogue: S-F8
#[tokio::test(start_paused = true)]
async fn a_circuit_that_is_created_and_answered_at_one_instant_works() {
    let slow = policy().with_slow_calls(SECOND, 0.5).unwrap();
    for limit in [None, Some("1S"), Some("99999999H")] {
        let service = layer(slow).layer(ScriptedServer::new([answer(Code::Ok)]));
        let mut request = request();
        if let Some(limit) = limit {
            request.headers_mut().insert("grpc-timeout", limit.parse().unwrap());
        }
        let head = service.oneshot(request).await.unwrap();
        assert!(head.into_body().collect().await.unwrap().trailers().is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn an_unlimited_duration_never_ends() {
    let ever = policy().with_open_for(Duration::MAX, Duration::MAX).unwrap();
    let (layer, _) = super::play(ever, &[Code::Unavailable; 3]).await;
    let never = layer.endpoint("x");
    assert!(circuit(&layer).next_probe_in().unwrap() > 24 * 365 * 24 * 3600 * SECOND);
    drop(never);
}
