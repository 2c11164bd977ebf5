//! When to retry: a policy, and a pure decision.

use crate::{
    budget::{SharedBudget, cost},
    codes::Codes,
    hedge::HedgePolicy,
    stop::Stop,
    throttle::CallThrottle,
};
use cinchona_core::{Deadline, Invalid, Safety, Stage, Verdict};
use cinchona_plumbing::{
    Backoff,
    clock::later,
    headers,
    status::{self, Pushback},
    timeout::GRPC_TIMEOUT,
};
use http::HeaderMap;
use rand::Rng;
use std::{mem, time::Duration};
use tokio::time::Instant;
use tonic::Code;

/// What a method's calls may do beyond one attempt: retries, hedges, or neither.
///
/// The default is neither: a request is repeated only if it never reached the service (gRFC A6:
/// transparent retries need no policy). In a request's extensions it is the policy of that call.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    pub(crate) kind: Kind,
    pub(crate) wait_for_ready: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) enum Kind {
    #[default]
    Once,
    Retry(RetryPolicy),
    Hedge(HedgePolicy),
}

/// What is retried, how often, and after how long.
///
/// The default: 3 retries (so 4 attempts) of `DEADLINE_EXCEEDED` alone, after 1 s, 2 s and 4 s
/// plus 0 to 1 s each.
///
/// ```
/// use cinchona_retry::RetryPolicy;
/// use tonic::Code;
///
/// let policy = RetryPolicy::default()
///     .with_max_retries(5)
///     .with_codes([Code::DeadlineExceeded, Code::Unavailable])?;
/// let refused = policy.with_codes([Code::InvalidArgument]).unwrap_err();
/// assert!(refused.to_string().starts_with("codes: INVALID_ARGUMENT is not allowed"));
/// # Ok::<_, cinchona_core::Invalid>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryPolicy {
    max_retries: u32,
    pub(crate) codes: Codes,
    backoff: Backoff,
}

/// The decision after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Retry after a wait, none at first, uncounted: the service has not seen the request.
    Transparent(Duration),
    /// There was no connection: wait for one, uncounted.
    AwaitConnection,
    RetryAfter(Duration),
    Stop(Stop),
}

/// The properties of a call that matter for the decision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// Attempts made, without the transparent ones.
    pub(crate) attempts: u32,
    /// Retries since the server's last pushback.
    pub(crate) backoffs: u32,
    pub(crate) transparent: u32,
    pub(crate) seen_refusal: bool,
    pub(crate) safety: Safety,
    pub(crate) deadline: Option<Instant>,
    pub(crate) wait_for_ready: bool,
    /// Whether the call serves one that is itself a retry.
    pub(crate) chained: bool,
}

/// The outcome of an attempt, and the server's pushback.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) verdict: Verdict,
    pub(crate) pushback: Option<Pushback>,
    /// Whether the request can be sent again.
    pub(crate) can_repeat: bool,
    pub(crate) now: Instant,
}

/// The limits on further attempts of a call of `method`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits<'a> {
    pub(crate) throttle: &'a CallThrottle,
    pub(crate) budget: &'a SharedBudget,
    pub(crate) method: &'a str,
}

/// Rejected requests are repeated immediately; a limit keeps a broken connector from endless
/// repetition.
const MAX_TRANSPARENT: u32 = 1000;

/// How long a call that waits for a connection leaves between two attempts.
pub(crate) const LOOK: Duration = Duration::from_millis(100);

// === impl Policy ===

impl Policy {
    /// Whether a call waits for a connection, for as long as its deadline allows, instead of
    /// failing without one (gRPC's `waitForReady`). Default false.
    #[must_use]
    pub fn with_wait_for_ready(self, wait_for_ready: bool) -> Self {
        Self { wait_for_ready, ..self }
    }

