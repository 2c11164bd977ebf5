//! Two questions that the scenarios do not answer, in virtual time: what a full outage costs, and
//! what hedging does to the tail. The client's layers are real; the server is a model.

use crate::report::Study;
use cinchona::{
    core::{BoxError, Methods, Rng, Switch},
    fault::{FaultLayer, Faults},
    retry::{HedgePolicy, Policy, RetryLayer, RetryPolicy},
};
use http::{Request, Response};
use std::{convert::Infallible, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service, ServiceExt, service_fn};

/// Both studies.
pub(crate) async fn run(seed: u64) -> Result<Vec<Study>, BoxError> {
    Ok(vec![outage(seed).await?, tail(seed).await?])
}

fn server(
    faults: FaultLayer,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ 'static {
    faults.layer(service_fn(|_: Request<Body>| async {
        sleep(Duration::from_millis(2)).await;
        Ok(Status::ok("").into_http())
    }))
}

/// 1,500 calls in 30 s; the server fails every one of the first 20 s.
async fn outage(seed: u64) -> Result<Study, BoxError> {
    const CALLS: u32 = 1500;
    const PACE: Duration = Duration::from_millis(20);
    const DOWN: Duration = Duration::from_secs(20);
    let down = Switch::default();
    let faults = FaultLayer::new(Faults { failure_rate: 1.0, ..Faults::default() })?;
    let faults = faults.with_switch(down.clone());
    let counters = faults.counters();
    let policy = RetryPolicy::default().with_codes([Code::DeadlineExceeded, Code::Unavailable])?;
    let retry = RetryLayer::new(policy, Methods::all_idempotent()).with_rng(Rng::seeded(seed));
    let client = retry.layer(server(faults));
    let began = Instant::now();
    let mut calls = JoinSet::new();
    for n in 0..CALLS {
        let client = client.clone();
        calls.spawn(async move {
            sleep_until(began + n * PACE).await;
            let failed = client.oneshot(Request::new(Body::empty())).await.is_err();
            failed.then(|| Instant::now() - began)
        });
    }
    sleep_until(began + DOWN).await;
    let sent_in_vain = counters.snapshot().failed_before;
    down.set(cinchona::core::Mode::Off);
    let failures: Vec<Duration> = calls.join_all().await.into_iter().flatten().collect();
    let last = failures.iter().max().copied().unwrap_or_default();
    let begun = DOWN.as_millis() / PACE.as_millis();
    let ratio = sent_in_vain as f64 / begun as f64;
    let recovered = last.saturating_sub(DOWN);
    let after = match recovered {
        Duration::ZERO => "none failed after the server's return".to_owned(),
        late => format!("the last failure came {late:.1?} after the server's return"),
    };
    Ok(Study {
        question: "What does an outage cost that 1,000 calls run into?",
        answer: format!(
            "While it lasted {begun} calls sent {sent_in_vain} attempts ({ratio:.2} a call), and \
             {} calls failed; {after}.",
            failures.len()
        ),
        expectation: "at most 1.1 attempts a call, and no failure later than 2 s after the return",
        met: ratio <= 1.1 && recovered <= Duration::from_secs(2),
    })
}

/// 10,000 calls one after the other, after 1,000 from which the delay is learned; 1 % of the
/// answers take 200 ms more.
async fn tail(seed: u64) -> Result<Study, BoxError> {
    const CALLS: usize = 10_000;
    const LEARNING: usize = 1000;
    async fn p999(seed: u64, policy: Policy) -> Result<(Duration, f64), BoxError> {
        let slow_delay = Duration::from_millis(200);
        let faults = Faults { slow_rate: 0.01, slow_delay, seed, ..Faults::default() };
        let faults = FaultLayer::new(faults)?;
        let counters = faults.counters();
        let layer = RetryLayer::new(RetryPolicy::default(), Methods::all_idempotent());
        let mut client = layer.with_policies(policy.into())?.layer(server(faults));
        let mut took = Vec::with_capacity(CALLS);
        for _ in 0..LEARNING + CALLS {
            let began = Instant::now();
            client.ready().await?.call(Request::new(Body::empty())).await?;
            took.push(Instant::now() - began);
        }
        let extra = counters.snapshot().matched as f64 / took.len() as f64 - 1.0;
        took.drain(..LEARNING);
        took.sort_unstable();
        Ok((took[CALLS * 999 / 1000 - 1], extra))
    }
    let (plain, _) = p999(seed, Policy::default()).await?;
    let hedge = HedgePolicy::default().with_extra_load(0.02)?;
    let (hedged, extra) = p999(seed, hedge.into()).await?;
    Ok(Study {
        question: "What does hedging with 2 % extra load do where 1 % of answers are 200 ms late?",
        answer: format!(
            "It cuts p99.9 from {plain:.1?} to {hedged:.1?}, for {:.1} % more requests.",
            extra * 100.0
        ),
        expectation: "at least tenfold, for at most 2.5 %",
        met: hedged * 10 <= plain && extra <= 0.025,
    })
}
