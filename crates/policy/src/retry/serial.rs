//! One attempt after the other.

use super::{
    attempt::AttemptKind,
    policy::{CONNECTION_WAIT, Decision, Progress},
    step::{Again, Step},
};
use crate::clock::later;
use std::time::Duration;
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

    /// What a decision on the last attempt comes to at `now`; `is_first`, if no attempt counts yet.
    pub fn follow(
        &mut self,
        decision: Decision,
        progress: &Progress,
        is_first: bool,
        now: Instant,
    ) -> Step {
        let wait = match decision {
            Decision::Stop(stop) => return Step::Finish(stop),
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
        Step::Again(Again { kind, previous: progress.attempts, wait, replaces })
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
    use crate::{Safety, retry::Stop};

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
            let step = Serial::new(now).follow(decision, &progress, is_first, now);
            assert_eq!(step, Step::Again(Again { kind, previous: 3, wait, replaces }));
        }
        let stop = Serial::new(now).follow(Decision::Stop(Stop::Local), &progress, true, now);
        assert_eq!(stop, Step::Finish(Stop::Local));
    }

    #[test]
    fn a_wait_that_does_not_fit_lasts_for_ever() {
        let (now, progress) = (Instant::now(), Progress::new(Safety::Idempotent, None));
        let mut serial = Serial::new(now);
        for _ in 0..3 {
            let step = serial.follow(Decision::RetryAfter(Duration::MAX), &progress, false, now);
            let Step::Again(again) = step else { unreachable!("it goes on") };
            assert!(again.wait > 1_000_000 * Duration::from_secs(3600), "{again:?}");
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
            let Step::Again(again) = serial.follow(decision, &progress, false, now) else {
                unreachable!("it goes on");
            };
            now += again.wait;
            begins.push(now);
        }
        assert!(begins.windows(3).all(|three| three[2] - three[0] >= PACE), "{begins:?}");
        assert_eq!(begins[10] - began, 5 * MS);
    }
}
