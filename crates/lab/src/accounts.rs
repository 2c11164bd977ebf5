//! Accounts for every injected fault, in virtual time: three servers and a client, each with its
//! whole stack.

use crate::report::Study;
use calculator::{
    client::{Client, Settings, stack},
    methods,
    pb::{self, BinaryOperation, CounterRequest, calculator_client::CalculatorClient},
    recovery::Recovery,
    server::{self, dedup, serve},
    state::Memory,
};
use cinchona::{
    balance::{Balance, Options},
    core::{BoxError, PerMethod, Rng, Target},
    fallback::FallbackSettings,
    fault::{FaultLayer, Faults},
    retry::{HedgePolicy, Policy, RetryPolicy},
};
use cinchona_testkit::Network;
use http::Uri;
use prost::Message;
use std::{future::pending, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tonic::{Code, Extensions, Request, Status};
use tower::{ServiceExt, service_fn};

/// The kinds of calls, made in turn, and the layer that is to hide failures from their caller.
#[derive(Clone, Copy, Debug)]
enum Operation {
    /// Retried, at any server.
    Add,
    /// Hedged.
    Multiply,
    /// Retried at the server of its first attempt, since only that would recognise it.
    Increment,
    /// Not retried; there is a default.
    Divide,
    /// Nothing.
    Subtract,
}

const CALLS: u32 = 2000;
const PACE: Duration = Duration::from_millis(10);
const LIMIT: Duration = Duration::from_millis(300);

/// 2,000 calls to three servers, one of which fails, and one of which is slow.
pub(crate) async fn closed(seed: u64) -> Result<Study, BoxError> {
    let faults = [
        Faults { failure_rate: 0.15, seed, ..Faults::default() },
        Faults { slow_rate: 0.10, slow_delay: Duration::from_secs(5), seed, ..Faults::default() },
        Faults { failure_rate: 0.02, code: Code::Internal, seed, ..Faults::default() },
    ];
    let mut injected = Vec::new();
    let mut networks = Vec::new();
    for faults in faults {
        let (network, layer) = server(faults)?;
        networks.push(network);
        injected.push(layer);
    }
    let client = client(seed, networks)?;
    let began = Instant::now();
    let mut calls = JoinSet::new();
    for n in 0..CALLS {
        let client = client.clone();
        calls.spawn(async move {
            sleep_until(began + n * PACE).await;
            call(client, n).await
        });
    }
    let mut recovered = Recovery::default();
    while let Some(one) = calls.join_next().await {
        recovered += one?;
    }
    let injected: u64 = injected.iter().map(|layer| layer.counters().injected()).sum();
    Ok(study(injected, recovered))
}

fn study(injected: u64, recovered: Recovery) -> Study {
    let Recovery { retry, failover, hedge, fallback, surfaced } = recovered;
    let rows = [
        ("recovered by a retry at the same server", retry),
        ("by failover to another server", failover),
        ("by a hedge", hedge),
        ("by a fallback", fallback),
        ("surfaced: the caller saw it", surfaced),
        ("seen by the client", recovered.all()),
        ("injected by the servers", injected),
    ];
    let row = |(name, count): (&str, u64)| vec![name.to_owned(), count.to_string()];
    let headings = vec![String::new(), "faults".to_owned()];
    Study {
        question: "What became of every fault that was injected?",
        answer: format!(
            "Of {injected} in {CALLS} calls, {} never reached a caller.",
            recovered.all() - surfaced
        ),
        table: std::iter::once(headings).chain(rows.map(row)).collect(),
        chart: String::new(),
        expectation: "every one is seen once, and each way of recovery has some",
        met: injected == recovered.all()
            && [retry, failover, hedge, fallback, surfaced].iter().all(|count| *count > 0),
    }
}

/// A calculator with its faults, and how often they are injected.
fn server(faults: Faults) -> Result<(Network, FaultLayer), BoxError> {
    let (network, state) = (Network::new(), Memory::new());
    network.set_latency(Duration::from_millis(2));
    let faults = FaultLayer::new(faults)?;
    let layers = server::Layers::new(faults.clone(), dedup(state.clone()));
    tokio::spawn(serve(network.incoming(), state, layers, pending()));
    Ok((network, faults))
}

fn client(seed: u64, networks: Vec<Network>) -> Result<Client<Balance>, BoxError> {
    let rng = Rng::seeded(seed);
    let default = pb::Result::default().encode_to_vec();
    let fallback = FallbackSettings::new(methods()).with_default(
        "calculator.Calculator",
        "Divide",
        default,
    )?;
    let settings = Settings { timeout: LIMIT, fallback, rng: rng.clone(), ..Settings::default() };
    let layers = settings.layers()?;
    let codes = [Code::Unavailable, Code::DeadlineExceeded, Code::Internal];
    let retry = RetryPolicy::default().with_codes(codes)?;
    let hedge = HedgePolicy::default().with_delay(LIMIT / 3).with_non_fatal_codes(codes);
    let mut policies = PerMethod::new();
    for (method, policy) in [
        ("Add", Policy::from(retry)),
        ("IncrementCounter", Policy::from(retry)),
        ("Multiply", Policy::from(hedge)),
    ] {
        policies.insert("calculator.Calculator", method, policy)?;
    }
    layers.retry.set_policies(policies)?;
    let name = |n: usize| format!("http://{n}.servers").parse::<Uri>();
    let targets = (0..networks.len()).map(|n| Ok(Target::from(name(n)?)));
    let targets = targets.collect::<Result<Vec<_>, http::uri::InvalidUri>>()?;
    let connector = service_fn(move |uri: Uri| {
        let n = uri.host().and_then(|host| host.split('.').next()?.parse::<usize>().ok());
        let network = n.and_then(|n| networks.get(n)).cloned().unwrap_or_default();
        async move { network.connector().oneshot(uri).await }
    });
    let options = Options { rng, ..Options::default() };
    let balance = Balance::with_connector(targets, connector, options)?;
    Ok(CalculatorClient::new(stack(balance, &layers)))
}

/// The `n`th call, and the outcomes of its faults.
async fn call(mut client: Client<Balance>, n: u32) -> Recovery {
    use Operation::{Add, Divide, Increment, Multiply, Subtract};
    let operation = [Add, Multiply, Increment, Divide, Subtract][n as usize % 5];
    let numbers = named(n, BinaryOperation { a: f64::from(n), b: 2.0 });
    let outcome: Result<Extensions, Status> = match operation {
        Add => client.add(numbers).await.map(extensions),
        Multiply => client.multiply(numbers).await.map(extensions),
        Divide => client.divide(numbers).await.map(extensions),
        Subtract => client.subtract(numbers).await.map(extensions),
        Increment => {
            let request = CounterRequest { request_id: format!("increment {n}"), increment: 1 };
            client.increment_counter(named(n, request)).await.map(extensions)
        }
    };
    Recovery::of(outcome.as_ref())
}

/// Faults are drawn by this name, the same for the same seed.
fn named<T>(n: u32, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-request-id", n.into());
    request
}

fn extensions<T>(response: tonic::Response<T>) -> Extensions {
    response.into_parts().2
}
