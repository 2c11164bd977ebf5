//! The same calculator by gRPC and by REST, end to end: `cargo xtask bench rest`.
//!
//! `Add` over loopback by 1, 16 and 64 callers, each of which asks again as soon as it is answered:
//! gRPC and REST over one connection of HTTP/2 for all of them, REST over a connection of HTTP/1.1
//! for each. *Layers on* is the worked example: the server's whole stack, and for gRPC the client's
//! too; for REST there is none. *Layers off* is tonic alone and axum alone, on both sides.
//!
//! All of them take turns in short rounds, so that whatever else the machine does falls on each,
//! and the figures are medians over the rounds. Clients and servers have a runtime each, as two
//! programs would (else a call could go there and back without a switch of threads), and share the
//! machine's cores. Bytes are counted on the server's side of its sockets, from the first header to
//! the last; opening a connection is part of the warm-up, which is in no figure.
//!
//! `--quick`, and `cargo test --bench rest`, run one short round, which shows that all of it works.

mod clients;
mod servers;

use cinchona::core::BoxError;
use clients::{Caller, Protocol};
use hdrhistogram::Histogram;
use servers::Running;
use std::{env, process::ExitCode, time::Duration};
use tokio::{runtime::Builder, task::JoinSet, time::Instant};

/// What is measured: one row of the table.
#[derive(Clone, Copy, Debug)]
struct Case {
    layers: bool,
    callers: usize,
    protocol: Protocol,
}

/// What came of a case in one round.
#[derive(Debug)]
struct Round {
    /// In µs, by [`PERCENTILES`].
    latencies: [f64; PERCENTILES.len()],
    /// A second.
    calls: f64,
    /// Bytes of a call and of its answer.
    wire: (f64, f64),
}

#[derive(Clone, Copy, Debug)]
struct Plan {
    rounds: usize,
    warm_up: Duration,
    measured: Duration,
}

const CALLERS: [usize; 3] = [1, 16, 64];
const PERCENTILES: [f64; 4] = [50.0, 90.0, 99.0, 99.9];

const WHOLE: Plan =
    Plan { rounds: 15, warm_up: Duration::from_millis(100), measured: Duration::from_millis(400) };
const QUICK: Plan =
    Plan { rounds: 1, warm_up: Duration::from_millis(20), measured: Duration::from_millis(60) };

fn main() -> Result<ExitCode, BoxError> {
    let args: Vec<String> = env::args().skip(1).collect();
    // cargo says `--bench` where this is to measure; as a test it gets what libtest would.
    let measures = args.iter().any(|arg| arg == "--bench");
    let unknown = args.iter().find(|arg| !matches!(arg.as_str(), "--bench" | "--quick"));
    if let (true, Some(unknown)) = (measures, unknown) {
        eprintln!("{unknown}: there is no option but --quick");
        return Ok(ExitCode::from(2));
    }
    if args.iter().any(|arg| arg == "--list") {
        return Ok(ExitCode::SUCCESS);
    }
    let quick = !measures || args.iter().any(|arg| arg == "--quick");
    let runtime = || Builder::new_multi_thread().enable_all().build();
    let (serving, calling) = (runtime()?, runtime()?);
    let (bare, whole) = {
        let _entered = serving.enter();
        (servers::bare()?, servers::whole()?)
    };
    calling.block_on(compare(if quick { QUICK } else { WHOLE }, &bare, &whole))?;
    Ok(ExitCode::SUCCESS)
}

async fn compare(plan: Plan, bare: &Running, whole: &Running) -> Result<(), BoxError> {
    let cases = cases();
    let mut rounds: Vec<Vec<Round>> = cases.iter().map(|_| Vec::new()).collect();
    for round in 0..plan.rounds {
        for turn in 0..cases.len() {
            // The order alternates between rounds.
            let at = (turn + 5 * round) % cases.len();
            let server = if cases[at].layers { whole } else { bare };
            rounds[at].push(run(cases[at], server, plan).await?);
        }
    }
    report(&cases, &rounds, plan);
    Ok(())
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for layers in [false, true] {
        for callers in CALLERS {
            let case = |protocol| Case { layers, callers, protocol };
            cases.extend(Protocol::ALL.map(case));
        }
    }
    cases
}

async fn run(case: Case, server: &Running, plan: Plan) -> Result<Round, BoxError> {
    let callers = clients::connect(case.protocol, case.layers, server.address, case.callers);
    let (callers, ..) = during(plan.warm_up, callers.await?).await?;
    let before = server.wire.now();
    let (_, latencies, took) = during(plan.measured, callers).await?;
    let wire = server.wire.now();
    let calls = latencies.len() as f64;
    let each = |after: u64, before: u64| (after - before) as f64 / calls;
    Ok(Round {
        latencies: PERCENTILES.map(|p| latencies.value_at_percentile(p) as f64 / 1000.0),
        calls: calls / took.as_secs_f64(),
        wire: (each(wire.0, before.0), each(wire.1, before.1)),
    })
}

/// Has all of them call for so long, and says how long each call took, in ns, and all of them.
async fn during(
    limit: Duration,
    callers: Vec<Caller>,
) -> Result<(Vec<Caller>, Histogram<u64>, Duration), BoxError> {
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for caller in callers {
        tasks.spawn(call_until(began + limit, caller));
    }
    let (mut callers, mut all) = (Vec::new(), Histogram::new(3)?);
    while let Some(done) = tasks.join_next().await {
        let (caller, latencies) = done??;
        all.add(latencies)?;
        callers.push(caller);
    }
    Ok((callers, all, Instant::now() - began))
}

async fn call_until(
    end: Instant,
    mut caller: Caller,
) -> Result<(Caller, Histogram<u64>), BoxError> {
    let mut latencies = Histogram::new(3)?;
    let mut now = Instant::now();
    for n in 0.. {
        // Numbers as people have them: a few digits in JSON, always eight bytes in protobuf.
        let (a, b) = (f64::from(n % 1000) + 0.5, 12.25);
        let sum = caller.add(a, b).await?;
        if sum != a + b {
            return Err(format!("{a} + {b} is not {sum}").into());
        }
        let began = std::mem::replace(&mut now, Instant::now());
        latencies.record((now - began).as_nanos() as u64)?;
        if now >= end {
            break;
        }
    }
    Ok((caller, latencies))
}

fn report(cases: &[Case], rounds: &[Vec<Round>], plan: Plan) {
    println!("| layers | callers | | p50 | p90 | p99 | p99.9 | calls/s | bytes sent | received |");
    println!("|---|---:|---|---:|---:|---:|---:|---:|---:|---:|");
    for (case, rounds) in cases.iter().zip(rounds) {
        let median = |of: &dyn Fn(&Round) -> f64| {
            let mut values: Vec<f64> = rounds.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let latencies: Vec<String> = (0..PERCENTILES.len())
            .map(|at| format!("{:.0} µs", median(&|round| round.latencies[at])))
            .collect();
        println!(
            "| {} | {} | {} | {} | {:.0} | {:.0} | {:.0} |",
            if case.layers { "on" } else { "off" },
            case.callers,
            case.protocol.name(),
            latencies.join(" | "),
            median(&|round| round.calls),
            median(&|round| round.wire.0),
            median(&|round| round.wire.1),
        );
    }
    let Plan { rounds, measured, .. } = plan;
    println!(
        "\nmedians of {rounds} rounds of {measured:?} each; client and server share the cores"
    );
}
