//! The client's whole stack against tonic alone, end to end: `cargo xtask bench throughput`.
//!
//! 64 callers on one channel over loopback, each call with a timeout, so that the server does the
//! same for both; the two take turns, so that whatever else the machine
//! does falls on both, and only their ratio is of interest.

use calculator::{
    client::{Settings, stack},
    pb::{BinaryOperation, calculator_client::CalculatorClient},
    server::{self, listen, serve},
    state::Memory,
};
use cinchona::{balance::connect_lazy, config::ServiceConfig, core::BoxError};
use std::{future::pending, time::Duration};
use tokio::{task::JoinSet, time::Instant};
use tonic::{Request, body::Body, client::GrpcService, transport::Endpoint};

const CALLERS: u32 = 64;
const CALLS: u32 = 100;
const ROUNDS: usize = 31;

fn main() -> Result<(), BoxError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(compare())
}

async fn compare() -> Result<(), BoxError> {
    let incoming = listen(([127, 0, 0, 1], 0).into())?;
    let endpoint = Endpoint::from_shared(format!("http://{}", incoming.local_addr()?))?;
    let faults = cinchona::fault::FaultLayer::new(Default::default())?;
    let state = Memory::new();
    let layers = server::Layers::new(faults, server::dedup(state.clone()));
    tokio::spawn(serve(incoming, state, layers, pending()));

    let layers = Settings::default().layers().expect("the defaults are valid");
    let config = r#"{ "methodConfig": [{
        "name": [{ "service": "calculator.Calculator" }], "timeout": "30s",
        "retryPolicy": { "maxAttempts": 4, "initialBackoff": "1s", "maxBackoff": "9s",
            "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"] } }],
        "retryThrottling": { "maxTokens": 10, "tokenRatio": 0.1 } }"#;
    ServiceConfig::parse(config)?.apply(&layers.deadline, &layers.retry)?;

    let bare = CalculatorClient::new(endpoint.connect_lazy());
    let whole = CalculatorClient::new(stack(connect_lazy(endpoint.uri().clone())?, &layers));
    let mut ratios = Vec::new();
    let mut rates = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // The order alternates between rounds.
        let (bare, whole) = if round % 2 == 0 {
            let bare = rate(&bare).await?;
            (bare, rate(&whole).await?)
        } else {
            let whole = rate(&whole).await?;
            (rate(&bare).await?, whole)
        };
        ratios.push(whole / bare);
        rates.0.push(bare);
        rates.1.push(whole);
    }
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    println!("tonic alone    {:>8.0} calls a second", median(&mut rates.0));
    println!("with the stack {:>8.0} calls a second", median(&mut rates.1));
    println!("ratio          {:>8.3} (median of {ROUNDS} rounds)", median(&mut ratios));
    Ok(())
}

/// Calls a second.
async fn rate<C>(client: &CalculatorClient<C>) -> Result<f64, BoxError>
where
    C: GrpcService<Body> + Clone + Send + 'static,
    C::Error: Into<BoxError>,
    C::Future: Send,
    C::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <C::ResponseBody as http_body::Body>::Error: Into<BoxError> + Send,
{
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let mut client = client.clone();
        callers.spawn(async move {
            for n in 0..CALLS {
                let operation = BinaryOperation { a: f64::from(n), b: f64::from(caller) };
                let mut request = Request::new(operation);
                request.set_timeout(Duration::from_secs(30));
                client.add(request).await?;
            }
            Ok::<_, tonic::Status>(())
        });
    }
    while let Some(done) = callers.join_next().await {
        done??;
    }
    let took = Instant::now() - began;
    Ok(f64::from(CALLERS * CALLS) / took.as_secs_f64())
}
