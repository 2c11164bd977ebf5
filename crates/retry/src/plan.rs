//! What follows an attempt: the one judge of attempts, and the plan of a call.
//!
//! The words of this crate and of `cinchona_policy::retry`, in the order in which they are used:
//!
//! | word | what it is |
//! |---|---|
//! | [`Call`] | a call of the application: its request, its policy, its [`Progress`] |
//! | [`Progress`] | what counts for the next decision: attempts made, deadline, safety |
//! | [`RunningAttempt`] | an attempt in flight: the number of its request, its line in the record |
//! | [`AttemptResult`] | what the service has returned for it: a response's head, or an error |
//! | [`Ended`] | what that means: its verdict, the server's pushback, and when |
//! | [`Limits`] | what limits the further attempts of all calls: the throttle and the budget |
//! | [`Decision`] | what a retry policy makes of these: a retry, when, or none |
//! | [`Plan`] | the rule by which further attempts are made: a [`Serial`] or a [`Race`] |
//! | [`Serial`] | retries, one attempt after the other: it turns a decision into the next attempt |
//! | [`Race`] | hedges, several attempts side by side: which are made, and when the next is due |
//! | [`NextAttempt`] | an attempt that is to be made: its kind, its number, its wait |
//! | [`Stop`] | why there is no further attempt, success included |
//!
//! [`Decision`]: cinchona_policy::retry::Decision
//! [`Limits`]: cinchona_policy::retry::Limits
//! [`Progress`]: cinchona_policy::retry::Progress

use crate::call::{AttemptResult, Call, RunningAttempt};
use cinchona_core::{AttemptKind, Verdict};
use cinchona_plumbing::status;
use cinchona_policy::retry::{Ended, HedgePolicy, Kind, NextAttempt, Race, Serial, Stop};
use std::ops::ControlFlow::{self, Break, Continue};
use tokio::time::Instant;
use tonic::Code;

/// The rule by which a call's further attempts are made.
pub(crate) enum Plan {
    /// One attempt after the other.
    Serial(Serial),
    /// Several side by side.
    Race(Race),
}

/// Judges an attempt that has ended: what its result means, what follows, which `decide` says, and
/// what the record says of it.
pub(crate) fn judge<N>(
    call: &mut Call,
    attempt: &RunningAttempt,
    result: &mut AttemptResult,
    decide: impl FnOnce(&mut Call, Ended) -> ControlFlow<Stop, N>,
) -> ControlFlow<Stop, N>
where
    N: Copy + Into<Option<NextAttempt>>,
{
    let verdict = call.verdict(result);
    if verdict == Verdict::Ok && call.is_plain() {
        return Break(Stop::Succeeded);
    }
    let now = Instant::now();
    let pushback = result.as_ref().ok().and_then(|head| status::pushback(head.headers()));
    let can_repeat = call.replay.can_repeat();
    let next = decide(call, Ended { verdict: verdict.into(), pushback, can_repeat, now });
    attempt.end(verdict, pushback, now);
    match next {
        Break(Stop::NotIdempotent) => call.warn_unsafe_to_repeat(verdict.code()),
        Break(Stop::Deadline) => call.blame_deadline(verdict, result),
        // A wait for a connection is not an attempt: nothing was sent, and it may last long.
        Continue(next) if next.into().is_some_and(|next| next.replaces) => {
            attempt.record.withdraw();
        }
        Break(_) | Continue(_) => {}
    }
    next
}

/// Judges an attempt of a call that is not hedged: the next one, or why there is none.
pub(crate) fn judge_serial(
    serial: &mut Serial,
    call: &mut Call,
    attempt: &RunningAttempt,
    result: &mut AttemptResult,
) -> ControlFlow<Stop, NextAttempt> {
    let next = judge(call, attempt, result, |call, ended| {
        let decision = call.decide(ended);
        // Only waits for a connection came before, which do not count.
        let is_first = call.record.attempt_count() == 1;
        serial.follow(decision, &call.progress, is_first, ended.now)
    })?;
    call.replay.stop(attempt.request_number);
    if !call.replay.can_repeat() {
        return Break(Stop::BodyTooLarge);
    }
    if !next.replaces {
        let most = match call.policy.kind() {
            Kind::Retry(retry) => retry.max_attempts(),
            Kind::Once | Kind::Hedge(_) => 1,
        };
        call.report_retry(attempt, next.wait, most);
    }
    Continue(next)
}

