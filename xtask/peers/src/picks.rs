//! What a pick of our balancer costs: `cargo xtask bench balance` prints this alone.
//!
//! Measured is a call that is picked for, handed to its endpoint's channel and given up before it
//! is sent. The connections are real, in memory.

use crate::harness::{ROUNDS, Table, median, per_call};
use cinchona::{
    balance::{Balance, Options, Picker, State},
    core::{Rng, Target},
};
use cinchona_testkit::{Network, Serving};
use http::{Request, Response, Uri};
use std::{collections::HashMap, convert::Infallible, hint::black_box, time::Duration};
use tokio::{runtime::Runtime, time::Instant};
use tonic::body::Body;
use tower::{Service, ServiceExt, service_fn};

const PICKERS: [Picker; 3] = [Picker::PeakEwma, Picker::RoundRobin, Picker::WeightedRoundRobin];
const COUNTS: [usize; 3] = [3, 100, 1000];
const PICKS: u64 = 2000;

/// Measures all of them.
pub(crate) fn table(runtime: &Runtime) -> Table {
    let all = PICKERS.iter().flat_map(|&picker| COUNTS.map(|count| (picker, count)));
    let mut all: Vec<_> =
        all.map(|(picker, count)| runtime.block_on(connected(count, picker))).collect();
    let mut nanos = vec![Vec::new(); all.len()];
    for _ in 0..ROUNDS {
        for ((balance, _), nanos) in all.iter_mut().zip(&mut nanos) {
            nanos.push(picks(runtime, balance));
        }
    }
    let medians: Vec<String> =
        nanos.into_iter().map(|nanos| format!("{:.0}", median(nanos))).collect();
    let rows = PICKERS.iter().zip(medians.chunks(COUNTS.len()));
    let head = COUNTS.iter().map(|count| format!("{count} endpoints"));
    Table {
        title: format!("picks of cinchona's balancer: ns per call, median of {ROUNDS} rounds"),
        head: std::iter::once("picker".to_owned()).chain(head).collect(),
        rows: rows.map(|(picker, row)| [&[format!("{picker:?}")], row].concat()).collect(),
    }
}

/// A balancer over so many endpoints, once all are connected.
async fn connected(count: usize, picker: Picker) -> (Balance, Vec<Serving>) {
    let networks: HashMap<String, Network> =
        (0..count).map(|n| (format!("e{n}"), Network::new())).collect();
    let answer =
        service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
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

/// Nanoseconds for each pick.
fn picks(runtime: &Runtime, balance: &mut Balance) -> f64 {
    let mut nanos = f64::NAN;
    {
        let _entered = runtime.enter();
        allocation_counter::opt_out(|| {
            let began = Instant::now();
            for _ in 0..PICKS {
                let request = Request::new(Body::empty());
                black_box(balance.call(request));
            }
            nanos = per_call(Instant::now() - began, PICKS);
        });
    }
    // Lets the channels drop what was given up.
    runtime.block_on(async { tokio::time::sleep(Duration::from_millis(2)).await });
    nanos
}
