//! `calculator-demo`: the calculator under faults, with and without its layers.

mod accounts;
mod chart;
mod cluster;
mod endpoints;
mod entry;
mod live;
mod protection;
mod report;
mod run;
mod scenario;
mod site;
mod soak;
mod storm;
mod studies;
mod tally;
mod top;

use cinchona::core::BoxError;
use clap::{Parser, Subcommand};
use entry::{Ablation, Entry};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use report::Report;
use run::{Without, play};
use scenario::Scenario;
use site::Site;
use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};
use tokio::{runtime, task::JoinSet};

/// Runs eight scenarios of a calculator under faults, side by side, and reports the outcomes.
///
/// A table goes to stdout; report.md, report.json and report.html have charts as well. The exit
/// code is 1 if a scenario has an unexpected outcome.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    simulation: Option<Simulation>,

    /// Run in virtual time on an in-memory network, identically for the same seed
    #[arg(long = "virtual")]
    in_virtual_time: bool,

    /// Repeat each scenario, in virtual time, with each of the client's layers removed
    #[arg(long)]
    ablate: bool,

    /// The same seed gives the same faults and the same waits
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// The directory of the reports
    #[arg(long, value_name = "DIR", default_value = "target/demo")]
    out: PathBuf,

    #[command(flatten)]
    live: live::Page,
}

#[derive(Debug, Subcommand)]
enum Simulation {
    /// 1,000 clients, a server that crashes and returns, and what jitter changes
    Storm(storm::Args),
    /// Three servers that find each other by gossip; one is killed, one paused, one leaves
    Cluster(cluster::Args),
    /// Three servers, a client and faults for half an hour: memory and descriptors stay flat
    Soak(soak::Args),
    /// Prints what a dashboard shows as text: each second on a terminal, else once
    Top(top::Args),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let ran = match &args.simulation {
        Some(Simulation::Storm(storm)) => storm::run(storm),
        Some(Simulation::Cluster(cluster)) => cluster::run(cluster),
        Some(Simulation::Soak(soak)) => soak::run(soak),
        Some(Simulation::Top(top)) => top::run(top),
        None => match args.live.address() {
            Some(address) => live::run(&args.live, address),
            None => demo(&args),
        },
    };
    match ran {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether every scenario had the expected outcome.
fn demo(args: &Args) -> Result<bool, BoxError> {
    let (clock, mut entries) = if args.in_virtual_time {
        ("virtual time", virtual_time()?.block_on(in_virtual_time(args.seed, Without::Nothing))?)
    } else {
        ("real time on loopback sockets", real_time()?.block_on(on_sockets(args.seed))?)
    };
    if args.ablate {
        for (without, name) in Without::LAYERS {
            let removed = virtual_time()?.block_on(in_virtual_time(args.seed, without))?;
            for (entry, Entry { seen, .. }) in entries.iter_mut().zip(removed) {
                entry.ablations.push(Ablation { without: name, seen });
            }
        }
    }
    let studies = virtual_time()?.block_on(studies::run(args.seed))?;
    let report = Report { seed: args.seed, clock, scenarios: entries, studies };
    report.write(&args.out)?;
    write!(io::stdout(), "{}\nreports: {}\n", report.text(), args.out.display())?;
    Ok(report.all_met())
}

fn virtual_time() -> io::Result<runtime::Runtime> {
    runtime::Builder::new_current_thread().enable_all().start_paused(true).build()
}

fn real_time() -> io::Result<runtime::Runtime> {
    runtime::Builder::new_multi_thread().enable_all().build()
}

async fn in_virtual_time(seed: u64, without: Without) -> Result<Vec<Entry>, BoxError> {
    side_by_side(seed, |scenario| {
        play(scenario, |faults| Ok(Site::in_memory(faults)), without, || ())
    })
    .await
}

async fn on_sockets(seed: u64) -> Result<Vec<Entry>, BoxError> {
    let bars = MultiProgress::new();
    let style = ProgressStyle::with_template("{msg:<34} {bar:30} {pos:>3}/{len} {elapsed}")?;
    side_by_side(seed, |scenario| {
        let (name, calls) = (scenario.name, u64::from(scenario.calls));
        let bar = bars.add(ProgressBar::new(calls).with_style(style.clone()).with_message(name));
        let done = move || {
            bar.inc(1);
            // Not a terminal: a line for each quarter.
            if bar.is_hidden() && bar.position().is_multiple_of(calls.div_ceil(4)) {
                eprintln!("{name}: {}/{calls}", bar.position());
            }
            if bar.position() == calls {
                bar.abandon();
            }
        };
        play(scenario, Site::loopback, Without::Nothing, done)
    })
    .await
}

/// Plays all scenarios at once.
async fn side_by_side<F>(
    seed: u64,
    play: impl Fn(Arc<Scenario>) -> F,
) -> Result<Vec<Entry>, BoxError>
where
    F: Future<Output = Result<tally::Summary, BoxError>> + Send + 'static,
{
    // Made anew for each run: their jitter is drawn from the beginning.
    let scenarios: Vec<_> = scenario::all(seed).into_iter().map(Arc::new).collect();
    let mut playing = JoinSet::new();
    for (n, scenario) in scenarios.iter().enumerate() {
        let seen = play(scenario.clone());
        playing.spawn(async move { (n, seen.await) });
    }
    let mut seen = playing.join_all().await;
    seen.sort_unstable_by_key(|(n, _)| *n);
    let entry = |(n, seen): (usize, Result<_, _>)| Ok(Entry::new(&scenarios[n], seen?));
    seen.into_iter().map(entry).collect()
}
