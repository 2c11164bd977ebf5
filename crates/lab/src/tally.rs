//! The outcomes of the calls of a scenario.

use cinchona::{fault::FaultCounters, retry::Ledger};
use cinchona_plumbing::code;
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};
use tonic::{Code, Extensions, Status};

/// One call, as its caller saw it.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) duration: Duration,
    pub(crate) code: Code,
    /// The code of each attempt.
    pub(crate) attempts: Vec<Code>,
}

/// A scenario's calls, added up.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) calls: usize,
    pub(crate) succeeded: usize,
    pub(crate) failed: usize,
    pub(crate) attempts: usize,
    pub(crate) retries: usize,
    pub(crate) attempts_per_call: f64,
    pub(crate) failure_rate: f64,
    #[serde(serialize_with = "millis", rename = "mean_ms")]
    pub(crate) mean: Duration,
    #[serde(serialize_with = "millis", rename = "p50_ms")]
    pub(crate) p50: Duration,
    #[serde(serialize_with = "millis", rename = "p95_ms")]
    pub(crate) p95: Duration,
    #[serde(serialize_with = "millis", rename = "p99_ms")]
    pub(crate) p99: Duration,
    /// The number of calls by status code.
    pub(crate) codes: BTreeMap<&'static str, usize>,
    /// How many calls took 1, 2, 3, ... attempts.
    pub(crate) by_attempts: Vec<usize>,
    /// The faults that the server injected, and the failed attempts of the same kind that the
    /// client saw.
    pub(crate) injected: Faulty,
    pub(crate) seen: Faulty,
    /// The number of times that the client tried to connect.
    pub(crate) connects: u64,
}

/// Attempts that went wrong, by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Faulty {
    pub(crate) failures: usize,
    pub(crate) delays: usize,
}

// === impl Record ===

impl Record {
    /// A call that took `duration`, and its ledger if there was a retry layer.
    pub(crate) fn new(duration: Duration, outcome: Result<&Extensions, &Status>) -> Self {
        let (code, ledger) = match outcome {
            Ok(extensions) => (Code::Ok, extensions.get::<Ledger>()),
            Err(status) => (status.code(), Ledger::of(status)),
        };
        let codes = |ledger: &Ledger| {
            ledger.attempts().iter().map(|attempt| attempt.verdict.code()).collect()
        };
        let attempts = ledger.map_or_else(|| vec![code], codes);
        Self { duration, code, attempts }
    }
}

// === impl Summary ===

impl Summary {
    /// Adds up `records`.
    pub(crate) fn new(records: &[Record], injected: &FaultCounters, connects: u64) -> Self {
        let calls = records.len();
        let succeeded = records.iter().filter(|record| record.code == Code::Ok).count();
        let attempts: usize = records.iter().map(|record| record.attempts.len()).sum();
        let share = |part: usize| part as f64 / calls.max(1) as f64;
        let mut durations: Vec<Duration> = records.iter().map(|record| record.duration).collect();
        durations.sort_unstable();
        let mut codes = BTreeMap::new();
        for record in records {
            *codes.entry(code::name(record.code)).or_default() += 1;
        }
        let most = records.iter().map(|record| record.attempts.len()).max().unwrap_or(0);
        let took = |n| records.iter().filter(|record| record.attempts.len() == n).count();
        let seen = |wanted| {
            records
                .iter()
                .flat_map(|record| &record.attempts)
                .filter(|code| **code == wanted)
                .count()
        };
        Self {
            calls,
            succeeded,
            failed: calls - succeeded,
            attempts,
            retries: attempts - calls,
            attempts_per_call: share(attempts),
            failure_rate: share(calls - succeeded),
            mean: durations.iter().sum::<Duration>() / u32::try_from(calls.max(1)).unwrap_or(1),
            p50: quantile(&durations, 0.50),
            p95: quantile(&durations, 0.95),
            p99: quantile(&durations, 0.99),
            codes,
            by_attempts: (1..=most).map(took).collect(),
            injected: Faulty {
                failures: (injected.failed_before + injected.failed_after) as usize,
                delays: injected.delayed as usize,
            },
            seen: Faulty {
                failures: seen(Code::Unavailable),
                delays: seen(Code::DeadlineExceeded),
            },
            connects,
        }
    }

    pub(crate) fn success_rate(&self) -> f64 {
        1.0 - self.failure_rate
    }

    pub(crate) fn all_ended_with(&self, code: Code) -> bool {
        self.codes.get(code::name(code)) == Some(&self.calls)
    }

    /// Whether the client has seen every fault that was injected.
    pub(crate) fn all_injected_were_seen(&self) -> bool {
        self.injected.failures <= self.seen.failures && self.injected.delays <= self.seen.delays
    }
}

/// The nearest-rank quantile of sorted values.
fn quantile(sorted: &[Duration], q: f64) -> Duration {
    let rank = (sorted.len() as f64 * q).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

fn millis<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 1e6).round() / 1e3)
}
