//! When to retry: a policy, and a pure decision.

use super::{
    attempt::Pushback,
    budget::{SharedBudget, cost},
    codes::Codes,
    hedge::HedgePolicy,
    stop::Stop,
    throttle::CallThrottling,
};
use crate::{Backoff, Code, Invalid, Safety, Stage, Verdict, clock::later};
use rand::Rng;
use std::{mem, time::Duration};
use tokio::time::Instant;

/// What a method's calls may do beyond one attempt: retries, hedges, or neither.
///
/// The default is neither: a request is repeated only if it never reached the service (gRFC A6:
/// transparent retries need no policy). In a request's extensions it is the policy of that call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    kind: Kind,
    wait_for_ready: bool,
}

/// Which of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Kind {
    /// Neither.
    #[default]
    Once,
    /// One attempt after the other.
    Retry(RetryPolicy),
    /// Several side by side.
    Hedge(HedgePolicy),
}

/// What is retried, how often, and after how long.
///
/// The default: 3 retries (so 4 attempts) of `DEADLINE_EXCEEDED` alone, after 1 s, 2 s and 4 s
/// plus 0 to 1 s each.
///
/// ```
/// use cinchona_policy::{Code, retry::RetryPolicy};
///
/// let policy = RetryPolicy::default()
///     .with_max_retries(5)
///     .with_codes([Code::DeadlineExceeded, Code::Unavailable])?;
/// let refused = policy.with_codes([Code::InvalidArgument]).unwrap_err();
/// assert!(refused.to_string().starts_with("codes: INVALID_ARGUMENT is not allowed"));
/// # Ok::<_, cinchona_policy::Invalid>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryPolicy {
    max_retries: u32,
    codes: Codes,
    backoff: Backoff,
}

/// The decision after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Retry after a wait, none at first, uncounted: the service has not seen the request.
    Transparent(Duration),
    /// There was no connection: wait for one, uncounted.
    AwaitConnection,
    /// Retry after a wait.
    RetryAfter(Duration),
    /// The call ends, for this reason.
    Stop(Stop),
}

/// The properties of a call that matter for the decision.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Attempts made, without the transparent ones.
    pub attempts: u32,
    /// Retries since the server's last pushback.
    backoffs: u32,
    transparent: u32,
    seen_refusal: bool,
    /// Whether the method may be executed twice.
    pub safety: Safety,
    /// When the call must have ended.
    pub deadline: Option<Instant>,
    /// Whether it waits for a connection.
    pub wait_for_ready: bool,
    /// Whether the call serves one that is itself a retry.
    pub serves_retry: bool,
}

/// The outcome of an attempt, and the server's pushback.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// What the outcome means.
    pub verdict: Verdict,
    /// What the server says about the next attempt.
    pub pushback: Option<Pushback>,
    /// Whether the request can be sent again.
    pub can_repeat: bool,
    /// When it ended.
    pub now: Instant,
}

/// The limits on further attempts of a call of `method`.
#[derive(Clone, Copy, Debug)]
pub struct Limits<'a> {
    /// gRPC's own.
    pub throttle: &'a CallThrottling,
    /// That of all calls.
    pub budget: &'a SharedBudget,
    /// The path of the method.
    pub method: &'a str,
}

/// Rejected requests are repeated immediately; a limit keeps a broken connector from endless
/// repetition.
const MAX_TRANSPARENT: u32 = 1000;

/// How long a call that waits for a connection leaves between two attempts.
pub(super) const CONNECTION_WAIT: Duration = Duration::from_millis(100);

// === impl Policy ===

impl Policy {
    /// Whether a call waits for a connection, for as long as its deadline allows, instead of
    /// failing without one (gRPC's `waitForReady`). Default false.
    #[must_use]
    pub fn with_wait_for_ready(self, wait_for_ready: bool) -> Self {
        Self { wait_for_ready, ..self }
    }

    /// Whether its calls are retried or hedged, and how.
    #[doc(hidden)]
    #[inline]
    pub const fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Whether a call waits for a connection.
    #[doc(hidden)]
    #[inline]
    pub const fn waits_for_ready(&self) -> bool {
        self.wait_for_ready
    }

    /// The codes that count as failures of the server.
    #[doc(hidden)]
    #[inline]
    pub fn listed(&self) -> Codes {
        match &self.kind {
            Kind::Once => Codes::default(),
            Kind::Retry(retry) => retry.codes,
            Kind::Hedge(hedge) => hedge.codes,
        }
    }
}

impl From<RetryPolicy> for Policy {
    fn from(retry: RetryPolicy) -> Self {
        Self { kind: Kind::Retry(retry), wait_for_ready: false }
    }
}

