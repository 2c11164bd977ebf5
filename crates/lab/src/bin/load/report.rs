//! What the calls came to.

use calculator::recovery::Recovery;
use cinchona::retry::Ledger;
use cinchona_plumbing::code;
use clap::Args;
use hdrhistogram::{CreationError, Histogram};
use humantime::parse_duration;
use serde::Serialize;
use std::{collections::BTreeMap, fmt::Write, time::Duration};
use tonic::{Extensions, Status};

/// What the calls may come to.
#[derive(Clone, Debug, Args)]
pub(crate) struct Thresholds {
    /// Exit with 1 if the 99th percentile is over this
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    max_p99: Option<Duration>,

    /// Exit with 1 if more than this share of the calls fails, 0 to 1
    #[arg(long, value_name = "RATE", value_parser = rate)]
    max_failures: Option<f64>,
}

/// What has been measured so far.
pub(crate) struct Seen {
    /// In microseconds.
    took: Histogram<u64>,
    codes: BTreeMap<&'static str, u64>,
    errors: BTreeMap<String, u64>,
    attempts: u64,
    pub(crate) degraded: u64,
    failed_attempts: Recovery,
}

/// The result, as JSON has it.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
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
    /// The thresholds that were missed.
    pub(crate) missed: Vec<String>,
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

// === impl Seen ===

impl Seen {
    pub(crate) fn new() -> Result<Self, CreationError> {
        let took = Histogram::new(3)?;
        Ok(Self {
            took,
            codes: BTreeMap::new(),
            errors: BTreeMap::new(),
            attempts: 0,
            degraded: 0,
            failed_attempts: Recovery::default(),
        })
    }

    pub(crate) fn note(&mut self, took: Duration, outcome: Result<&Extensions, &Status>) {
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

    pub(crate) fn line(&self) -> String {
        let failed = self.took.len() - self.succeeded();
        let (p50, p99) = (self.millis(0.5), self.millis(0.99));
        format!("{} calls, {failed} failed, p50 {p50:.1} ms, p99 {p99:.1} ms", self.took.len())
    }

    pub(crate) fn report(&self, most: &Thresholds, took: Duration) -> Report {
        let (calls, succeeded) = (self.took.len(), self.succeeded());
        let failed = calls - succeeded;
        let mut missed = Vec::new();
        let p99 = self.millis(0.99);
        if most.max_p99.is_some_and(|most| p99 > most.as_secs_f64() * 1e3) {
            missed.push(format!("p99: {p99:.1} ms"));
        }
        let share = failed as f64 / calls.max(1) as f64;
        if most.max_failures.is_some_and(|most| share > most) {
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
    pub(crate) fn text(&self) -> String {
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

/// A share, from 0 to 1.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.0..=1.0).contains(&rate) => Ok(rate),
        _ => Err("is not in 0 to 1".to_owned()),
    }
}
