//! The eight scenarios: the faults, and the expected outcomes.

use crate::tally::Summary;
use calculator::{client::Settings, pb::BinaryOperation};
use cinchona::{core::Rng, fault::Faults, retry::RetryPolicy};
use std::time::Duration;
use tonic::{Code, Request};

/// What happens to a calculator and its client.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// The expected outcome, in words; `expect` checks it.
    pub(crate) expectation: &'static str,
    pub(crate) calls: u32,
    pub(crate) operation: Operation,
    pub(crate) faults: Faults,
    pub(crate) settings: Settings,
    /// When the server is gone for a second.
    pub(crate) away_at: Option<Duration>,
    expect: fn(&Summary) -> bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    Add,
    DivideByZero,
}

/// The pause between the starts of two calls.
pub(crate) const PACE: Duration = Duration::from_millis(50);

/// How long the server is gone.
pub(crate) const AWAY: Duration = Duration::from_secs(1);

/// All scenarios; the same `seed` gives the same faults and the same waits.
pub(crate) fn all(seed: u64) -> Vec<Scenario> {
    let scenarios = that_recover().into_iter().chain(that_do_not());
    scenarios.zip(seed..).map(|(scenario, seed)| scenario.seeded(seed)).collect()
}

/// The scenarios in which most calls succeed despite the faults.
fn that_recover() -> [Scenario; 4] {
    [
        Scenario {
            name: "normal",
            expectation: "every call succeeds at the first attempt",
            expect: |seen| seen.succeeded == seen.calls && seen.retries == 0,
            ..plain()
        },
        Scenario {
            name: "occasional timeouts",
            expectation: "at least 93 % succeed, where 30 % of attempts time out",
            faults: slow(0.3),
            expect: |seen| {
                seen.success_rate() >= 0.93 && seen.retries > 0 && seen.all_injected_were_seen()
            },
            ..plain()
        },
        Scenario {
            name: "30 % failures, UNAVAILABLE retried",
            expectation: "at least 93 % succeed",
            faults: failing(0.3),
            settings: also_unavailable(),
            expect: |seen| {
                seen.success_rate() >= 0.93 && seen.retries > 0 && seen.all_injected_were_seen()
            },
            ..plain()
        },
        Scenario {
            name: "server away for one second",
            expectation: "every call succeeds, and at most 8 connections are tried in all",
            settings: also_unavailable(),
            away_at: Some(Duration::from_millis(1500)),
            expect: |seen| seen.succeeded == seen.calls && seen.connects <= 8,
            ..plain()
        },
    ]
}

/// The scenarios in which calls have to fail.
fn that_do_not() -> [Scenario; 4] {
    [
        Scenario {
            name: "high failure rate",
            expectation: "30 to 70 % fail, none is retried: UNAVAILABLE was not named",
            faults: failing(0.5),
            expect: |seen| (0.3..=0.7).contains(&seen.failure_rate) && seen.retries == 0,
            ..plain()
        },
        Scenario {
            name: "combined",
            expectation: "timeouts are retried, failures are not: 50 to 90 % succeed",
            faults: Faults { failure_rate: 0.3, ..slow(0.2) },
            expect: |seen| (0.5..=0.9).contains(&seen.success_rate()) && seen.retries > 0,
            ..plain()
        },
        Scenario {
            name: "high delay, retries exhausted",
            expectation: "every call fails with DEADLINE_EXCEEDED after 4 attempts, within 20 s",
            calls: 16,
            faults: slow(1.0),
            expect: |seen| {
                seen.all_ended_with(Code::DeadlineExceeded)
                    && seen.attempts == 4 * seen.calls
                    && seen.p99 < Duration::from_secs(20)
            },
            ..plain()
        },
        Scenario {
            name: "division by zero",
            expectation: "every call fails with INVALID_ARGUMENT after exactly one attempt",
            operation: Operation::DivideByZero,
            settings: also_unavailable(),
            expect: |seen| {
                seen.all_ended_with(Code::InvalidArgument) && seen.attempts == seen.calls
            },
            ..plain()
        },
    ]
}

fn plain() -> Scenario {
    Scenario {
        name: "",
        expectation: "",
        calls: 100,
        operation: Operation::Add,
        faults: Faults::default(),
        settings: Settings { deadline: Some(Duration::from_secs(30)), ..Settings::default() },
        away_at: None,
        expect: |_| false,
    }
}

fn slow(slow_rate: f64) -> Faults {
    Faults { slow_rate, ..Faults::default() }
}

fn failing(failure_rate: f64) -> Faults {
    Faults { failure_rate, ..Faults::default() }
}

fn also_unavailable() -> Settings {
    let codes = [Code::DeadlineExceeded, Code::Unavailable];
    let retry = RetryPolicy::default().with_forced_codes(codes);
    Settings { retry, ..plain().settings }
}

// === impl Scenario ===

impl Scenario {
    fn seeded(mut self, seed: u64) -> Self {
        self.faults.seed = seed;
        self.settings.rng = Rng::seeded(seed);
        self
    }

    /// Whether the outcome is the expected one.
    pub(crate) fn holds(&self, seen: &Summary) -> bool {
        (self.expect)(seen)
    }

    /// The `n`th request, under an id that decides its faults, independent of other calls.
    pub(crate) fn request(&self, n: u32) -> Request<BinaryOperation> {
        let mut request = Request::new(BinaryOperation { a: f64::from(n), b: 0.0 });
        request.metadata_mut().insert("x-request-id", n.into());
        request
    }
}
