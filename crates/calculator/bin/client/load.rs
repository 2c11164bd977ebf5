//! `load`: calls at a fixed rate, each at its time, whether or not others have ended.

use crate::{
    call::{Call, degraded},
    page::resolve,
};
use calculator::{
    pb::{BinaryOperation, CounterRequest},
    recovery::Recovery,
    watch::calls::Calls,
};
use cinchona::retry::Ledger;
use cinchona_plumbing::code;
use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use humantime::parse_duration;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, Write},
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, interval, sleep_until},
};
use tonic::{Extensions, Response, Status};

/// Latencies are measured from the time at which a call was due, not from the time at which it was
/// sent, so a server that stalls cannot hide the calls that it delayed (coordinated omission).
#[derive(Clone, Debug, Args)]
pub(crate) struct Load {
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

    /// Exit with 1 if the 99th percentile is over this
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    max_p99: Option<Duration>,

    /// Exit with 1 if more than this share of the calls fails, 0 to 1
    #[arg(long, value_name = "RATE", value_parser = rate)]
    max_failures: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Summary,
    Json,
}

/// What has been measured so far.
struct Seen {
    /// In microseconds.
    took: Histogram<u64>,
    codes: BTreeMap<&'static str, u64>,
    errors: BTreeMap<String, u64>,
    attempts: u64,
    degraded: u64,
    failed_attempts: Recovery,
}

/// The result, as JSON has it.
#[derive(Debug, Serialize)]
struct Report {
    calls: u64,
    succeeded: u64,
    failed: u64,
    attempts: u64,
    degraded: u64,
    /// Failed attempts, by what hid them from the caller.
    failed_attempts: Recovery,
    seconds: f64,
    rate: f64,
    latency_ms: BTreeMap<&'static str, f64>,
    codes: BTreeMap<&'static str, u64>,
    errors: BTreeMap<String, u64>,
    missed: Vec<String>,
}

const QUANTILES: [(&str, f64); 7] = [
    ("p50", 0.50),
    ("p75", 0.75),
    ("p90", 0.90),
    ("p95", 0.95),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("max", 1.0),
];

// === impl Load ===

impl Load {
    /// Whether there is to be a dashboard.
    pub(crate) const fn is_shown(&self) -> bool {
        self.dashboard.is_some()
    }

    /// Whether every threshold was kept.
    pub(crate) async fn run(self, call: &Call) -> Result<bool, Status> {
        let seen = Arc::new(Mutex::new(Seen::new()?));
        let calls = match self.dashboard {
            Some(address) => Some(call.page().serve(address).await?),
            None => None,
        };
        let began = Instant::now();
        let next = Arc::new(AtomicU64::new(0));
        let mut callers = JoinSet::new();
        for _ in 0..self.concurrency {
            let (load, call, seen, next) = (self.clone(), call.clone(), seen.clone(), next.clone());
            let calls = calls.clone();
            callers.spawn(async move {
                load.call_in_turn(&call, began, &next, &seen, calls.as_ref()).await
            });
        }
        let shown = tokio::spawn(show(seen.clone(), self.duration, began));
        let ended: Result<Vec<()>, Status> = callers.join_all().await.into_iter().collect();
        shown.abort();
        ended?;
        let report = lock(&seen).report(&self, Instant::now() - began);
        let text = match self.format {
            Format::Summary => report.text(),
            Format::Json => serde_json::to_string_pretty(&report).unwrap_or_default() + "\n",
        };
        _ = io::stdout().write_all(text.as_bytes());
        Ok(report.missed.is_empty())
    }

    /// Makes the calls that are due, one after the other, until none is left.
    async fn call_in_turn(
        &self,
        call: &Call,
        began: Instant,
        next: &AtomicU64,
        seen: &Mutex<Seen>,
        calls: Option<&Calls>,
    ) -> Result<(), Status> {
        let mut client = call.calculator();
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let due = Duration::from_secs(1).mul_f64(n as f64 / f64::from(self.rps));
            if due >= self.duration {
                return Ok(());
            }
            sleep_until(began + due).await;
            let called = Instant::now();
            if self.is_write(n) {
                let increment = CounterRequest { increment: 1, ..CounterRequest::default() };
                let outcome = client.increment_counter(call.request(increment)?).await;
                note(&outcome, Instant::now() - (began + due), called, seen, calls);
            } else {
                let outcome = client.add(call.request(BinaryOperation { a: 1.0, b: 2.0 })?).await;
                note(&outcome, Instant::now() - (began + due), called, seen, calls);
            }
        }
    }

    /// Writes are spread evenly.
    fn is_write(&self, n: u64) -> bool {
        let writes = |calls: u64| (calls as f64 * self.writes) as u64;
        writes(n + 1) > writes(n)
    }
}

