//! A hedged call: which attempts are in flight, and when the next one begins.

use crate::{
    budget::HEDGE,
    call::{Begun, Call, Outcome},
    hedge::HedgePolicy,
    policy::{Decision, Ended, LOOK},
    step::{Again, Step},
    stop::Stop,
};
use cinchona_core::{AttemptKind, Verdict};
use cinchona_plumbing::{
    clock::later,
    status::{self, Pushback},
};
use std::time::Duration;
use tokio::time::Instant;
use tonic::Code;

/// When the next attempt of a call begins beside those in flight.
pub(crate) struct Race {
    policy: HedgePolicy,
    began: Instant,
    /// When the next one begins.
    next: Option<Instant>,
    /// Why there will be no other.
    closed: Option<Stop>,
    /// The number of attempts before each of those that were begun, in the order of their requests.
    previous: Vec<u32>,
}

// === impl Race ===

impl Race {
    /// The first attempt has begun.
    pub(crate) fn begin(call: &mut Call, policy: HedgePolicy, began: Instant) -> Self {
        let closed = if policy.max_attempts < 2 {
            Some(Stop::Exhausted)
        } else if !call.progress.safety.allows_repeating() {
            call.shared.unsafe_to_repeat.warn(call.path(), Code::Unavailable);
            Some(Stop::NotIdempotent)
        } else if call.progress.chained {
            Some(Stop::Chained)
        } else {
            None
        };
        let next = policy.delay().filter(|_| closed.is_none()).map(|delay| later(began, delay));
        call.progress.attempts = 1;
        Self { policy, began, next, closed, previous: vec![0] }
    }

    pub(crate) const fn next(&self) -> Option<Instant> {
        self.next
    }

    pub(crate) fn closed(&self) -> Stop {
        self.closed.unwrap_or(Stop::Exhausted)
    }

    /// The next attempt, if one begins now.
    pub(crate) fn due(&mut self, call: &mut Call) -> Option<Again> {
        let now = Instant::now();
        self.next.take_if(|next| *next <= now)?;
        let n = call.progress.attempts;
        let refused = if n >= self.policy.max_attempts {
            Some(Stop::Exhausted)
        } else if !call.replay.can_repeat() {
            Some(Stop::BodyTooLarge)
        } else if !call.throttle.allows() {
            Some(Stop::Throttled)
        } else if !self.is_paid_for(call, now) {
            Some(Stop::Budget)
        } else {
            None
        };
        if refused.is_some() {
            self.closed = refused;
            return None;
        }
        call.progress.attempts += 1;
        self.schedule(call.progress.attempts, now);
        tracing::debug!(rpc.method = call.path(), attempt = n + 1, "hedging");
        Some(self.again(AttemptKind::Hedge, n, Duration::ZERO))
    }

    /// Whether both budgets allow a hedge, and withdraws its cost.
    fn is_paid_for(&self, call: &Call, now: Instant) -> bool {
        let path = call.path();
        let own = self.policy.adaptive.as_ref().map(|adaptive| &adaptive.budget);
        if own.is_some_and(|own| !own.withdraw(path, HEDGE, now)) {
            return false;
        }
        let is_paid = call.shared.budget.withdraw(path, HEDGE, now);
        if let Some(own) = own.filter(|_| !is_paid) {
            own.refund(path, HEDGE);
        }
        is_paid
    }

    fn again(&mut self, kind: AttemptKind, previous: u32, wait: Duration) -> Again {
        self.previous.push(previous);
        Again { kind, previous, wait }
    }

    /// The next attempt begins a delay after `now`, if there is one.
    fn schedule(&mut self, attempts: u32, now: Instant) {
        let more = self.closed.is_none() && attempts < self.policy.max_attempts;
        self.next = self.policy.delay().filter(|_| more).map(|delay| later(now, delay));
    }

    pub(crate) fn ended(&mut self, call: &mut Call, ended: &Begun, outcome: &mut Outcome) -> Step {
        let now = Instant::now();
        let verdict = call.verdict(outcome);
        let pushback = outcome.as_ref().ok().and_then(|head| status::pushback(head.headers()));
        let can_repeat = call.replay.can_repeat();
        let attempts = call.progress.attempts;
        let decided = call.progress.before_policy(Ended { verdict, pushback, can_repeat, now });
        call.progress.attempts = attempts;
        ended.end(verdict, pushback, now);
        let kind = ended.line.with_attempt(|attempt, _| attempt.kind);
        let (kind, wait) = match decided {
            Some(Decision::Stop(stop)) => {
                if stop == Stop::Deadline && call.progress.wait_for_ready {
                    call.has_waited_in_vain(verdict, outcome);
                }
                return Step::Finish(stop);
            }
            Some(Decision::Transparent(wait)) => (AttemptKind::Transparent, wait),
            // A wait for a connection is not an attempt.
            Some(_) => {
                ended.line.withdraw();
                (kind.unwrap_or(AttemptKind::First), LOOK)
            }
            None => return self.failed(call, ended, verdict, pushback, now),
        };
        call.replay.stop(ended.built);
        // It keeps its number: the server never saw it.
        let previous = self.previous.get(ended.built as usize).copied().unwrap_or_default();
        Step::Again(self.again(kind, previous, wait))
    }

    /// An attempt has failed: returns whether the others continue.
    fn failed(
        &mut self,
        call: &Call,
        ended: &Begun,
        verdict: Verdict,
        pushback: Option<Pushback>,
        now: Instant,
    ) -> Step {
        let non_fatal = self.policy.codes.contains(verdict.code());
        if non_fatal || pushback == Some(Pushback::Stop) {
            call.throttle.failed();
        }
        if !non_fatal {
            return Step::Finish(Stop::NotRetryable);
        }
        call.replay.stop(ended.built);
        match pushback {
            // No more hedges; those in flight may still win.
            Some(Pushback::Stop) => (self.closed, self.next) = (Some(Stop::Pushback), None),
            _ if self.closed.is_some() => {}
            // Waiting is useless for an attempt that could not even start.
            Some(Pushback::After(wait)) if !call.progress.has_time(later(now, wait)) => {
                (self.closed, self.next) = (Some(Stop::Deadline), None);
            }
            Some(Pushback::After(wait)) => self.next = Some(later(now, wait)),
            None => self.next = Some(now),
        }
        if call.progress.attempts >= self.policy.max_attempts {
            self.next = None;
        }
        Step::GoOn
    }

    /// Records the latency of the call.
    pub(crate) fn learn(&self, call: &Call, answered: bool, now: Instant) {
        let Some(adaptive) = &self.policy.adaptive else { return };
        // If a hedge has won, the first attempt would have taken even longer.
        adaptive.latency.record(now - self.began);
        if answered {
            let depositor = adaptive.budget.depositor(call.path());
            adaptive.budget.deposit(&depositor, || now);
        }
    }
}
