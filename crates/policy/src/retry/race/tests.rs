//! A race without runners: what begins, when, and why nothing does.

use super::*;
use crate::{
    Code, Safety, Stage, Verdict,
    retry::{Budget, CallThrottling, RetryThrottling, SharedBudget},
};

const MS: Duration = Duration::from_millis(1);
const METHOD: &str = "/a.B/C";

type After = ControlFlow<Stop, Option<NextAttempt>>;

const OTHERS: After = ControlFlow::Continue(None);

/// A call of three attempts, 10 ms apart, which go on after `UNAVAILABLE`.
struct Call {
    race: Race,
    progress: Progress,
    throttle: CallThrottling,
    budget: SharedBudget,
    began: Instant,
}

fn policy() -> HedgePolicy {
    HedgePolicy::default().with_max_attempts(3).with_delay(10 * MS)
}

fn call(policy: HedgePolicy, safety: Safety, deadline: Option<Duration>) -> Call {
    let began = Instant::now();
    let mut progress = Progress::new(safety, deadline.map(|deadline| began + deadline));
    let race = Race::new(policy, None, &mut progress, began);
    let (throttle, budget) = (CallThrottling::default(), SharedBudget::new(None, began));
    Call { race, progress, throttle, budget, began }
}

impl Call {
    fn due(&mut self, ms: u32, can_repeat: bool) -> Option<NextAttempt> {
        let limits = Limits { throttle: &self.throttle, budget: &self.budget, method: METHOD };
        self.race.due(&mut self.progress, can_repeat, limits, self.began + ms * MS)
    }

    /// The first attempt ends so, after so many milliseconds.
    fn ends(&mut self, verdict: Verdict, pushback: Option<Pushback>, ms: u32) -> After {
        let limits = Limits { throttle: &self.throttle, budget: &self.budget, method: METHOD };
        let ended = Ended { verdict, pushback, can_repeat: true, now: self.began + ms * MS };
        self.race.ended((0, AttemptKind::First), ended, &mut self.progress, limits)
    }

    fn next(&self) -> Option<Duration> {
        self.race.next().map(|next| next - self.began)
    }
}

fn idempotent() -> Call {
    call(policy(), Safety::Idempotent, None)
}

const UNAVAILABLE: Verdict = Verdict::MaybeProcessed(Code::Unavailable);

#[test]
fn of_two_attempts_one_is_a_hedge_and_of_one_none() {
    for (most, next) in [(1, None), (2, Some(10 * MS))] {
        let mut call = call(policy().with_max_attempts(most), Safety::Idempotent, None);
        assert_eq!((call.next(), call.due(10, true).is_some()), (next, next.is_some()));
        assert_eq!((call.next(), call.progress.attempts), (None, most));
    }
}

#[test]
fn a_call_that_took_longer_than_the_delay_or_failed_so_would_have_been_hedged() {
    let policy = policy();
    for (code, ms, would_begin) in [
        (Code::Ok, 10, false),
        (Code::Ok, 11, true),
        (Code::Unavailable, 1, true),
        (Code::Internal, 1, false),
    ] {
        assert_eq!(policy.would_begin(code, ms * MS, None), would_begin, "{code:?} {ms}");
    }
    assert!(!policy.with_max_attempts(1).would_begin(Code::Ok, 11 * MS, None));
}

#[test]
fn each_attempt_begins_a_delay_after_the_one_before_and_there_are_as_many_as_the_policy_says() {
    let mut call = idempotent();
    assert_eq!((call.next(), call.due(9, true)), (Some(10 * MS), None));
    let hedge = |previous| {
        let (kind, wait) = (AttemptKind::Hedge, Duration::ZERO);
        Some(NextAttempt { kind, previous, wait, replaces: false })
    };
    assert_eq!(call.due(10, true), hedge(1));
    assert_eq!((call.next(), call.due(20, true)), (Some(20 * MS), hedge(2)));
    assert_eq!((call.next(), call.due(1000, true)), (None, None));
    assert_eq!((call.race.closed(), call.progress.attempts), (Stop::Exhausted, 3));
}

#[test]
fn what_may_not_be_executed_twice_has_one_attempt() {
    let one = policy().with_max_attempts(1);
    for (policy, safety, why) in [
        (policy(), Safety::Unknown, Stop::NotIdempotent),
        (one, Safety::Idempotent, Stop::Exhausted),
    ] {
        let mut call = call(policy, safety, None);
        assert_eq!((call.next(), call.race.closed()), (None, why));
        assert_eq!(call.ends(UNAVAILABLE, None, 1), OTHERS);
        assert_eq!(call.next(), None, "a failure brings no other");
    }
    let mut progress = Progress::new(Safety::Idempotent, None);
    progress.serves_retry = true;
    assert_eq!(Race::new(policy(), None, &mut progress, Instant::now()).closed(), Stop::Chained);
}

#[test]
fn a_failure_that_may_pass_brings_the_next_at_once_and_another_ends_the_call() {
    let mut call = idempotent();
    assert_eq!(call.ends(UNAVAILABLE, None, 3), OTHERS);
    assert_eq!((call.next(), call.due(3, true).is_some()), (Some(3 * MS), true));
    let fatal = call.ends(Verdict::MaybeProcessed(Code::Internal), None, 4);
    assert_eq!(fatal, ControlFlow::Break(Stop::NotRetryable));
    let answered = idempotent().ends(Verdict::Ok, None, 4);
    assert_eq!(answered, ControlFlow::Break(Stop::Succeeded));
}

