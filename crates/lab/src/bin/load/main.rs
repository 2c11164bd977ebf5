//! `calculator-load`: calls at a fixed rate, each at its time, whether or not others have ended.

mod page;
mod report;

use calculator::{
    client::Client,
    endpoints::Endpoints,
    options::{Callable, Options, resolve},
    pb::{BinaryOperation, CounterRequest},
    watch::calls::Calls,
};
use cinchona::{
    balance::Balance,
    core::{BoxError, DEGRADED},
};
use clap::{Args, CommandFactory, Parser, ValueEnum, error::ErrorKind};
use humantime::parse_duration;
use indicatif::{ProgressBar, ProgressStyle};
use page::Page;
use report::{Seen, Thresholds, rate};
use std::{
    fmt::Display,
    io::{self, Write},
    net::SocketAddr,
    process::ExitCode,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, interval, sleep_until},
};
use tonic::{Response, Status};

/// Calls a calculator server at a fixed rate through the resilience layers of a client, and reports
/// latencies and failures.
///
/// Latencies are measured from the time at which a call was due, not from the time at which it was
/// sent, so a server that stalls cannot hide the calls that it delayed (coordinated omission).
///
/// The report goes to stdout, the log to stderr (RUST_LOG sets its level). The exit code is 0 when
/// every threshold was met, 1 when one was missed or no server was found, 2 when the command line
/// is wrong.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    options: Options,
}

/// What is called, and how long.
#[derive(Clone, Debug, Args)]
struct Load {
    /// The most calls in progress at a time
    #[arg(short, long, value_name = "N", default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: u32,

    /// How long the load lasts
    #[arg(short = 'z', long, value_name = "TIME", default_value = "10s")]
    #[arg(value_parser = parse_duration)]
    duration: Duration,

    /// The number of calls per second
    #[arg(long, value_name = "N", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    rps: u32,

    /// The share of the calls, 0 to 1, that add 1 to the counter; the others add two numbers
    #[arg(long, value_name = "RATE", value_parser = rate, default_value_t = 0.0)]
    writes: f64,

    /// The format of the result
    #[arg(short = 'O', long, value_enum, default_value = "summary")]
    format: Format,

    /// While the load runs, serve a dashboard of the client and Prometheus metrics (/metrics) at
    /// this address, which is printed to stderr
    #[arg(long, value_name = "HOST:PORT", value_parser = resolve)]
    dashboard: Option<SocketAddr>,

    #[command(flatten)]
    most: Thresholds,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Summary,
    Json,
}

/// What the callers share.
struct Shared {
    options: Options,
    began: Instant,
    /// The number of the next call.
    next: AtomicU64,
    seen: Mutex<Seen>,
    /// What the dashboard shows.
    calls: Option<Calls>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Cli { load, options } = Cli::parse();
    let telemetry = options.logs.begin("calculator-load").unwrap_or_else(|no| usage(&no));
    let watched = load.dashboard.map(|_| Endpoints::default());
    let callable = match options.connect(watched.as_ref()).await {
        Ok(callable) => callable,
        Err(refused) => return refused.report(Cli::command()),
    };
    telemetry.send(&callable.layers.metrics).unwrap_or_else(|invalid| usage(&invalid));
    let ran = load.run(&callable, watched.unwrap_or_default(), options).await;
    // What was called is still there, so what it has counted is sent with all else.
    telemetry.flush().await;
    match ran {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn usage(error: &dyn Display) -> ! {
    Cli::command().error(ErrorKind::ValueValidation, error).exit()
}

// === impl Load ===

impl Load {
    /// Whether every threshold was kept.
    async fn run(
        self,
        callable: &Callable,
        watched: Endpoints,
        options: Options,
    ) -> Result<bool, BoxError> {
        let calls = match self.dashboard {
            Some(address) => Some(Page::new(callable, watched).serve(address).await?),
            None => None,
        };
        let Callable { endpoints, layers } = callable.clone();
        let client = calculator::client::client(endpoints, &layers);
        let (seen, next, began) = (Mutex::new(Seen::new()?), AtomicU64::new(0), Instant::now());
        let shared = Arc::new(Shared { options, began, next, seen, calls });
        let mut callers = JoinSet::new();
        for _ in 0..self.concurrency {
            let (load, client, shared) = (self.clone(), client.clone(), shared.clone());
            callers.spawn(async move { load.call_in_turn(client, &shared).await });
        }
        let shown = tokio::spawn(show(shared.clone(), self.duration));
        let ended: Result<Vec<()>, Status> = callers.join_all().await.into_iter().collect();
        shown.abort();
        ended.map_err(|status| status.message().to_owned())?;
        let report = shared.seen().report(&self.most, Instant::now() - began);
        let text = match self.format {
            Format::Summary => report.text(),
            Format::Json => serde_json::to_string_pretty(&report)? + "\n",
        };
        // A closed pipe means that the reader has seen enough.
        _ = io::stdout().write_all(text.as_bytes());
        Ok(report.missed.is_empty())
    }

    /// Makes the calls that are due, one after the other, until none is left.
    async fn call_in_turn(
        &self,
        mut client: Client<Balance>,
        shared: &Shared,
    ) -> Result<(), Status> {
        let options = &shared.options;
        loop {
            let n = shared.next.fetch_add(1, Ordering::Relaxed);
            let due = Duration::from_secs(1).mul_f64(n as f64 / f64::from(self.rps));
            if due >= self.duration {
                return Ok(());
            }
            let due = shared.began + due;
            sleep_until(due).await;
            let called = Instant::now();
            if self.is_write(n) {
                let increment = CounterRequest { increment: 1, ..CounterRequest::default() };
                let outcome = client.increment_counter(options.request(increment)?).await;
                shared.note(&outcome, due, called);
            } else {
                let sum = BinaryOperation { a: 1.0, b: 2.0 };
                let outcome = client.add(options.request(sum)?).await;
                shared.note(&outcome, due, called);
            }
        }
    }

    /// Writes are spread evenly.
    fn is_write(&self, n: u64) -> bool {
        let writes = |calls: u64| (calls as f64 * self.writes) as u64;
        writes(n + 1) > writes(n)
    }
}

// === impl Shared ===

impl Shared {
    fn note<T>(&self, outcome: &Result<Response<T>, Status>, due: Instant, called: Instant) {
        self.calls.iter().for_each(|calls| calls.note(called, outcome));
        let is_degraded =
            outcome.as_ref().is_ok_and(|answer| answer.metadata().contains_key(DEGRADED.as_str()));
        let mut seen = self.seen();
        seen.degraded += u64::from(is_degraded);
        seen.note(Instant::now() - due, outcome.as_ref().map(Response::extensions));
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A line of progress, on a terminal.
async fn show(shared: Arc<Shared>, duration: Duration) {
    let bar = ProgressBar::new(duration.as_millis() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {elapsed} {msg}") {
        bar.set_style(style);
    }
    let mut ticks = interval(Duration::from_millis(200));
    loop {
        ticks.tick().await;
        bar.set_position((Instant::now() - shared.began).as_millis() as u64);
        bar.set_message(shared.seen().line());
    }
}
