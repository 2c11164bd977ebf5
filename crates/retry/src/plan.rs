//! The next step of a call after each attempt: by a retry policy, or by a hedging policy.

use crate::{
    call::{Begun, Call, Outcome},
    policy::{Decision, Kind, LOOK},
    race::Race,
    step::{Again, Step},
    stop::Stop,
};
use cinchona_core::{AttemptKind, Verdict};
use std::time::Duration;
use tokio::time::Instant;
use tonic::Code;

/// At most two attempts of a call begin within this time, whatever the policy: a call that fails
/// immediately must not keep a core busy.
pub(crate) const PACE: Duration = Duration::from_millis(1);

/// Decides the next step of a call.
pub(crate) enum Plan {
    /// One attempt after the other.
    Serial(Serial),
    /// Several side by side.
    Race(Race),
}

/// When the last attempt began, and the one before.
#[derive(Debug)]
pub(crate) struct Serial {
    last: Instant,
    before: Option<Instant>,
}

// === impl Plan ===

impl Plan {
    /// The attempt that is due now, beside those in flight.
    pub(crate) fn due(&mut self, call: &mut Call) -> Option<Again> {
        match self {
            Self::Serial(_) => None,
            Self::Race(race) => race.due(call),
        }
    }

    /// When the next one will be due, whatever the outcome of the others.
    pub(crate) const fn next(&self) -> Option<Instant> {
        match self {
            Self::Serial(_) => None,
            Self::Race(race) => race.next(),
        }
    }

    /// Records the outcome of an attempt, and decides what follows.
    pub(crate) fn ended(&mut self, call: &mut Call, ended: &Begun, outcome: &mut Outcome) -> Step {
        match self {
            Self::Serial(serial) => serial.ended(call, ended, outcome),
            Self::Race(race) => race.ended(call, ended, outcome),
        }
    }

    /// The call ends, with these attempts still in flight; `answered`, if by one of the others.
    pub(crate) fn abandon(&self, call: &Call, running: &[Begun], answered: bool) {
        let now = Instant::now();
        let verdict = match self {
            Self::Serial(_) => Verdict::Deadline,
            Self::Race(_) => Verdict::MaybeProcessed(Code::Cancelled),
        };
        running.iter().for_each(|begun| begun.end(verdict, None, now));
        if let Self::Race(race) = self {
            race.learn(call, answered, now);
        }
    }

    /// Why there is no further attempt if nothing else has ended the call.
    pub(crate) fn closed(&self) -> Stop {
        match self {
            Self::Serial(_) => Stop::BodyTooLarge,
            Self::Race(race) => race.closed(),
        }
    }
}

// === impl Serial ===

impl Serial {
    pub(crate) const fn new(first: Instant) -> Self {
        Self { last: first, before: None }
    }

    fn ended(&mut self, call: &mut Call, ended: &Begun, outcome: &mut Outcome) -> Step {
        let decision = call.judge(outcome, ended);
        let wait = match decision {
            Decision::Stop(stop) => return Step::Finish(stop),
            Decision::AwaitConnection => LOOK,
            Decision::Transparent(wait) | Decision::RetryAfter(wait) => wait,
        };
        call.replay.stop(ended.built);
        if !call.replay.can_repeat() {
            return Step::Finish(Stop::BodyTooLarge);
        }
        let wait = wait.max(self.paced());
        let kind = match decision {
            Decision::Transparent(_) => AttemptKind::Transparent,
            // Nothing was sent before.
            Decision::AwaitConnection if call.record.attempt_count() == 0 => AttemptKind::First,
            _ => AttemptKind::Retry,
        };
        if decision != Decision::AwaitConnection {
            let most = match &call.policy.kind {
                Kind::Retry(retry) => retry.max_attempts(),
                _ => 1,
            };
            call.report_retry(ended, wait, most);
        }
        (self.last, self.before) = (Instant::now() + wait, Some(self.last));
        Step::Again(Again { kind, previous: call.progress.attempts, wait })
    }

    /// How long the next attempt has to wait because of those before.
    fn paced(&self) -> Duration {
        let next = self.before.map(|before| before + PACE);
        next.map_or(Duration::ZERO, |next| next.saturating_duration_since(Instant::now()))
    }
}