#[test]
fn a_server_sets_the_time_of_the_next_or_forbids_it() {
    let after = |wait| Some(Pushback::After(wait));
    for (deadline, pushback, next, closed) in [
        (None, after(70 * MS), Some(73 * MS), Stop::Exhausted),
        (Some(74 * MS), after(70 * MS), Some(73 * MS), Stop::Exhausted),
        (Some(73 * MS), after(70 * MS), None, Stop::Deadline),
        (None, Some(Pushback::Stop), None, Stop::Pushback),
    ] {
        let mut call = call(policy(), Safety::Idempotent, deadline);
        assert_eq!(call.ends(UNAVAILABLE, pushback, 3), OTHERS);
        assert_eq!((call.next(), call.race.closed()), (next, closed), "{pushback:?}");
    }
}

#[test]
fn what_never_reached_the_service_is_sent_again_under_its_number() {
    let mut call = idempotent();
    call.due(10, true);
    let again = |kind, wait, replaces| {
        ControlFlow::Continue(Some(NextAttempt { kind, previous: 0, wait, replaces }))
    };
    let step = call.ends(Verdict::NotProcessed(Stage::NotWritten), None, 11);
    assert_eq!(step, again(AttemptKind::Transparent, Duration::ZERO, false));
    call.progress.wait_for_ready = true;
    let step = call.ends(Verdict::NotProcessed(Stage::NoConnection), None, 12);
    assert_eq!(step, again(AttemptKind::First, CONNECTION_WAIT, true));
    assert_eq!(call.progress.attempts, 2, "neither counts");
}

#[test]
fn the_first_limit_that_refuses_a_hedge_is_the_reason_and_there_is_no_other() {
    let throttled = || {
        let throttle = RetryThrottling::default();
        throttle.set(1.0, 1.0).unwrap();
        throttle.now().failed();
        throttle.now()
    };
    let spent = Budget::new(0.0, 0).and_then(|budget| budget.with_per_second(0.0)).unwrap();
    for (can_repeat, is_throttled, is_spent, why) in [
        (false, true, true, Stop::BodyTooLarge),
        (true, true, true, Stop::Throttled),
        (true, false, true, Stop::Budget),
    ] {
        let mut call = idempotent();
        if is_throttled {
            call.throttle = throttled();
        }
        if is_spent {
            call.budget = SharedBudget::new(Some(spent), call.began);
            while call.budget.withdraw(METHOD, HEDGE, call.began) {}
        }
        assert_eq!((call.due(10, can_repeat), call.race.closed()), (None, why));
        assert_eq!((call.next(), call.progress.attempts), (None, 1));
    }
}

#[test]
fn a_failure_takes_a_token_of_the_throttle_where_the_others_go_on_or_the_server_forbids() {
    let (other, stop) = (Verdict::MaybeProcessed(Code::Internal), Some(Pushback::Stop));
    for (verdict, pushback, left) in
        [(UNAVAILABLE, None, 9.0), (other, None, 10.0), (other, stop, 9.0)]
    {
        let mut call = idempotent();
        let throttle = RetryThrottling::default();
        throttle.set(10.0, 1.0).unwrap();
        call.throttle = throttle.now();
        _ = call.ends(verdict, pushback, 1);
        assert_eq!(throttle.now().tokens(), left, "{verdict:?}");
    }
}

#[test]
fn a_share_of_calls_is_hedged_after_a_hundred_and_pays_from_a_budget_of_its_own() {
    let policy = policy().with_extra_load(0.5).unwrap();
    let adaptive = Arc::new(AdaptiveDelay::of(&policy, Instant::now()).unwrap());
    let race = || {
        let mut call = call(policy.clone(), Safety::Idempotent, None);
        let (adaptive, began) = (Some(adaptive.clone()), call.began);
        call.race = Race::new(policy.clone(), adaptive, &mut call.progress, began);
        call
    };
    for _ in 0..100 {
        let call = race();
        assert_eq!(call.next(), None, "nothing is known yet");
        call.race.learn(METHOD, true, call.began + 8 * MS);
    }
    let mut next = race();
    let delay = next.next().unwrap();
    assert!((8 * MS..10 * MS).contains(&delay), "{delay:?}");
    let own = &adaptive.budget;
    let before = own.tokens(next.began).unwrap().0;
    assert!(next.due(10, true).is_some());
    assert_eq!(own.tokens(next.began).unwrap().0, before - 1.0);
    // What the budget of all calls refuses is paid back.
    let mut refused = race();
    let none = Budget::new(0.0, 0).and_then(|budget| budget.with_per_second(0.0)).unwrap();
    refused.budget = SharedBudget::new(Some(none), refused.began);
    while refused.budget.withdraw(METHOD, HEDGE, refused.began) {}
    assert_eq!((refused.due(10, true), refused.race.closed()), (None, Stop::Budget));
    assert_eq!(own.tokens(refused.began).unwrap().0, before - 1.0);
}
