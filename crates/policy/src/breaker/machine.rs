//! The state machine of one circuit: its word, the window of its rates, and what it has learned.

use super::{
    limits::Limits,
    pass::Pass,
    policy::{BreakerPolicy, Reason},
    state::{Admission, Cell, Change, Kind, Sample},
    suspects::Suspects,
    usual::Usual,
    window::Sliding,
};
use crate::{Code, Evidence, Rng, clock};
use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use tokio::time::Instant;

/// A circuit: what it admits, and what the ends of calls change.
///
/// It neither waits nor reports; where it returns a [`Turned`], its state has changed, and whoever
/// asked is to say so.
#[derive(Debug)]
pub struct Machine {
    policy: BreakerPolicy,
    limits: Limits,
    cell: Cell,
    window: Option<Sliding>,
    suspects: Suspects,
    usual: Usual,
    /// How often it has opened without having closed.
    openings: AtomicU32,
    began: Instant,
    rng: Rng,
}

/// Why the state has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turned {
    /// Why.
    pub reason: Reason,
    /// How many calls have opened it.
    pub calls: Option<u64>,
}

// === impl Machine ===

impl Machine {
    /// A closed circuit.
    pub fn new(policy: BreakerPolicy, rng: Rng, now: Instant) -> Self {
        Self {
            policy,
            limits: policy.limits(),
            cell: Cell::new(),
            window: policy.has_rates().then(|| Sliding::new(policy.window)),
            suspects: Suspects::default(),
            usual: Usual::default(),
            openings: AtomicU32::new(0),
            began: now,
            rng,
        }
    }

    /// Its state. An open circuit whose probe is due stays open until a call asks.
    #[inline]
    pub fn kind(&self) -> Kind {
        self.cell.kind()
    }

    /// When the next probe is admitted, while it is open.
    #[inline]
    pub fn next_probe_in(&self, now: Instant) -> Option<Duration> {
        self.cell.remaining(self.millis(now)).map(Duration::from_millis)
    }

    /// The share of failed calls in its window, 0 to 1; `None` without a window, or without calls
    /// in it.
    pub fn failure_rate(&self, now: Instant) -> Option<f64> {
        let counts = self.window.as_ref()?.read(self.nanos(now));
        (counts.calls > 0).then(|| counts.failed as f64 / counts.calls as f64)
    }

    /// Closes or isolates it, and clears the failures so far.
    pub fn force(&self, kind: Kind) -> Option<Turned> {
        self.clear_window();
        self.recovered();
        (self.cell.force(kind) != kind).then_some(Turned { reason: Reason::ByHand, calls: None })
    }

    /// Whether a call of this method ([`hash`](super::hash)) would be admitted.
    #[inline]
    pub fn would_admit(&self, method: impl FnOnce() -> u32, now: impl Fn() -> Instant) -> bool {
        let Self { cell, limits, suspects, .. } = self;
        cell.would_admit(limits, || self.millis(now()))
            || (cell.kind() != Kind::Isolated && !suspects.contains(method()))
    }

    /// Admits a call of this method, which must end with [`leave`](Self::leave).
    ///
    /// # Errors
    /// With how long it rejects calls, if that is known.
    #[inline]
    pub fn enter(
        &self,
        method: u32,
        now: impl Fn() -> Instant,
    ) -> (Result<Pass, Option<Duration>>, Option<Turned>) {
        let Self { cell, limits, suspects, .. } = self;
        let mut turned = None;
        let pass = match cell.admit(limits, || self.millis(now())) {
            Admission::Admitted(pass) => Ok(pass),
            Admission::HalfOpened(pass) => {
                turned = Some(Turned { reason: Reason::Waited, calls: None });
                Ok(pass)
            }
            Admission::Rejected(wait) => {
                let beside = (!suspects.contains(method)).then(|| cell.admit_beside());
                beside.flatten().ok_or(wait.map(Duration::from_millis))
            }
        };
        (pass.map(|pass| pass.of_method(method)), turned)
    }