/// Judges an attempt of a hedged call: the one that takes its place, or none; or why the call ends.
fn judge_race(
    race: &mut Race,
    call: &mut Call,
    attempt: &RunningAttempt,
    result: &mut AttemptResult,
) -> ControlFlow<Stop, Option<NextAttempt>> {
    let next = judge(call, attempt, result, |call, ended| {
        let kind = attempt.record.with_attempt(|own, _| own.kind).unwrap_or(AttemptKind::First);
        let which = (attempt.request_number, kind);
        call.with_limits(|progress, limits| race.ended(which, ended, progress, limits))
    })?;
    call.replay.stop(attempt.request_number);
    Continue(next)
}

/// What becomes of an attempt that is dropped before it has ended.
const GIVEN_UP: Verdict = Verdict::MaybeProcessed(Code::Cancelled);

fn give_up(running: &[RunningAttempt], verdict: Verdict, now: Instant) {
    running.iter().for_each(|attempt| attempt.end(verdict, None, now));
}

// === impl Plan ===

impl Plan {
    /// That of a call that is hedged, and whose first attempt is in flight.
    pub(crate) fn race(call: &mut Call, policy: HedgePolicy, began: Instant) -> Self {
        let race = Race::new(policy, call.adaptive.clone(), &mut call.progress, began);
        if race.closed() == Stop::NotIdempotent {
            call.warn_unsafe_to_repeat(Code::Unavailable);
        }
        Self::Race(race)
    }

    /// Judges an attempt that has ended: the attempt that follows it, if one does, or why the call
    /// ends.
    pub(crate) fn judge(
        &mut self,
        call: &mut Call,
        attempt: &RunningAttempt,
        result: &mut AttemptResult,
    ) -> ControlFlow<Stop, Option<NextAttempt>> {
        match self {
            Self::Serial(serial) => judge_serial(serial, call, attempt, result).map_continue(Some),
            Self::Race(race) => judge_race(race, call, attempt, result),
        }
    }

    /// The attempt that is due now, beside those in flight.
    pub(crate) fn due(&mut self, call: &mut Call) -> Option<NextAttempt> {
        let Self::Race(race) = self else { return None };
        let (can_repeat, now) = (call.replay.can_repeat(), Instant::now());
        let next = call.with_limits(|call, limits| race.due(call, can_repeat, limits, now))?;
        tracing::debug!(rpc.method = call.path(), attempt = next.previous + 1, "hedging");
        Some(next)
    }

    /// When the next one will be due, whatever becomes of those in flight.
    pub(crate) const fn due_at(&self) -> Option<Instant> {
        match self {
            Self::Serial(_) => None,
            Self::Race(race) => race.next(),
        }
    }

    /// The call ends with the result of an attempt: the others still `running` are given up.
    pub(crate) fn answered(&self, call: &Call, running: &[RunningAttempt]) {
        let now = Instant::now();
        give_up(running, GIVEN_UP, now);
        if let Self::Race(race) = self {
            race.learn(call.path(), true, now);
        }
    }

    /// The call ends at its deadline, with these attempts `running`.
    pub(crate) fn expired(&self, call: &Call, running: &[RunningAttempt]) {
        let now = Instant::now();
        match self {
            Self::Serial(_) => give_up(running, Verdict::Deadline, now),
            Self::Race(race) => {
                give_up(running, GIVEN_UP, now);
                race.learn(call.path(), false, now);
            }
        }
    }

    /// The call ends with its last failure, with these attempts abandoned: why there is no further
    /// one.
    pub(crate) fn exhausted(&self, abandoned: &[RunningAttempt]) -> Stop {
        give_up(abandoned, GIVEN_UP, Instant::now());
        match self {
            // A retry was decided, and has not begun: only as its request cannot be sent again,
            // which has outgrown its buffer since.
            Self::Serial(_) => Stop::BodyTooLarge,
            Self::Race(race) => race.closed(),
        }
    }
}
