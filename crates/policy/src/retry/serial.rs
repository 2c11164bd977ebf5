//! One attempt after the other.

use super::{
    attempt::AttemptKind,
    next::NextAttempt,
    policy::{CONNECTION_WAIT, Decision, Progress},
    stop::Stop,
};
use crate::clock::later;
use std::{ops::ControlFlow, time::Duration};
use tokio::time::Instant;

/// At most two attempts of a call begin within this time, whatever the policy: a call that fails
/// immediately must not keep a core busy.
pub const PACE: Duration = Duration::from_millis(1);

/// When the last attempt began, and the one before.
#[derive(Debug)]
pub struct Serial {
    last: Instant,
    before: Option<Instant>,
}

// === impl Serial ===

impl Serial {
    /// The first attempt has begun.
    pub const fn new(first: Instant) -> Self {
        Self { last: first, before: None }
    }

    /// The attempt that follows by a decision on the last one at `now`, or why there is none. It is
    /// the first, if it `is_first`, where the last one only waited for a connection.
    pub fn follow(
        &mut self,
        decision: Decision,
        progress: &Progress,
        is_first: bool,
        now: Instant,
    ) -> ControlFlow<Stop, NextAttempt> {
        let wait = match decision {
            Decision::Stop(stop) => return ControlFlow::Break(stop),
            Decision::AwaitConnection => CONNECTION_WAIT,
            Decision::Transparent(wait) | Decision::RetryAfter(wait) => wait,
        };
        let wait = wait.max(self.paced(now));
        let kind = match decision {
            Decision::Transparent(_) => AttemptKind::Transparent,
            // Nothing was sent before.
            Decision::AwaitConnection if is_first => AttemptKind::First,
            _ => AttemptKind::Retry,
        };
        (self.last, self.before) = (later(now, wait), Some(self.last));
        let replaces = decision == Decision::AwaitConnection;
        ControlFlow::Continue(NextAttempt { kind, previous: progress.attempts, wait, replaces })
    }

    /// How long the next attempt has to wait because of those before.
    fn paced(&self, now: Instant) -> Duration {
        let next = self.before.map(|before| later(before, PACE));
        next.map_or(Duration::ZERO, |next| next.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Safety;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn an_attempt_is_of_the_kind_of_what_came_before_and_keeps_its_number() {
        let now = Instant::now();
        let mut progress = Progress::new(Safety::Unknown, None);
        progress.attempts = 3;
        for (decision, is_first, kind, wait, replaces) in [
            (Decision::Transparent(7 * MS), true, AttemptKind::Transparent, 7 * MS, false),
            (Decision::RetryAfter(7 * MS), false, AttemptKind::Retry, 7 * MS, false),
            (Decision::AwaitConnection, true, AttemptKind::First, CONNECTION_WAIT, true),
            (Decision::AwaitConnection, false, AttemptKind::Retry, CONNECTION_WAIT, true),
        ] {
            let next = Serial::new(now).follow(decision, &progress, is_first, now);
            let expected = NextAttempt { kind, previous: 3, wait, replaces };
            assert_eq!(next, ControlFlow::Continue(expected));
        }
        let stop = Serial::new(now).follow(Decision::Stop(Stop::Local), &progress, true, now);
        assert_eq!(stop, ControlFlow::Break(Stop::Local));
    }

    #[test]
    fn a_wait_that_does_not_fit_lasts_for_ever() {
        let (now, progress) = (Instant::now(), Progress::new(Safety::Idempotent, None));
        let mut serial = Serial::new(now);
        for _ in 0..3 {
            let next = serial.follow(Decision::RetryAfter(Duration::MAX), &progress, false, now);
            let next = next.continue_value().unwrap();
            assert!(next.wait > 1_000_000 * Duration::from_secs(3600), "{next:?}");
        }
    }

    #[test]
    fn of_three_attempts_the_last_begins_a_millisecond_after_the_first_or_later() {
        let began = Instant::now();
        let mut serial = Serial::new(began);
        let progress = Progress::new(Safety::Idempotent, None);
        let mut now = began;
        let mut begins = vec![began];
        for _ in 0..10 {
            let decision = Decision::RetryAfter(Duration::ZERO);
            let next = serial.follow(decision, &progress, false, now);
            now += next.continue_value().unwrap().wait;
            begins.push(now);
        }
        assert!(begins.windows(3).all(|three| three[2] - three[0] >= PACE), "{begins:?}");
        assert_eq!(begins[10] - began, 5 * MS);
    }
}
