//! How pickers treat one slow endpoint among eleven, in virtual time (the experiment of Finagle's
//! authors). The balancer and its connections are real; the servers are models.

use crate::report::Study;
use cinchona::{
    balance::{Balance, Options, Picker},
    core::{BoxError, Rng, Target},
    deadline::AttemptTimeoutLayer,
};
use cinchona_plumbing::status;
use cinchona_testkit::Network;
use http::{Request, Response, Uri};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tonic::{Code, Status, body::Body};
use tower::{Layer, ServiceExt, service_fn};

const ENDPOINTS: usize = 11;
const SECOND: Duration = Duration::from_secs(1);
const SLOW: Duration = Duration::from_secs(2);
const LIMIT: Duration = SECOND;
/// The part of the minute in which the first endpoint is slow.
const FROM: Duration = Duration::from_secs(15);
const TO: Duration = Duration::from_secs(45);
const CALLS: u32 = 6000;

/// A call every 10 ms for a minute; one of eleven endpoints takes 2 s for half of it, and 1 s is
/// the limit.
pub(crate) async fn slow(seed: u64) -> Result<Study, BoxError> {
    let (ewma, ewma_met) = share(seed, Picker::PeakEwma).await?;
    let (turns, turns_met) = share(seed, Picker::RoundRobin).await?;
    let row = |name: &str, share: f64, met: u32| {
        vec![name.to_owned(), format!("{:.2} %", share * 100.0), met.to_string()]
    };
    let headings = ["", "succeeded", "calls that met the slow endpoint"];
    Ok(Study {
        question: "What does one endpoint of eleven cost that takes 2 s where 1 s is the limit?",
        answer: "Without retries, it costs the calls that meet it, so a picker must notice.".into(),
        table: vec![
            headings.map(str::to_owned).to_vec(),
            row("power of two choices, peak EWMA", ewma, ewma_met),
            row("round robin", turns, turns_met),
        ],
        chart: String::new(),
        expectation: "at least 99.9 % succeed with the default picker, and more than in turns",
        met: ewma >= 0.999 && turns < ewma,
    })
}

/// The share of calls that succeed, and how many met the slow endpoint while it was slow.
async fn share(seed: u64, picker: Picker) -> Result<(f64, u32), BoxError> {
    let began = Instant::now();
    let met = Arc::new(AtomicU32::new(0));
    let networks: HashMap<String, Network> =
        (0..ENDPOINTS).map(|n| (format!("e{n}"), Network::new())).collect();
    let mut serving = Vec::new();
    for n in 0..ENDPOINTS {
        let met = met.clone();
        serving.push(networks[&format!("e{n}")].serve_service(service_fn(
            move |_: Request<Body>| {
                let since = Instant::now() - began;
                let is_slow = n == 0 && (FROM..TO).contains(&since);
                met.fetch_add(u32::from(is_slow), Ordering::Relaxed);
                let takes = Duration::from_millis(10 + 2 * n as u64);
                async move {
                    sleep(if is_slow { SLOW } else { takes }).await;
                    Ok::<_, Status>(Status::ok("").into_http::<Body>())
                }
            },
        )));
    }
    let targets = |name: &String| Ok(Target::from(format!("http://{name}").parse::<Uri>()?));
    let mut targets = networks.keys().map(targets).collect::<Result<Vec<_>, BoxError>>()?;
    targets.sort_by_key(|target| target.uri.to_string());
    let connector = service_fn(move |uri: Uri| {
        let network = networks.get(uri.host().unwrap_or_default()).cloned().unwrap_or_default();
        async move { network.connector().oneshot(uri).await }
    });
    let options = Options { picker, rng: Rng::seeded(seed), ..Options::default() };
    let balance = Balance::with_connector(targets, connector, options)?;
    let client = AttemptTimeoutLayer::new(LIMIT).layer(balance);
    let mut calls = JoinSet::new();
    for n in 0..CALLS {
        let client = client.clone();
        calls.spawn(async move {
            sleep_until(began + n * Duration::from_millis(10)).await;
            let request = Request::post("http://any/calculator.Calculator/Add").body(Body::empty());
            let answered: Result<Response<_>, BoxError> = client.oneshot(request?).await;
            let code = answered.map(|response| status::code(response.headers()));
            Ok::<_, BoxError>(code.is_ok_and(|code| code == Some(Code::Ok)))
        });
    }
    let mut succeeded = 0;
    while let Some(call) = calls.join_next().await {
        succeeded += u32::from(call??);
    }
    drop(serving);
    Ok((f64::from(succeeded) / f64::from(CALLS), met.load(Ordering::Relaxed)))
}
