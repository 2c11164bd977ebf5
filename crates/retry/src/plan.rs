//! The next step of a call after each attempt: by a retry policy, or by a hedging policy.

use crate::call::{Begun, Call, Outcome};
use cinchona_core::{AttemptKind, Verdict};
use cinchona_plumbing::status;
use cinchona_policy::retry::{
    Again, Decision, Ended, HedgePolicy, Kind, Limits, Race, Serial, Step, Stop,
};
use tokio::time::Instant;
use tonic::Code;

/// Decides the next step of a call.
pub(crate) enum Plan {
    /// One attempt after the other.
    Serial(Serial),
    /// Several side by side.
    Race(Race),
}

// === impl Plan ===

impl Plan {
    /// That of a call that is hedged, and whose first attempt has begun.
    pub(crate) fn race(call: &mut Call, policy: HedgePolicy, began: Instant) -> Self {
        let race = Race::begin(policy, call.adaptive.clone(), &mut call.progress, began);
        if race.closed() == Stop::NotIdempotent {
            call.shared.unsafe_to_repeat.warn(call.path(), Code::Unavailable);
        }
        Self::Race(race)
    }

    /// The attempt that is due now, beside those in flight.
    pub(crate) fn due(&mut self, call: &mut Call) -> Option<Again> {
        let Self::Race(race) = self else { return None };
        let can_repeat = call.replay.can_repeat();
        let (throttle, method) = (&call.throttle, call.replay.uri().path());
        let limits = Limits { throttle, budget: &call.shared.budget, method };
        let again = race.due(&mut call.progress, can_repeat, limits, Instant::now())?;
        tracing::debug!(rpc.method = call.path(), attempt = again.previous + 1, "hedging");
        Some(again)
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
            Self::Serial(serial) => of_serial(serial, call, ended, outcome),
            Self::Race(race) => of_race(race, call, ended, outcome),
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
            race.learn(call.path(), answered, now);
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

fn of_serial(serial: &mut Serial, call: &mut Call, ended: &Begun, outcome: &mut Outcome) -> Step {
    let decision = call.judge(outcome, ended);
    if let Decision::Stop(stop) = decision {
        return Step::Finish(stop);
    }
    call.replay.stop(ended.built);
    if !call.replay.can_repeat() {
        return Step::Finish(Stop::BodyTooLarge);
    }
    let is_first = call.record.attempt_count() == 0;
    let step = serial.follow(decision, &call.progress, is_first, Instant::now());
    if let Step::Again(Again { wait, replaces: false, .. }) = step {
        let most = match call.policy.kind() {
            Kind::Retry(retry) => retry.max_attempts(),
            _ => 1,
        };
        call.report_retry(ended, wait, most);
    }
    step
}

fn of_race(race: &mut Race, call: &mut Call, ended: &Begun, outcome: &mut Outcome) -> Step {
    let now = Instant::now();
    let verdict = call.verdict(outcome);
    let pushback = outcome.as_ref().ok().and_then(|head| status::pushback(head.headers()));
    let can_repeat = call.replay.can_repeat();
    let kind = ended.line.with_attempt(|attempt, _| attempt.kind).unwrap_or(AttemptKind::First);
    let (throttle, method) = (&call.throttle, call.replay.uri().path());
    let limits = Limits { throttle, budget: &call.shared.budget, method };
    let what = Ended { verdict: verdict.into(), pushback, can_repeat, now };
    let step = race.ended((ended.built, kind), what, &mut call.progress, limits);
    ended.end(verdict, pushback, now);
    match &step {
        Step::Finish(stop) => {
            if *stop == Stop::Deadline && call.progress.wait_for_ready {
                call.has_waited_in_vain(verdict, outcome);
            }
            return step;
        }
        // A wait for a connection is not an attempt.
        Step::Again(again) if again.replaces => ended.line.withdraw(),
        Step::Again(_) | Step::GoOn => {}
    }
    call.replay.stop(ended.built);
    step
}
