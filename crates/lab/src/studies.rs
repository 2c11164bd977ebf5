//! Questions that the scenarios do not answer, in virtual time: what a full outage costs, what
//! hedging does to the tail, and what retries do to effects. The client's layers are real; in the
//! first two the server is a model.

use crate::{accounts, endpoints, protection, report::Study, site::Site};
use calculator::{
    client::{Settings, client},
    pb::{CounterRequest, Empty},
};
use cinchona::{
    core::{BoxError, Methods, Mode, Rng, Switch},
    fault::{FaultLayer, FaultSettings, Faults, When},
    retry::{HedgePolicy, Policy, RetryPolicy, RetrySettings},
};
use http::{Request, Response};
use std::{convert::Infallible, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service, ServiceExt, service_fn};

/// All studies.
pub(crate) async fn run(seed: u64) -> Result<Vec<Study>, BoxError> {
    Ok(vec![
        outage(seed).await?,
        tail(seed).await?,
        effects(seed).await?,
        accounts::closed(seed).await?,
        endpoints::slow(seed).await?,
        protection::payment(seed).await?,
        protection::overload(seed).await?,
        protection::cascade(seed).await?,
    ])
}

fn server(
    faults: FaultLayer,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ 'static {
    faults.layer(service_fn(|_: Request<Body>| async {
        sleep(Duration::from_millis(2)).await;
        Ok(Status::ok("").into_http::<Body>())
    }))
}

/// 1,500 calls in 30 s; the server fails every one of the first 20 s.
async fn outage(seed: u64) -> Result<Study, BoxError> {
    const CALLS: u32 = 1500;
    const PACE: Duration = Duration::from_millis(20);
    const DOWN: Duration = Duration::from_secs(20);
    let down = Switch::default();
    let faults = FaultSettings::new(Faults { failure_rate: 1.0, ..Faults::default() })?;
    let faults = faults.with_switch(down.clone()).layer();
    let counters = faults.clone();
    let policy = RetryPolicy::default().with_codes([Code::DeadlineExceeded, Code::Unavailable])?;
    let retry =
        RetrySettings::new(policy, Methods::all_idempotent()).with_rng(Rng::seeded(seed)).layer();
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
    let sent_in_vain = counters.counters().failed_before;
    down.set(Mode::Off);
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
        table: Vec::new(),
        chart: String::new(),
        expectation: "at most 1.12 attempts a call, and no failure later than 2 s after the return",
        met: ratio <= 1.12 && recovered <= Duration::from_secs(2),
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
        let counters = faults.clone();
        let settings = RetrySettings::new(RetryPolicy::default(), Methods::all_idempotent());
        let mut client = settings.with_policies(policy.into())?.layer().layer(server(faults));
        let mut took = Vec::with_capacity(CALLS);
        for _ in 0..LEARNING + CALLS {
            let began = Instant::now();
            client.ready().await?.call(Request::new(Body::empty())).await?;
            took.push(Instant::now() - began);
        }
        let extra = counters.counters().matched as f64 / took.len() as f64 - 1.0;
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
        table: Vec::new(),
        chart: String::new(),
        expectation: "at least tenfold, for at most 2.5 %",
        met: hedged * 10 <= plain && extra <= 0.025,
    })
}

/// 1,000 increments by 16 callers; 30 % of the replies are lost after the service has executed the
/// request, and the calls are retried.
async fn effects(seed: u64) -> Result<Study, BoxError> {
    const CALLS: u32 = 1000;
    const CALLERS: u32 = 16;
    /// What the counter is at the end, how many replies were lost, and how many answers were
    /// those of an earlier attempt.
    async fn count(seed: u64, mode: Mode) -> Result<(i32, u64, u64), BoxError> {
        let faults = Faults { failure_rate: 0.3, when: When::After, seed, ..Faults::default() };
        let faults = FaultLayer::new(faults)?;
        let injected = faults.clone();
        let (site, dedup) = Site::counting(faults, mode);
        let settings = Settings {
            retry: RetryPolicy::default().with_codes([Code::Unavailable])?.with_max_retries(20),
            budget: None,
            rng: Rng::seeded(seed),
            ..Settings::default()
        };
        let layers = settings.layers()?;
        let mut client = client(site.channel(true)?, &layers);
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let mut client = client.clone();
            callers.spawn(async move {
                for n in (caller..CALLS).step_by(CALLERS as usize) {
                    let request_id = format!("increment {n}");
                    let request = CounterRequest { request_id: request_id.clone(), increment: 1 };
                    let mut request = tonic::Request::new(request);
                    // By this its faults are drawn, the same for the same seed.
                    request.metadata_mut().insert("x-request-id", request_id.parse()?);
                    client.increment_counter(request).await?;
                }
                Ok::<_, BoxError>(())
            });
        }
        callers.join_all().await.into_iter().collect::<Result<(), _>>()?;
        let (lost, replayed) = (injected.counters().failed_after, dedup.counters().replayed);
        let counter = client.get_counter(Empty {}).await?.into_inner();
        Ok((counter.value, lost, replayed))
    }
    let (bare, lost, _) = count(seed, Mode::Off).await?;
    let (exact, lost_too, replayed) = count(seed, Mode::Enforce).await?;
    let over = bare - CALLS as i32;
    let row = |name: &str, counter: i32, lost: u64, replayed: u64| {
        let over = counter - CALLS as i32;
        let numbers = [counter.to_string(), over.to_string(), lost.to_string()];
        [name.to_owned()].into_iter().chain(numbers).chain([replayed.to_string()]).collect()
    };
    let headings = ["", "counter", "too many", "replies lost", "answers replayed"];
    Ok(Study {
        question: "What do 1,000 increments come to where 30 % of the replies are lost?",
        answer: format!("Without dedup to {over} too many, with it to exactly {exact}."),
        table: vec![
            headings.map(str::to_owned).to_vec(),
            row("without dedup", bare, lost, 0),
            row("with dedup", exact, lost_too, replayed),
        ],
        chart: String::new(),
        expectation: "without dedup too many, with it exactly 1,000",
        met: over > 0 && exact == CALLS as i32 && replayed > 0,
    })
}
