//! Whether a peer is alive: its heartbeats, the calls to it, and pauses of this process.

mod hearing;
mod phi;

pub use hearing::Hearing;
pub use phi::Phi;

use phi::Detector;
use std::time::Duration;
use tokio::time::Instant;

/// The state of a node in this node's view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Heartbeats arrive.
    Alive,
    /// Its heartbeat is late; it may be gone.
    Suspected,
    /// It is taken to be gone. It still counts as a member.
    Failed,
    /// It has left, was replaced, or was forgotten by an operator.
    Left,
}

/// How the state of a peer has changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// Its heartbeat is late.
    Suspected {
        /// How certain it is that it is gone.
        phi: f64,
    },
    /// It is taken to be gone.
    Failed,
    /// It is heard again.
    Recovered,
}

/// What is known of one peer's health.
#[derive(Clone, Debug)]
pub struct Suspicion {
    settings: Phi,
    detector: Detector,
    state: State,
    failures: u32,
    last_failure: Option<Instant>,
}

/// Notices that this process did not run for some time.
#[derive(Clone, Copy, Debug)]
pub struct OwnPause {
    every: Duration,
    tolerated: Duration,
    last: Option<Instant>,
}

/// This many failed calls in a row support a suspicion.
const FAILING: u32 = 3;
/// How long a failed call counts.
const FAILED_LATELY: Duration = Duration::from_secs(5);

// === impl Suspicion ===

impl Suspicion {
    /// A peer that was not heard yet.
    pub fn new(settings: Phi) -> Self {
        let detector = Detector::new(settings);
        Self { settings, detector, state: State::Alive, failures: 0, last_failure: None }
    }

    /// Its state.
    pub const fn state(&self) -> State {
        self.state
    }

    /// Its phi: 0 before the first heartbeat.
    pub fn phi(&self, now: Instant) -> f64 {
        self.detector.phi(now)
    }

    /// The intervals between its heartbeats, oldest first.
    pub fn history(&self) -> impl Iterator<Item = Duration> {
        self.detector.history()
    }

    /// A heartbeat arrived.
    #[inline]
    pub fn heartbeat(&mut self, now: Instant) {
        self.detector.heartbeat(now);
    }

    /// This process did not run for so long, so the silence was not the peer's.
    pub fn forgive(&mut self, pause: Duration) {
        self.detector.forgive(pause);
    }

    /// A call to it failed as if it were unreachable.
    pub fn report_failure(&mut self, now: Instant) {
        let since = self.last_failure.map(|last| now.saturating_duration_since(last));
        if since.is_none_or(|since| since > FAILED_LATELY) {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        self.last_failure = Some(now);
    }

    /// A call to it was answered.
    pub const fn report_success(&mut self) {
        self.failures = 0;
    }

    /// Evaluates phi and failed calls; returns the changes in order.
    pub fn judge(&mut self, now: Instant) -> Vec<Change> {
        let phi = self.detector.phi(now);
        let is_suspect = phi >= self.settings.suspect;
        let is_gone = phi >= self.settings.threshold || is_suspect && self.is_failing(now);
        let mut changes = Vec::new();
        if is_suspect && self.state == State::Alive {
            self.state = State::Suspected;
            changes.push(Change::Suspected { phi });
        }
        if is_gone && self.state == State::Suspected {
            self.state = State::Failed;
            changes.push(Change::Failed);
        }
        if !is_suspect && matches!(self.state, State::Suspected | State::Failed) {
            self.state = State::Alive;
            changes.push(Change::Recovered);
        }
        changes
    }

    fn is_failing(&self, now: Instant) -> bool {
        let since = self.last_failure.map(|last| now.saturating_duration_since(last));
        self.failures >= FAILING && since.is_some_and(|since| since <= FAILED_LATELY)
    }
}

// === impl OwnPause ===

impl OwnPause {
    /// Ticks come each `every`; a delay of more than `tolerated` beyond that is a pause.
    pub const fn new(every: Duration, tolerated: Duration) -> Self {
        Self { every, tolerated, last: None }
    }

