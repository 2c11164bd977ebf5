//! The outcomes of a client's calls, as its callers see them.

use crate::{
    recent::{Recent, lock},
    recovery::Recovery,
};
use cinchona::{
    core::DEGRADED,
    dashboard::{Health, Tile},
    retry::{AttemptKind, Ledger},
};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};
use tokio::time::Instant;
use tonic::{Response, Status};

/// The outcomes of a client's calls; clones share them.
///
/// ```
/// use calculator::watch::calls::Calls;
/// use tokio::time::Instant;
/// use tonic::{Response, Status};
///
/// let calls = Calls::new();
/// let began = Instant::now();
/// let outcome: Result<Response<()>, _> = Err(Status::unavailable("down"));
/// calls.note(began, &outcome);
/// assert_eq!(calls.tiles()[0].numbers[0], ("failed".into(), 100.0, "%"));
/// ```
#[derive(Clone, Debug)]
pub struct Calls(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    recent: Recent,
    calls: AtomicU64,
    failed: AtomicU64,
    degraded: AtomicU64,
    retries: AtomicU64,
    hedges: AtomicU64,
    recovery: Mutex<Recovery>,
}

// === impl Calls ===

impl Calls {
    /// None yet.
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            recent: Recent::new(Instant::now()),
            calls: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            degraded: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            hedges: AtomicU64::new(0),
            recovery: Mutex::default(),
        }))
    }

    /// Notes a call that began then and ends now with `outcome`; its attempts are in its ledger.
    pub fn note<T>(&self, began: Instant, outcome: &Result<Response<T>, Status>) {
        let now = Instant::now();
        let answered = outcome.as_ref().map(Response::extensions);
        let ledger = match answered {
            Ok(extensions) => extensions.get::<Ledger>(),
            Err(status) => Ledger::of(status),
        };
        let attempts = ledger.map_or(&[][..], Ledger::attempts);
        let of = |kind| attempts.iter().filter(|attempt| attempt.kind == kind).count() as u64;
        let count = |counter: &AtomicU64, more: u64| counter.fetch_add(more, Ordering::Relaxed);
        count(&self.0.hedges, of(AttemptKind::Hedge));
        count(&self.0.retries, of(AttemptKind::Retry) + of(AttemptKind::Transparent));
        let is_degraded =
            |response: &Response<T>| response.metadata().contains_key(DEGRADED.as_str());
        count(&self.0.calls, 1);
        count(&self.0.failed, u64::from(outcome.is_err()));
        count(&self.0.degraded, u64::from(outcome.as_ref().is_ok_and(is_degraded)));
        *lock(&self.0.recovery) += Recovery::of(answered);
        self.0.recent.record(now, now - began, outcome.is_err(), attempts.len().max(1));
    }

    /// Their number, and how many of them failed.
    pub fn total(&self) -> (u64, u64) {
        (self.0.calls.load(Ordering::Relaxed), self.0.failed.load(Ordering::Relaxed))
    }

    /// The number of retries and of hedges.
    pub fn retries_and_hedges(&self) -> (u64, u64) {
        (self.0.retries.load(Ordering::Relaxed), self.0.hedges.load(Ordering::Relaxed))
    }

    /// A tile of the calls, one of their attempts, and one of what made up for failed attempts.
    pub fn tiles(&self) -> [Tile; 3] {
        let now = Instant::now();
        let recent = self.0.recent.summary(now);
        let (calls, failed) = self.total();
        let (retries, hedges) = self.retries_and_hedges();
        let degraded = self.0.degraded.load(Ordering::Relaxed);
        let number = |label: &str, value: u64| (label.to_owned(), value as f64, "");
        let labels = ["1", "2", "3", "4+"].map(str::to_owned);
        let health = match recent.failures() {
            failures if failures >= 5.0 => Health::Bad,
            failures if failures > 0.0 => Health::Warn,
            _ => Health::Good,
        };
        let calls = Tile {
            state: format!("{} of {} failed in the last 10 s", recent.failed, recent.calls),
            health,
            numbers: vec![
                ("failed".into(), recent.failures(), "%"),
                ("p50".into(), recent.p50, "ms"),
                ("p99".into(), recent.p99, "ms"),
                number("calls", calls),
                number("all failed", failed),
                number("degraded", degraded),
            ],
            spark: recent.per_second,
            spark_of: "calls/s".into(),
            heat: self.0.recent.heat(now),
            heat_of: "latency up to, last 30 s".into(),
            ..Tile::new("client", "calls")
        };
        let after = recent.attempts[1..].iter().sum::<u64>();
        let attempts = Tile {
            state: format!("{after} of {} took more than one", recent.calls),
            health: if 10 * after > recent.calls { Health::Warn } else { Health::Good },
            numbers: vec![number("retries", retries), number("hedges", hedges)],
            strip: labels.into_iter().zip(recent.attempts.map(|calls| calls as f64)).collect(),
            strip_of: "attempts per call, last 10 s".into(),
            ..Tile::new("client", "attempts")
        };
        [calls, attempts, self.recovered()]
    }

    fn recovered(&self) -> Tile {
        let recovery = *lock(&self.0.recovery);
        let Recovery { retry, failover, hedge, fallback, surfaced } = recovery;
        let number = |label: &str, count: u64| (label.to_owned(), count as f64, "");
        Tile {
            state: format!("{} of {} kept from callers", recovery.all() - surfaced, recovery.all()),
            numbers: vec![
                number("by retry", retry),
                number("by failover", failover),
                number("by hedge", hedge),
                number("by fallback", fallback),
                number("surfaced", surfaced),
            ],
            ..Tile::new("client", "failed attempts")
        }
    }
}

impl Default for Calls {
    /// None yet.
    fn default() -> Self {
        Self::new()
    }
}
