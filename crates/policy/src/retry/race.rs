//! A hedged call: which attempts are in flight, and when the next one begins.

use super::{
    attempt::{AttemptKind, Pushback},
    budget::HEDGE,
    hedge::{AdaptiveDelay, HedgePolicy},
    next::NextAttempt,
    policy::{CONNECTION_WAIT, Decision, Ended, Limits, Progress},
    stop::Stop,
};
use crate::clock::later;
use std::{ops::ControlFlow, sync::Arc, time::Duration};
use tokio::time::Instant;

/// When the next attempt of a call begins beside those in flight.
#[derive(Debug)]
pub struct Race {
    policy: HedgePolicy,
    adaptive: Option<Arc<AdaptiveDelay>>,
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
    /// The first attempt is in flight. `adaptive` is what the layer's calls have shown of a policy
    /// with an extra load.
    pub fn new(
        policy: HedgePolicy,
        adaptive: Option<Arc<AdaptiveDelay>>,
        progress: &mut Progress,
        began: Instant,
    ) -> Self {
        let closed = if policy.max_attempts < 2 {
            Some(Stop::Exhausted)
        } else if !progress.safety.allows_repeating() {
            Some(Stop::NotIdempotent)
        } else if progress.serves_retry {
            Some(Stop::Chained)
        } else {
            None
        };
        let delay = policy.delay(adaptive.as_deref()).filter(|_| closed.is_none());
        let next = delay.map(|delay| later(began, delay));
        progress.attempts = 1;
        Self { policy, adaptive, began, next, closed, previous: vec![0] }
    }

    /// When the next one will be due, whatever the outcome of the others.
    pub const fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Why there is no other attempt.
    pub fn closed(&self) -> Stop {
        self.closed.unwrap_or(Stop::Exhausted)
    }

    /// The next attempt, if one begins now; `can_repeat`, if the request can be sent again.
    pub fn due(
        &mut self,
        progress: &mut Progress,
        can_repeat: bool,
        limits: Limits<'_>,
        now: Instant,
    ) -> Option<NextAttempt> {
        self.next.take_if(|next| *next <= now)?;
        let n = progress.attempts;
        let refused = if n >= self.policy.max_attempts {
            Some(Stop::Exhausted)
        } else if !can_repeat {
            Some(Stop::BodyTooLarge)
        } else if !limits.throttle.allows() {
            Some(Stop::Throttled)
        } else if !self.is_paid_for(limits, now) {
            Some(Stop::Budget)
        } else {
            None
        };
        if refused.is_some() {
            self.closed = refused;
            return None;
        }
        progress.attempts += 1;
        self.schedule(progress.attempts, now);
        Some(self.begin(AttemptKind::Hedge, n, Duration::ZERO))
    }

    /// Whether both budgets allow a hedge, and withdraws its cost.
    fn is_paid_for(&self, Limits { budget, method, .. }: Limits<'_>, now: Instant) -> bool {
        let own = self.adaptive.as_ref().map(|adaptive| &adaptive.budget);
        if own.is_some_and(|own| !own.withdraw(method, HEDGE, now)) {
            return false;
        }
        let is_paid = budget.withdraw(method, HEDGE, now);
        if let Some(own) = own.filter(|_| !is_paid) {
            own.refund(method, HEDGE);
        }
        is_paid
    }

    fn begin(&mut self, kind: AttemptKind, previous: u32, wait: Duration) -> NextAttempt {
        self.previous.push(previous);
        NextAttempt { kind, previous, wait, replaces: false }
    }

    /// The next attempt begins a delay after `now`, if there is one.
    fn schedule(&mut self, attempts: u32, now: Instant) {
        let more = self.closed.is_none() && attempts < self.policy.max_attempts;
        let delay = self.policy.delay(self.adaptive.as_deref()).filter(|_| more);
        self.next = delay.map(|delay| later(now, delay));
    }

    /// What follows the attempt of the `n`th request, counted from 0, which was of this kind:
    /// another, or those in flight and due later alone; or why the call ends.
    pub fn ended(
        &mut self,
        (n, kind): (u32, AttemptKind),
        ended: Ended,
        progress: &mut Progress,
        limits: Limits<'_>,
    ) -> ControlFlow<Stop, Option<NextAttempt>> {
        let attempts = progress.attempts;
        let decided = progress.before_policy(ended);
        progress.attempts = attempts;
        let (kind, wait, replaces) = match decided {
            Some(Decision::Stop(stop)) => return ControlFlow::Break(stop),
            Some(Decision::Transparent(wait)) => (AttemptKind::Transparent, wait, false),
            // A wait for a connection is not an attempt.
            Some(Decision::AwaitConnection | Decision::RetryAfter(_)) => {
                (kind, CONNECTION_WAIT, true)
            }
            None => return self.failed(ended, progress, limits).map_continue(|()| None),
        };
        // It keeps its number: the server never saw it.
        let previous = self.previous.get(n as usize).copied().unwrap_or_default();
        let next = self.begin(kind, previous, wait);
        ControlFlow::Continue(Some(NextAttempt { replaces, ..next }))
    }

    /// An attempt has failed: whether the others continue, or why the call ends.
    fn failed(
        &mut self,
        ended: Ended,
        progress: &Progress,
        limits: Limits<'_>,
    ) -> ControlFlow<Stop> {
        let Ended { verdict, pushback, now, .. } = ended;
        let non_fatal = self.policy.codes.contains(verdict.code());
        if non_fatal || pushback == Some(Pushback::Stop) {
            limits.throttle.failed();
        }
        if !non_fatal {
            return ControlFlow::Break(Stop::NotRetryable);
        }
        match pushback {
            // No more hedges; those in flight may still win.
            Some(Pushback::Stop) => (self.closed, self.next) = (Some(Stop::Pushback), None),
            _ if self.closed.is_some() => {}
            // Waiting is useless for an attempt that could not even start.
            Some(Pushback::After(wait)) if !progress.has_time(later(now, wait)) => {
                (self.closed, self.next) = (Some(Stop::Deadline), None);
            }
            Some(Pushback::After(wait)) => self.next = Some(later(now, wait)),
            None => self.next = Some(now),
        }
        if progress.attempts >= self.policy.max_attempts {
            self.next = None;
        }
        ControlFlow::Continue(())
    }

    /// Records the latency of a call of this method.
    pub fn learn(&self, method: &str, answered: bool, now: Instant) {
        let Some(adaptive) = &self.adaptive else { return };
        // If a hedge has won, the first attempt would have taken even longer.
        adaptive.latency.record(now - self.began);
        if answered {
            adaptive.budget.deposit(method, || now);
        }
    }
}

#[cfg(test)]
mod tests;