    /// How long this process did not run before this tick; `None` if that was tolerable.
    pub fn tick(&mut self, now: Instant) -> Option<Duration> {
        let last = self.last.replace(now)?;
        let late = now.saturating_duration_since(last).saturating_sub(self.every);
        (late > self.tolerated).then_some(late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Heard each 200 ms until now.
    fn heard() -> (Suspicion, Instant) {
        let mut peer = Suspicion::new(Phi::default());
        let start = Instant::now();
        for beat in 0..=100 {
            peer.heartbeat(start + beat * 200 * MS);
        }
        (peer, start + 20_000 * MS)
    }

    #[test]
    fn a_silent_peer_is_suspected_and_then_convicted() {
        let (mut peer, now) = heard();
        assert_eq!(peer.judge(now + 1000 * MS), []);
        let suspected = peer.judge(now + 1350 * MS);
        assert!(matches!(suspected[..], [Change::Suspected { phi }] if (3.0..8.0).contains(&phi)));
        assert_eq!(peer.judge(now + 1360 * MS), [], "it is reported once");
        assert_eq!(peer.judge(now + 2000 * MS), [Change::Failed]);
        assert_eq!(peer.judge(now + 9000 * MS), []);
        assert_eq!(peer.state(), State::Failed);
    }

    #[test]
    fn a_late_evaluation_reports_both_changes() {
        let (mut peer, now) = heard();
        assert!(matches!(
            peer.judge(now + 9000 * MS)[..],
            [Change::Suspected { .. }, Change::Failed]
        ));
    }

    #[test]
    fn failing_calls_convict_only_a_suspected_node() {
        let (mut peer, now) = heard();
        for _ in 0..FAILING {
            peer.report_failure(now);
        }
        assert_eq!(peer.judge(now + 200 * MS), [], "it is heard");
        let both = peer.judge(now + 1350 * MS);
        assert!(matches!(both[..], [Change::Suspected { .. }, Change::Failed]), "{both:?}");
    }

    #[test]
    fn failures_are_in_a_row_where_no_more_than_five_seconds_lie_between_them() {
        for (gap, convicts) in [(5000, true), (5001, false)] {
            let (mut peer, now) = heard();
            let last = now + 1300 * MS;
            for at in [last - gap * MS, last - gap * MS, last] {
                peer.report_failure(at);
            }
            let changes = peer.judge(now + 1350 * MS);
            assert_eq!(changes.contains(&Change::Failed), convicts, "{gap}: {changes:?}");
        }
    }

    #[test]
    fn phi_is_that_by_which_it_is_judged() {
        let (mut peer, now) = heard();
        let at = now + 1350 * MS;
        let phi = peer.phi(at);
        assert_eq!(peer.judge(at), [Change::Suspected { phi }]);
    }

    #[test]
    fn a_delay_of_just_what_is_tolerated_is_no_pause() {
        let mut own = OwnPause::new(100 * MS, 500 * MS);
        let start = Instant::now();
        assert_eq!(own.tick(start), None);
        assert_eq!(own.tick(start + 600 * MS), None);
        assert_eq!(own.tick(start + 1201 * MS), Some(501 * MS));
    }

    #[test]
    fn an_answer_and_time_clear_the_failed_calls() {
        for cleared_by_time in [true, false] {
            let (mut peer, now) = heard();
            for _ in 0..FAILING {
                peer.report_failure(now - 4000 * MS * u32::from(cleared_by_time));
            }
            if !cleared_by_time {
                peer.report_success();
            }
            let changes = peer.judge(now + 1350 * MS);
            assert!(matches!(changes[..], [Change::Suspected { .. }]), "{changes:?}");
        }
    }

    #[test]
    fn a_node_that_is_heard_again_has_recovered() {
        let (mut peer, now) = heard();
        peer.judge(now + 60_000 * MS);
        peer.heartbeat(now + 60_000 * MS);
        assert_eq!(peer.judge(now + 60_000 * MS), [Change::Recovered]);
        assert_eq!(peer.state(), State::Alive);
        assert_eq!(peer.judge(now + 61_000 * MS), [], "it has as much time as before");
    }

    #[test]
    fn a_paused_observer_convicts_no_node() {
        let (mut peer, now) = heard();
        let mut own = OwnPause::new(100 * MS, 500 * MS);
        assert_eq!(own.tick(now), None);
        assert_eq!(own.tick(now + 100 * MS), None);
        assert_eq!(own.tick(now + 600 * MS), None, "a hiccup");
        let after = now + 2700 * MS;
        let pause = own.tick(after).unwrap();
        assert_eq!(pause, 2000 * MS);
        peer.forgive(pause);
        assert_eq!(peer.judge(after), []);
        let (mut other, _) = heard();
        assert!(!other.judge(after).is_empty(), "it would have");
    }
}