    /// The head of a response has arrived, but not its end: returns the rest of the call's pass, if
    /// its end still counts.
    #[inline]
    pub fn answered(
        &self,
        pass: Pass,
        took: impl FnOnce() -> Duration,
        now: impl Fn() -> Instant,
    ) -> (Option<Pass>, Option<Turned>) {
        if !pass.awaits_head() {
            return (Some(pass), None);
        }
        let (slow, took) = (self.policy.slow, took());
        if slow.is_some_and(|slow| took >= slow.after) {
            return (None, self.leave(pass, Evidence::Good(Code::Ok), || took, now));
        }
        let (pass, change) = self.cell.answered(pass, &self.limits);
        let closes = change == Change::OnProbation;
        if closes {
            self.clear_window();
        }
        let turned = closes.then_some(Turned { reason: Reason::ProbeSucceeded, calls: None });
        (Some(pass), turned)
    }

    /// A call has ended: its outcome, the time to its head, and when.
    #[inline]
    pub fn leave(
        &self,
        pass: Pass,
        evidence: Evidence,
        took: impl FnOnce() -> Duration,
        now: impl Fn() -> Instant,
    ) -> Option<Turned> {
        let Self { policy, limits, cell, suspects, .. } = self;
        let outcome = policy.outcome(evidence);
        if outcome == Sample::Failure {
            suspects.add(pass.method());
        }
        let is_slow =
            outcome != Sample::Ignored && policy.slow.is_some_and(|slow| took() >= slow.after);
        let tripped = self.tripped(pass, outcome, is_slow, &now);
        let outcome = match cell.kind() {
            Kind::HalfOpen if is_slow => Sample::Failure,
            _ => outcome,
        };
        let millis = || self.millis(now());
        match cell.leave(pass, outcome, limits, millis, || self.until(now())) {
            Change::Nothing | Change::OnProbation => {}
            Change::Recovered => self.recovered(),
            Change::Opened(failures) => return self.opened(Reason::Failures, failures.into()),
            Change::ProbeFailed => return self.opened(Reason::ProbeFailed, 1),
            Change::Closed => {
                self.clear_window();
                self.recovered();
                return Some(Turned { reason: Reason::ProbeSucceeded, calls: None });
            }
        }
        let (reason, calls) = tripped?;
        if !cell.trip(pass, || self.until(now())) {
            return None;
        }
        // A rate counts all calls.
        suspects.add_all();
        self.opened(reason, calls)
    }

    /// Counts a call in the window: returns the rate that is too high, and the calls behind it.
    #[inline]
    fn tripped(
        &self,
        pass: Pass,
        outcome: Sample,
        is_slow: bool,
        now: impl Fn() -> Instant,
    ) -> Option<(Reason, u64)> {
        let window = self.window.as_ref()?;
        if outcome == Sample::Ignored || !self.cell.is_closed_since(pass) {
            return None;
        }
        let failed = outcome == Sample::Failure;
        let counts = window.record(failed, is_slow, || self.nanos(now()))?;
        self.policy.tripped(counts)
    }

    /// Until when it stays open, in milliseconds.
    fn until(&self, now: Instant) -> u64 {
        let openings = self.openings.load(Ordering::Relaxed).saturating_add(1);
        let delay = self.policy.backoff().delay(openings, &mut self.rng.draw());
        self.millis(now).saturating_add(clock::millis(delay)).max(1)
    }

    fn opened(&self, reason: Reason, calls: u64) -> Option<Turned> {
        self.openings.fetch_add(1, Ordering::Relaxed);
        Some(Turned { reason, calls: Some(calls) })
    }

    /// A call has succeeded.
    fn recovered(&self) {
        self.openings.store(0, Ordering::Relaxed);
        self.suspects.clear();
    }

    fn clear_window(&self) {
        if let Some(window) = &self.window {
            window.clear();
        }
    }

    /// Whether the time to the head of a response matters.
    #[inline]
    pub const fn needs_latency(&self) -> bool {
        self.policy.slow.is_some()
    }

    /// How long the heads of its responses take.
    #[inline]
    pub const fn usual(&self) -> &Usual {
        &self.usual
    }

    /// The time `now` in nanoseconds since its creation.
    #[inline]
    pub fn nanos(&self, now: Instant) -> u64 {
        clock::nanos(now.saturating_duration_since(self.began))
    }

    #[inline]
    fn millis(&self, now: Instant) -> u64 {
        clock::millis(now.saturating_duration_since(self.began))
    }
}