fn note<T>(
    outcome: &Result<Response<T>, Status>,
    took: Duration,
    called: Instant,
    seen: &Mutex<Seen>,
    calls: Option<&Calls>,
) {
    calls.into_iter().for_each(|calls| calls.note(called, outcome));
    let is_degraded = outcome.as_ref().is_ok_and(|answer| degraded(answer).is_some());
    let mut seen = lock(seen);
    seen.degraded += u64::from(is_degraded);
    seen.note(took, outcome.as_ref().map(Response::extensions));
}

/// A line of progress, on a terminal.
async fn show(seen: Arc<Mutex<Seen>>, duration: Duration, began: Instant) {
    let bar = ProgressBar::new(duration.as_millis() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {elapsed} {msg}") {
        bar.set_style(style);
    }
    let mut ticks = interval(Duration::from_millis(200));
    loop {
        ticks.tick().await;
        bar.set_position((Instant::now() - began).as_millis() as u64);
        bar.set_message(lock(&seen).line());
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Seen ===

impl Seen {
    fn new() -> Result<Self, Status> {
        let took = Histogram::new(3).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Self {
            took,
            codes: BTreeMap::new(),
            errors: BTreeMap::new(),
            attempts: 0,
            degraded: 0,
            failed_attempts: Recovery::default(),
        })
    }

    fn note(&mut self, took: Duration, outcome: Result<&Extensions, &Status>) {
        // Not `saturating_record`: that takes all values for the greatest so far.
        _ = self.took.record(took.as_micros() as u64);
        self.failed_attempts += Recovery::of(outcome);
        let (code, ledger) = match outcome {
            Ok(extensions) => (tonic::Code::Ok, extensions.get::<Ledger>()),
            Err(status) => {
                // What follows a semicolon is different each time.
                let message = status.message().split(';').next().unwrap_or_default();
                *self.errors.entry(message.to_owned()).or_default() += 1;
                (status.code(), Ledger::of(status))
            }
        };
        *self.codes.entry(code::name(code)).or_default() += 1;
        self.attempts += ledger.map_or(1, |ledger| ledger.attempts().len() as u64);
    }

    fn succeeded(&self) -> u64 {
        self.codes.get("OK").copied().unwrap_or(0)
    }

    fn millis(&self, quantile: f64) -> f64 {
        self.took.value_at_quantile(quantile) as f64 / 1e3
    }

    fn line(&self) -> String {
        let failed = self.took.len() - self.succeeded();
        let (p50, p99) = (self.millis(0.5), self.millis(0.99));
        format!("{} calls, {failed} failed, p50 {p50:.1} ms, p99 {p99:.1} ms", self.took.len())
    }

    fn report(&self, load: &Load, took: Duration) -> Report {
        let (calls, succeeded) = (self.took.len(), self.succeeded());
        let failed = calls - succeeded;
        let mut missed = Vec::new();
        let p99 = self.millis(0.99);
        if load.max_p99.is_some_and(|most| p99 > most.as_secs_f64() * 1e3) {
            missed.push(format!("p99: {p99:.1} ms"));
        }
        let share = failed as f64 / calls.max(1) as f64;
        if load.max_failures.is_some_and(|most| share > most) {
            missed.push(format!("failures: {:.2} %", share * 100.0));
        }
        Report {
            calls,
            succeeded,
            failed,
            attempts: self.attempts,
            degraded: self.degraded,
            failed_attempts: self.failed_attempts,
            seconds: took.as_secs_f64(),
            rate: calls as f64 / took.as_secs_f64(),
            latency_ms: QUANTILES.map(|(name, q)| (name, self.millis(q))).into(),
            codes: self.codes.clone(),
            errors: self.errors.clone(),
            missed,
        }
    }
}

// === impl Report ===

impl Report {
    fn text(&self) -> String {
        let Self { calls, succeeded, failed, attempts, seconds, rate, .. } = self;
        let mut text = format!(
            "{calls} calls in {seconds:.1} s, {rate:.0} a second: {succeeded} succeeded, \
             {failed} failed, {attempts} attempts\n\nlatency, from when a call was due:\n"
        );
        for (name, _) in QUANTILES {
            let _ = writeln!(text, "  {name:<6}{:>10.2} ms", self.latency_ms[name]);
        }
        if self.degraded > 0 {
            let _ = writeln!(text, "\n{} answers were degraded", self.degraded);
        }
        if self.failed_attempts.all() > 0 {
            let _ = writeln!(text, "\nfailed attempts: {}", self.failed_attempts);
        }
        text.push_str("\nstatus:\n");
        for (code, count) in &self.codes {
            let _ = writeln!(text, "  {count:>8}  {code}");
        }
        if !self.errors.is_empty() {
            text.push_str("\nerrors:\n");
        }
        for (error, count) in &self.errors {
            let _ = writeln!(text, "  {count:>8}  {error}");
        }
        for missed in &self.missed {
            let _ = writeln!(text, "\nMISSED {missed}");
        }
        text
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.0..=1.0).contains(&rate) => Ok(rate),
        _ => Err("is not in 0 to 1".to_owned()),
    }
}
