//! What a pick costs with 3, 100 and 1,000 endpoints: `cargo xtask bench balance`.
//!
//! Measured is a call that is picked for, handed to its endpoint's channel and given up before it
//! is sent. The connections are real, in memory.

use cinchona::{
    balance::{Balance, Options, Picker, State},
    core::{Rng, Target},
};
use cinchona_testkit::{Network, Serving};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{Request, Uri};
use std::{collections::HashMap, convert::Infallible, hint::black_box, time::Duration};
use tonic::{Status, body::Body};
use tower::{Service, ServiceExt, service_fn};

/// A balancer over so many endpoints, once all are connected.
async fn connected(count: usize, picker: Picker) -> (Balance, Vec<Serving>) {
    let networks: HashMap<String, Network> =
        (0..count).map(|n| (format!("e{n}"), Network::new())).collect();
    let answer = service_fn(|_: Request<Body>| async {
        Ok::<_, Infallible>(Status::ok("").into_http::<Body>())
    });
    let serving = networks.values().map(|network| network.serve_service(answer)).collect();
    let target = |name: &String| -> Target {
        format!("http://{name}").parse::<Uri>().expect("an address").into()
    };
    let targets: Vec<Target> = networks.keys().map(target).collect();
    let connector = service_fn(move |uri: Uri| {
        let network = networks[uri.host().unwrap_or_default()].clone();
        async move { network.connector().oneshot(uri).await }
    });
    let options = Options { picker, rng: Rng::seeded(1), ..Options::default() };
    let balance = Balance::with_connector(targets, connector, options).expect("allowed");
    let ready = || balance.states().iter().filter(|seen| seen.state == State::Ready).count();
    while ready() < count {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    (balance, serving)
}

fn picks(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime");
    for picker in [Picker::PeakEwma, Picker::RoundRobin, Picker::WeightedRoundRobin] {
        let mut group = c.benchmark_group(format!("balance/{picker:?}"));
        for count in [3, 100, 1000] {
            let (mut balance, _serving) = runtime.block_on(connected(count, picker));
            let _entered = runtime.enter();
            group.bench_function(BenchmarkId::from_parameter(count), |bench| {
                bench.iter(|| {
                    let request = Request::new(Body::empty());
                    black_box(balance.call(request));
                });
            });
        }
    }
}

criterion_group!(benches, picks);
criterion_main!(benches);