impl From<HedgePolicy> for Policy {
    fn from(hedge: HedgePolicy) -> Self {
        Self { kind: Kind::Hedge(hedge), wait_for_ready: false }
    }
}

// === impl RetryPolicy ===

impl RetryPolicy {
    /// Tries a call at most `1 + max_retries` times; 0 disables retries. Default 3.
    #[must_use]
    pub const fn with_max_retries(self, max_retries: u32) -> Self {
        Self { max_retries, ..self }
    }

    /// Waits by `backoff` between attempts. Default [`Backoff::default`]: 1 s, 2 s, 4 s and so on,
    /// up to 120 s, plus 0 to 1 s.
    #[must_use]
    pub const fn with_backoff(self, backoff: Backoff) -> Self {
        Self { backoff, ..self }
    }

    /// Retries these codes and no others. Default `DEADLINE_EXCEEDED`.
    ///
    /// # Errors
    /// When one of them cannot become OK by trying again: `INVALID_ARGUMENT`, `NOT_FOUND`,
    /// `ALREADY_EXISTS`, `PERMISSION_DENIED`, `FAILED_PRECONDITION`, `OUT_OF_RANGE`,
    /// `UNIMPLEMENTED`, `DATA_LOSS`, `UNAUTHENTICATED` or `OK`.
    pub fn with_codes(
        self,
        codes: impl IntoIterator<Item = impl Into<i32>>,
    ) -> Result<Self, Invalid> {
        let codes = Codes::from_iter(codes);
        Ok(Self { codes: codes.retryable()?, ..self })
    }

    /// Retries these codes, even if that cannot help; `OK` is never retried.
    #[must_use]
    pub fn with_forced_codes(self, codes: impl IntoIterator<Item = impl Into<i32>>) -> Self {
        Self { codes: Codes::from_iter(codes), ..self }
    }

    /// How many attempts a call gets at most.
    pub const fn max_attempts(&self) -> u32 {
        self.max_retries.saturating_add(1)
    }

    /// Decides what to do after an attempt, and counts it.
    ///
    /// The order is gRFC A6's: what counts for the throttle must not depend on the next step.
    #[doc(hidden)]
    pub fn decide(
        &self,
        ended: Ended,
        call: &mut Progress,
        limits: Limits<'_>,
        rng: &mut impl Rng,
    ) -> Decision {
        let Ended { verdict, pushback, can_repeat, now } = ended;
        if let Some(decision) = call.before_policy(ended) {
            return decision;
        }
        let listed = self.codes.contains(verdict.code());
        if listed || pushback == Some(Pushback::Stop) {
            limits.throttle.failed();
        }
        let harmless =
            matches!(verdict, Verdict::NotProcessed(_)) || call.safety.allows_repeating();
        let stop = match () {
            () if !listed => Some(Stop::NotRetryable),
            () if pushback == Some(Pushback::Stop) => Some(Stop::Pushback),
            () if !can_repeat => Some(Stop::BodyTooLarge),
            () if !harmless => Some(Stop::NotIdempotent),
            () if call.serves_retry => Some(Stop::Chained),
            () if call.attempts > self.max_retries => Some(Stop::Exhausted),
            () if !limits.throttle.allows() => Some(Stop::Throttled),
            () => None,
        };
        if let Some(stop) = stop {
            return Decision::Stop(stop);
        }
        let wait = call.wait(pushback, &self.backoff, rng);
        // Waiting is useless for an attempt that could not even start.
        if !call.has_time(later(now, wait)) {
            return Decision::Stop(Stop::Deadline);
        }
        if !limits.budget.withdraw(limits.method, cost(verdict, pushback.is_some()), now) {
            return Decision::Stop(Stop::Budget);
        }
        Decision::RetryAfter(wait)
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_retries: 3,
            codes: Codes::from_iter([Code::DeadlineExceeded]),
            backoff: Backoff::default(),
        }
    }
}

// === impl Progress ===

impl Progress {
    /// That of a call without an attempt.
    pub const fn new(safety: Safety, deadline: Option<Instant>) -> Self {
        Self {
            attempts: 0,
            backoffs: 0,
            transparent: 0,
            seen_refusal: false,
            safety,
            deadline,
            wait_for_ready: false,
            serves_retry: false,
        }
    }

