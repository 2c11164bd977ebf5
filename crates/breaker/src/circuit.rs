//! One circuit: its state machine, and its watchers.

use crate::BreakerPolicy;
use cinchona_core::{Evidence, Mode, Rejected, Rng};
use cinchona_plumbing::Count;
use cinchona_policy::breaker::{Kind, Machine, Pass, Turned, Usual};
use std::{fmt, sync::Arc, time::Duration};
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
    machine: Machine,
    rejected: Count,
    changes: watch::Sender<State>,
}

// === impl Circuit ===

impl Circuit {
    pub(crate) fn new(name: String, policy: BreakerPolicy, rng: Rng) -> Self {
        Self(Arc::new(Inner {
            name,
            machine: Machine::new(policy, rng, Instant::now()),
            rejected: Count::default(),
            changes: watch::Sender::new(State::Closed),
        }))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its state. An open circuit whose probe is due stays open until a call asks.
    pub fn state(&self) -> State {
        self.0.machine.kind().into()
    }

    /// When the next probe is admitted, while it is open.
    pub fn next_probe_in(&self) -> Option<Duration> {
        self.0.machine.next_probe_in(Instant::now())
    }

    /// How many calls it has rejected.
    pub fn rejected(&self) -> u64 {
        self.0.rejected.read()
    }

    /// The share of failed calls in its window, 0 to 1; `None` without a window (see
    /// [`BreakerPolicy::with_failure_rate`] and [`BreakerPolicy::with_slow_calls`]), or without
    /// calls in it.
    pub fn failure_rate(&self) -> Option<f64> {
        self.0.machine.failure_rate(Instant::now())
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
        self.report(self.0.machine.force(kind));
    }

    /// Whether a call of this method would be admitted.
    pub(crate) fn would_admit(
        &self,
        method: impl FnOnce() -> u32,
        now: impl Fn() -> Instant,
    ) -> bool {
        self.0.machine.would_admit(method, now)
    }

    /// Admits a call of this method, which must end with [`leave`](Self::leave). In shadow a call
    /// that is not admitted passes all the same, and is no rejected one.
    pub(crate) fn enter(
        &self,
        method: u32,
        mode: Mode,
        now: impl Fn() -> Instant,
    ) -> Result<Pass, Rejected> {
        let (pass, turned) = self.0.machine.enter(method, now);
        self.report(turned);
        pass.map_err(|wait| {
            if mode == Mode::Enforce {
                self.0.rejected.count();
            }
            Rejected::new("circuit breaker is open", wait)
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
        let (pass, turned) = self.0.machine.answered(pass, took, now);
        self.report(turned);
        pass
    }

    /// A call has ended: its outcome, the time to its head, and when.
    pub(crate) fn leave(
        &self,
        pass: Pass,
        evidence: Evidence,
        took: impl FnOnce() -> Duration,
        now: impl Fn() -> Instant,
    ) {
        self.report(self.0.machine.leave(pass, evidence.into(), took, now));
    }

    #[inline]
    fn report(&self, turned: Option<Turned>) {
        if let Some(turned) = turned {
            self.changed(turned);
        }
    }

    /// Reports each change once.
    #[cold]
    fn changed(&self, Turned { reason, calls }: Turned) {
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
        self.0.machine.nanos(now)
    }

    pub(crate) fn needs_latency(&self) -> bool {
        self.0.machine.needs_latency()
    }

    /// How long the heads of its responses take.
    pub(crate) fn usual(&self) -> &Usual {
        self.0.machine.usual()
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
