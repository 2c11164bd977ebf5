//! One circuit: its state, the window of its rates, and its watchers.

use crate::{
    BreakerPolicy,
    limits::Limits,
    pass::Pass,
    policy::Reason,
    state::{Admission, Cell, Change, Kind, Sample},
    suspects::Suspects,
    usual::Usual,
    window::Sliding,
};
use cinchona_core::{Evidence, Rejected, Rng};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// A circuit of a breaker: of one endpoint, or of one method of it. Clones share it.
///
/// # Example
///
/// ```
/// use cinchona_breaker::{BreakerLayer, BreakerPolicy, State};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// let layer = BreakerLayer::new(BreakerPolicy::default());
/// let circuit = layer.circuit("/calculator.Calculator/Add");
/// let mut changes = circuit.watch();
/// circuit.open();
/// assert_eq!(circuit.state(), State::Isolated);
/// changes.changed().await.unwrap();
/// circuit.close();
/// assert_eq!(*changes.borrow_and_update(), State::Closed);
/// # }
/// ```
#[derive(Clone)]
pub struct Circuit(Arc<Inner>);

/// The state of a circuit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Calls are let through.
    #[default]
    Closed,
    /// Calls are rejected until the next probe is due.
    Open,
    /// A few calls are admitted as probes; their outcome decides.
    HalfOpen,
    /// Calls are rejected until [`Circuit::close`].
    Isolated,
}

struct Inner {
    name: String,
    policy: BreakerPolicy,
    limits: Limits,
    cell: Cell,
    window: Option<Sliding>,
    suspects: Suspects,
    usual: Usual,
    /// How often it has opened without having closed.
    openings: AtomicU32,
    rejected: AtomicU64,
    began: Instant,
    rng: Rng,
    changes: watch::Sender<State>,
}

// === impl Circuit ===

impl Circuit {
    pub(crate) fn new(name: String, policy: BreakerPolicy, rng: Rng) -> Self {
        Self(Arc::new(Inner {
            name,
            policy,
            limits: policy.limits(),
            cell: Cell::new(),
            window: policy.has_rates().then(|| Sliding::new(policy.window)),
            suspects: Suspects::default(),
            usual: Usual::default(),
            openings: AtomicU32::new(0),
            rejected: AtomicU64::new(0),
            began: Instant::now(),
            rng,
            changes: watch::Sender::new(State::Closed),
        }))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its state. An open circuit whose probe is due stays open until a call asks.
    pub fn state(&self) -> State {
        self.0.cell.kind().into()
    }

    /// When the next probe is admitted, while it is open.
    pub fn next_probe_in(&self) -> Option<Duration> {
        self.0.cell.remaining(self.0.millis(Instant::now())).map(Duration::from_millis)
    }

    /// How many calls it has rejected.
    pub fn rejected(&self) -> u64 {
        self.0.rejected.load(Ordering::Relaxed)
    }

    /// The share of failed calls in its window, 0 to 1; `None` without a window (see
    /// [`BreakerPolicy::with_failure_rate`] and [`BreakerPolicy::with_slow_calls`]), or without
    /// calls in it.
    pub fn failure_rate(&self) -> Option<f64> {
        let counts = self.0.window.as_ref()?.read(self.0.nanos(Instant::now()));
        (counts.calls > 0).then(|| counts.failed as f64 / counts.calls as f64)
    }

    /// Its state as it changes. A slow watcher sees only the latest.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.0.changes.subscribe()
    }

    /// Rejects all calls until it is closed: for maintenance.
    pub fn open(&self) {
        self.force(Kind::Isolated);
    }

    /// Closes it, and clears the failures so far.
    pub fn close(&self) {
        self.force(Kind::Closed);
    }

    fn force(&self, kind: Kind) {
        self.clear_window();
        self.recovered();
        if self.0.cell.force(kind) != kind {
            self.changed(Reason::ByHand, None);
        }
    }

    /// Whether a call of this method would be admitted.
    pub(crate) fn would_admit(
        &self,
        method: impl FnOnce() -> u32,
        now: impl Fn() -> Instant,
    ) -> bool {
        let Inner { cell, limits, suspects, .. } = &*self.0;
        cell.would_admit(limits, || self.0.millis(now()))
            || (cell.kind() != Kind::Isolated && !suspects.contains(method()))
    }

    /// Admits a call of this method, which must end with [`leave`](Self::leave).
    pub(crate) fn enter(&self, method: u32, now: impl Fn() -> Instant) -> Result<Pass, Rejected> {
        let Inner { cell, limits, suspects, rejected, .. } = &*self.0;
        let pass = match cell.admit(limits, || self.0.millis(now())) {
            Admission::Admitted(pass) => Ok(pass),
            Admission::HalfOpened(pass) => {
                self.changed(Reason::Waited, None);
                Ok(pass)
            }
            Admission::Rejected(wait) => {
                let beside = (!suspects.contains(method)).then(|| cell.admit_beside());
                beside.flatten().ok_or(wait)
            }
        };
        pass.map(|pass| pass.of_method(method)).map_err(|wait| {
            rejected.fetch_add(1, Ordering::Relaxed);
            Rejected::new("circuit breaker is open", wait.map(Duration::from_millis))
        })
    }