    /// The decision without a policy; otherwise the attempt is counted.
    #[inline]
    pub fn before_policy(&mut self, ended: Ended) -> Option<Decision> {
        let Ended { verdict, can_repeat, now, .. } = ended;
        if verdict == Verdict::Ok {
            return Some(Decision::Stop(Stop::Succeeded));
        }
        if let Verdict::Local(_) = verdict {
            return Some(Decision::Stop(Stop::Local));
        }
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            return Some(Decision::Stop(Stop::Deadline));
        }
        if can_repeat && self.repeats_transparently(verdict) {
            return Some(Decision::Transparent(self.pause()));
        }
        if can_repeat
            && self.wait_for_ready
            && verdict == Verdict::NotProcessed(Stage::NoConnection)
        {
            return Some(Decision::AwaitConnection);
        }
        self.attempts += 1;
        None
    }

    /// Whether gRFC A6 repeats this transparently, and counts it: without limit if it never left
    /// the client, once if the server's library refused it.
    #[inline]
    const fn repeats_transparently(&mut self, verdict: Verdict) -> bool {
        match verdict {
            Verdict::NotProcessed(Stage::NotWritten) if self.transparent < MAX_TRANSPARENT => {
                self.transparent += 1;
                true
            }
            Verdict::NotProcessed(Stage::RefusedStream) => {
                !mem::replace(&mut self.seen_refusal, true)
            }
            _ => false,
        }
    }

    /// Whether the call's deadline is later than `then`.
    #[inline]
    pub(super) fn has_time(&self, then: Instant) -> bool {
        self.deadline.is_none_or(|deadline| then < deadline)
    }

    /// A request that never left the client is sent again immediately, and then with growing waits
    /// up to 100 ms: a failed connection may stay so.
    fn pause(&self) -> Duration {
        match self.transparent {
            0 | 1 => Duration::ZERO,
            n => Duration::from_millis(1 << (n - 2).min(7)).min(CONNECTION_WAIT),
        }
    }

    /// The wait before the next attempt: the server's pushback, or else the backoff.
    fn wait(&mut self, asked: Option<Pushback>, backoff: &Backoff, rng: &mut impl Rng) -> Duration {
        if let Some(Pushback::After(wait)) = asked {
            self.backoffs = 0;
            return wait;
        }
        self.backoffs += 1;
        backoff.delay(self.backoffs, rng)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retry::throttle::RetryThrottling;

    const MS: Duration = Duration::from_millis(1);

    fn progress(deadline: Option<Instant>) -> Progress {
        Progress::new(Safety::Idempotent, deadline)
    }

    fn ended(stage: Stage, can_repeat: bool) -> Ended {
        let verdict = Verdict::NotProcessed(stage);
        Ended { verdict, pushback: None, can_repeat, now: Instant::now() }
    }

    #[test]
    fn what_never_left_the_client_goes_round_a_thousand_times_and_ever_slower() {
        let mut call = progress(None);
        let mut rounds = || call.before_policy(ended(Stage::NotWritten, true));
        for wait in [0, 1, 2, 4, 8, 16, 32, 64, 100, 100] {
            assert_eq!(rounds(), Some(Decision::Transparent(wait * MS)));
        }
        assert!((10..1000).all(|_| rounds() == Some(Decision::Transparent(CONNECTION_WAIT))));
        assert_eq!(rounds(), None);
        assert_eq!(call.attempts, 1, "those that went round do not count");
    }

    #[test]
    fn what_the_server_turned_away_goes_round_once() {
        let mut call = progress(None);
        let mut rounds = || call.before_policy(ended(Stage::RefusedStream, true));
        assert_eq!([rounds(), rounds()], [Some(Decision::Transparent(Duration::ZERO)), None]);
    }

    #[test]
    fn only_who_has_no_connection_waits_for_one_and_only_where_that_is_wanted() {
        for (stage, wanted, can_repeat, waits) in [
            (Stage::NoConnection, true, true, true),
            (Stage::NoConnection, false, true, false),
            (Stage::NoConnection, true, false, false),
            (Stage::NotWritten, true, false, false),
        ] {
            let mut call = Progress { wait_for_ready: wanted, ..progress(None) };
            let decision = call.before_policy(ended(stage, can_repeat));
            assert_eq!(decision, waits.then_some(Decision::AwaitConnection), "{stage:?}");
        }
        let policy = Policy::from(RetryPolicy::default());
        assert!(!policy.waits_for_ready());
        assert!(policy.with_wait_for_ready(true).waits_for_ready());
    }

    #[test]
    fn there_is_time_until_the_deadline_and_none_at_it() {
        let now = Instant::now();
        assert!(progress(None).has_time(now + Duration::from_secs(1 << 30)));
        let call = progress(Some(now + 2 * MS));
        assert_eq!([1, 2, 3].map(|ms| call.has_time(now + ms * MS)), [true, false, false]);
    }

    /// The decision on a failed attempt, and the tokens that it leaves of ten.
    fn decide(ended: Ended, mut call: Progress) -> (Decision, f64) {
        let throttle = RetryThrottling::default();
        throttle.set(10.0, 1.0).unwrap();
        let (throttle, budget) = (throttle.now(), SharedBudget::new(None, Instant::now()));
        let limits = Limits { throttle: &throttle, budget: &budget, method: "/a.B/C" };
        let policy = RetryPolicy::default().with_codes([Code::Unavailable]).unwrap();
        let mut rng = crate::Rng::seeded(1).draw();
        let decision = policy.decide(ended, &mut call, limits, &mut rng);
        (decision, throttle.tokens())
    }

    #[test]
    fn the_first_reason_not_to_retry_is_the_one_that_is_given() {
        let listed = Verdict::MaybeProcessed(Code::Unavailable);
        let other = Verdict::MaybeProcessed(Code::Internal);
        let (stop, after) = (Some(Pushback::Stop), Some(Pushback::After(MS)));
        let spent = Progress { attempts: 4, ..progress(None) };
        let serves_retry = Progress { serves_retry: true, ..spent };
        let not_safe = Progress { safety: Safety::Unknown, ..serves_retry };
        for (verdict, pushback, can_repeat, call, reason, tokens) in [
            (other, None, false, not_safe, Some(Stop::NotRetryable), 10.0),
            (other, after, false, not_safe, Some(Stop::NotRetryable), 10.0),
            (other, stop, false, not_safe, Some(Stop::NotRetryable), 9.0),
            (listed, stop, false, not_safe, Some(Stop::Pushback), 9.0),
            (listed, None, false, not_safe, Some(Stop::BodyTooLarge), 9.0),
            (listed, None, true, not_safe, Some(Stop::NotIdempotent), 9.0),
            (listed, None, true, serves_retry, Some(Stop::Chained), 9.0),
            (listed, None, true, spent, Some(Stop::Exhausted), 9.0),
            (listed, after, true, progress(None), None, 9.0),
        ] {
            let ended = Ended { verdict, pushback, can_repeat, now: Instant::now() };
            let expected = reason.map_or(Decision::RetryAfter(MS), Decision::Stop);
            assert_eq!(decide(ended, call), (expected, tokens));
        }
    }

    #[test]
    fn a_code_that_is_listed_twice_is_listed() {
        let twice = [Code::Unavailable, Code::Aborted, Code::Unavailable];
        let once = RetryPolicy::default().with_codes([Code::Aborted, Code::Unavailable]);
        assert_eq!(RetryPolicy::default().with_codes(twice), once);
    }

    /// gRFC A6: each wait is longer by the multiplier, and what the server asks for begins anew.
    #[test]
    fn a_call_is_tried_as_often_and_after_such_waits_as_its_policy_says() {
        let backoff = Backoff::new(100 * MS, 2.0, Duration::from_secs(1)).unwrap();
        let policy = RetryPolicy::default()
            .with_max_retries(4)
            .with_backoff(backoff.with_jitter(crate::Jitter::None))
            .with_forced_codes([Code::Internal]);
        assert_eq!(policy.max_attempts(), 5);
        let throttle = RetryThrottling::default().now();
        let budget = SharedBudget::new(None, Instant::now());
        let limits = Limits { throttle: &throttle, budget: &budget, method: "/a.B/C" };
        let (mut call, mut rng) = (progress(None), crate::Rng::seeded(1).draw());
        let retry = |ms| Decision::RetryAfter(ms * MS);
        for (pushback, expected) in [
            (None, retry(100)),
            (None, retry(200)),
            (Some(Pushback::After(7 * MS)), retry(7)),
            (None, retry(100)),
            (None, Decision::Stop(Stop::Exhausted)),
        ] {
            let verdict = Verdict::MaybeProcessed(Code::Internal);
            let ended = Ended { verdict, pushback, can_repeat: true, now: Instant::now() };
            assert_eq!(policy.decide(ended, &mut call, limits, &mut rng), expected);
        }
    }

    /// gRFC A6: of ten tokens, more than five must be left.
    #[test]
    fn a_call_that_leaves_the_throttle_no_more_than_half_is_not_retried() {
        let verdict = Verdict::MaybeProcessed(Code::Unavailable);
        let pushback = Some(Pushback::After(MS));
        for (failed, expected) in
            [(3, Decision::RetryAfter(MS)), (4, Decision::Stop(Stop::Throttled))]
        {
            let throttle = RetryThrottling::default();
            throttle.set(10.0, 1.0).unwrap();
            let throttle = throttle.now();
            (0..failed).for_each(|_| throttle.failed());
            let budget = SharedBudget::new(None, Instant::now());
            let limits = Limits { throttle: &throttle, budget: &budget, method: "/a.B/C" };
            let ended = Ended { verdict, pushback, can_repeat: true, now: Instant::now() };
            let (mut call, mut rng) = (progress(None), crate::Rng::seeded(1).draw());
            let policy = RetryPolicy::default().with_codes([Code::Unavailable]).unwrap();
            assert_eq!(policy.decide(ended, &mut call, limits, &mut rng), expected);
        }
    }
}