    /// The codes that count as failures of the server.
    pub(crate) fn listed(&self) -> Codes {
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

    /// Waits by `backoff` between attempts.
    #[must_use]
    pub const fn with_backoff(self, backoff: Backoff) -> Self {
        Self { backoff, ..self }
    }

    /// Retries these codes and no others.
    ///
    /// # Errors
    /// When one of them cannot become OK by trying again: `INVALID_ARGUMENT`, `NOT_FOUND`,
    /// `ALREADY_EXISTS`, `PERMISSION_DENIED`, `FAILED_PRECONDITION`, `OUT_OF_RANGE`,
    /// `UNIMPLEMENTED`, `DATA_LOSS`, `UNAUTHENTICATED` or `OK`.
    pub fn with_codes(self, codes: impl IntoIterator<Item = Code>) -> Result<Self, Invalid> {
        let codes = Codes::from_iter(codes);
        Ok(Self { codes: codes.retryable()?, ..self })
    }

    /// Retries these codes, even if that cannot help; `OK` is never retried.
    #[must_use]
    pub fn with_forced_codes(self, codes: impl IntoIterator<Item = Code>) -> Self {
        Self { codes: Codes::from_iter(codes), ..self }
    }

    /// How many attempts a call gets at most.
    pub const fn max_attempts(&self) -> u32 {
        self.max_retries.saturating_add(1)
    }

    /// Decides what to do after an attempt, and counts it.
    ///
    /// The order is gRFC A6's: what counts for the throttle must not depend on the next step.
    pub(crate) fn decide(
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
            () if call.chained => Some(Stop::Chained),
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
    pub(crate) const fn new(safety: Safety, deadline: Option<Instant>) -> Self {
        Self {
            attempts: 0,
            backoffs: 0,
            transparent: 0,
            seen_refusal: false,
            safety,
            deadline,
            wait_for_ready: false,
            chained: false,
        }
    }

    /// The decision without a policy; otherwise the attempt is counted.
    pub(crate) fn before_policy(&mut self, ended: Ended) -> Option<Decision> {
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
        if can_repeat && self.goes_round(verdict) {
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
    const fn goes_round(&mut self, verdict: Verdict) -> bool {
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
    pub(crate) fn has_time(&self, then: Instant) -> bool {
        self.deadline.is_none_or(|deadline| then < deadline)
    }

    /// A request that never left the client is sent again immediately, and then with growing waits
    /// up to 100 ms: a failed connection may stay so.
    fn pause(&self) -> Duration {
        match self.transparent {
            0 | 1 => Duration::ZERO,
            n => Duration::from_millis(1 << (n - 2).min(7)).min(LOOK),
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

    /// Stamps the number of the attempt and the remaining time.
    pub(crate) fn stamp(&self, headers: &mut HeaderMap, now: Instant) {
        if self.attempts > 0 {
            headers.insert(status::PREVIOUS_ATTEMPTS, self.attempts.into());
        }
        // A stream's deadline may be that of its first message only: then the first attempt has not
        // sent it either.
        if let Some(deadline) = self.deadline
            && headers::has(headers, &GRPC_TIMEOUT)
        {
            Deadline(deadline).stamp(headers, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throttle::Throttle;

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
        assert!((10..1000).all(|_| rounds() == Some(Decision::Transparent(LOOK))));
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
        assert!(policy.with_wait_for_ready(true).wait_for_ready);
    }

    #[test]
    fn there_is_time_until_the_deadline_and_none_at_it() {
        let now = Instant::now();
        assert!(progress(None).has_time(now + Duration::from_secs(1 << 30)));
        let call = progress(Some(now + 2 * MS));
        assert_eq!([1, 2, 3].map(|ms| call.has_time(now + ms * MS)), [true, false, false]);
    }

    #[test]
    fn a_further_attempt_says_which_it_is_and_how_long_there_is_where_the_first_has_said_so() {
        let now = Instant::now();
        let stamped = |attempts, deadline, timeout: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            timeout.map(|it| headers.insert(GRPC_TIMEOUT, http::HeaderValue::from_static(it)));
            Progress { attempts, ..progress(deadline) }.stamp(&mut headers, now);
            let timeout = Deadline::parse_timeout(&headers).unwrap();
            (headers.get(status::PREVIOUS_ATTEMPTS).cloned(), timeout)
        };
        let deadline = Some(now + 7 * MS);
        assert_eq!(stamped(0, deadline, Some("1S")), (None, Some(7 * MS)));
        assert_eq!(stamped(2, deadline, None), (Some(2.into()), None));
        assert_eq!(stamped(1, None, Some("1S")), (Some(1.into()), Some(1000 * MS)));
    }

    /// The decision on a failed attempt, and the tokens that it leaves of ten.
    fn decide(ended: Ended, mut call: Progress) -> (Decision, f64) {
        let throttle = Throttle::default();
        throttle.set(10.0, 1.0).unwrap();
        let (throttle, budget) = (throttle.now(), SharedBudget::new(None, Instant::now()));
        let limits = Limits { throttle: &throttle, budget: &budget, method: "/a.B/C" };
        let policy = RetryPolicy::default().with_codes([Code::Unavailable]).unwrap();
        let mut rng = cinchona_core::Rng::seeded(1).draw();
        let decision = policy.decide(ended, &mut call, limits, &mut rng);
        (decision, throttle.tokens())
    }

    #[test]
    fn the_first_reason_not_to_retry_is_the_one_that_is_given() {
        let listed = Verdict::MaybeProcessed(Code::Unavailable);
        let other = Verdict::MaybeProcessed(Code::Internal);
        let (stop, after) = (Some(Pushback::Stop), Some(Pushback::After(MS)));
        let spent = Progress { attempts: 4, ..progress(None) };
        let chained = Progress { chained: true, ..spent };
        let not_safe = Progress { safety: Safety::Unknown, ..chained };
        for (verdict, pushback, can_repeat, call, reason, tokens) in [
            (other, None, false, not_safe, Some(Stop::NotRetryable), 10.0),
            (other, after, false, not_safe, Some(Stop::NotRetryable), 10.0),
            (other, stop, false, not_safe, Some(Stop::NotRetryable), 9.0),
            (listed, stop, false, not_safe, Some(Stop::Pushback), 9.0),
            (listed, None, false, not_safe, Some(Stop::BodyTooLarge), 9.0),
            (listed, None, true, not_safe, Some(Stop::NotIdempotent), 9.0),
            (listed, None, true, chained, Some(Stop::Chained), 9.0),
            (listed, None, true, spent, Some(Stop::Exhausted), 9.0),
            (listed, after, true, progress(None), None, 9.0),
        ] {
            let ended = Ended { verdict, pushback, can_repeat, now: Instant::now() };
            let expected = reason.map_or(Decision::RetryAfter(MS), Decision::Stop);
            assert_eq!(decide(ended, call), (expected, tokens));
        }
    }
}