    /// The head of a response has arrived, but not its end: returns the rest of the call's pass, if
    /// its end still counts.
    pub(crate) fn answered(
        &self,
        pass: Pass,
        took: impl FnOnce() -> Duration,
        now: impl Fn() -> Instant,
    ) -> Option<Pass> {
        if !pass.awaits_head() {
            return Some(pass);
        }
        let (slow, took) = (self.0.policy.slow, took());
        if slow.is_some_and(|slow| took >= slow.after) {
            self.leave(pass, Evidence::Good(tonic::Code::Ok), || took, now);
            return None;
        }
        let (pass, change) = self.0.cell.answered(pass, &self.0.limits);
        if change == Change::OnProbation {
            self.clear_window();
            self.changed(Reason::ProbeSucceeded, None);
        }
        Some(pass)
    }

    /// A call has ended: its outcome, the time to its head, and when.
    pub(crate) fn leave(
        &self,
        pass: Pass,
        evidence: Evidence,
        took: impl FnOnce() -> Duration,
        now: impl Fn() -> Instant,
    ) {
        let Inner { policy, limits, cell, suspects, .. } = &*self.0;
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
        let millis = || self.0.millis(now());
        match cell.leave(pass, outcome, limits, millis, || self.until(now())) {
            Change::Nothing | Change::OnProbation => {}
            Change::Recovered => self.recovered(),
            Change::Opened(failures) => return self.opened(Reason::Failures, failures.into()),
            Change::ProbeFailed => return self.opened(Reason::ProbeFailed, 1),
            Change::Closed => {
                self.clear_window();
                self.recovered();
                return self.changed(Reason::ProbeSucceeded, None);
            }
        }
        if let Some((reason, calls)) = tripped
            && cell.trip(pass, || self.until(now()))
        {
            // A rate counts all calls.
            suspects.add_all();
            self.opened(reason, calls);
        }
    }

    /// Counts a call in the window: returns the rate that is too high, and the calls behind it.
    fn tripped(
        &self,
        pass: Pass,
        outcome: Sample,
        is_slow: bool,
        now: impl Fn() -> Instant,
    ) -> Option<(Reason, u64)> {
        let window = self.0.window.as_ref()?;
        if outcome == Sample::Ignored || !self.0.cell.is_closed_since(pass) {
            return None;
        }
        let failed = outcome == Sample::Failure;
        let counts = window.record(failed, is_slow, || self.0.nanos(now()))?;
        self.0.policy.tripped(counts)
    }

    /// Until when it stays open, in milliseconds.
    fn until(&self, now: Instant) -> u64 {
        let openings = self.0.openings.load(Ordering::Relaxed).saturating_add(1);
        let delay = self.0.policy.backoff().delay(openings, &mut self.0.rng.draw());
        let delay = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.0.millis(now).saturating_add(delay).max(1)
    }

    fn opened(&self, reason: Reason, calls: u64) {
        self.0.openings.fetch_add(1, Ordering::Relaxed);
        self.changed(reason, Some(calls));
    }

    /// A call has succeeded.
    fn recovered(&self) {
        self.0.openings.store(0, Ordering::Relaxed);
        self.0.suspects.clear();
    }

    fn clear_window(&self) {
        if let Some(window) = &self.0.window {
            window.clear();
        }
    }

    /// Reports each change once.
    fn changed(&self, reason: Reason, calls: Option<u64>) {
        // The last of concurrent reporters publishes the current state.
        self.0.changes.send_if_modified(|published| {
            let state = self.state();
            std::mem::replace(published, state) != state
        });
        let (circuit, state, reason) = (self.name(), self.state(), reason.name());
        let probe_in = self.next_probe_in();
        tracing::info!(circuit, ?state, reason, calls, ?probe_in, "circuit breaker");
    }

    /// The time `now` in nanoseconds since its creation.
    pub(crate) fn nanos(&self, now: Instant) -> u64 {
        self.0.nanos(now)
    }

    pub(crate) fn needs_latency(&self) -> bool {
        self.0.policy.slow.is_some()
    }

    /// How long the heads of its responses take.
    pub(crate) fn usual(&self) -> &Usual {
        &self.0.usual
    }
}

impl fmt::Debug for Circuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, state, rejected) = (self.name(), self.state(), self.rejected());
        f.debug_struct("Circuit")
            .field("name", &name)
            .field("state", &state)
            .field("rejected", &rejected)
            .finish_non_exhaustive()
    }
}

// === impl Inner ===

impl Inner {
    fn nanos(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.began);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    fn millis(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.began);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

// === impl State ===

impl From<Kind> for State {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Closed => Self::Closed,
            Kind::Open => Self::Open,
            Kind::HalfOpen => Self::HalfOpen,
            Kind::Isolated => Self::Isolated,
        }
    }
}
