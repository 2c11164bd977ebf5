//! Hedging: the same request several times at once, and the first good answer wins.

mod attempt;

use crate::{
    Spare,
    body::ResponseBody,
    budget::{Budget, HEDGE, SharedBudget},
    call::{Begun, Call, Outcome},
    clone,
    codes::Codes,
    executor::elapsed,
    ledger::AttemptKind,
    policy::{Decision, Ended, LOOK, Stop},
};
use attempt::{Attempt, Start, at, attempt};
use cinchona_core::{
    BoxError, Invalid, Latency, Verdict,
    clock::later,
    status::{self, Pushback},
};
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::{Request, Response};
use std::{fmt, sync::Arc, time::Duration};
use tokio::time::Instant;
use tonic::{Code, body::Body};
use tower::Service;

/// How many attempts a call makes at once, and when they begin (gRFC A6, hedging).
///
/// The default: at most 2, the second after 1 s or as soon as the first has failed with
/// `UNAVAILABLE`. Only for methods that may be executed more than once.
///
/// ```
/// use cinchona_retry::HedgePolicy;
/// use std::time::Duration;
///
/// let hedge = HedgePolicy::default().with_delay(Duration::from_millis(50));
/// // Or: whatever delay costs 2 % more requests.
/// let hedge = hedge.with_extra_load(0.02)?;
/// assert!(hedge.with_extra_load(2.0).is_err());
/// # Ok::<_, cinchona_core::Invalid>(())
/// ```
#[derive(Clone)]
pub struct HedgePolicy {
    max_attempts: u32,
    delay: Duration,
    /// The codes after which the other attempts go on.
    pub(crate) codes: Codes,
    adaptive: Option<Arc<Adaptive>>,
}

const MOST_ATTEMPTS: u32 = 100;

/// The delay follows the latency, and what it costs is capped.
struct Adaptive {
    latency: Latency,
    budget: SharedBudget,
}

// === impl HedgePolicy ===

impl HedgePolicy {
    /// Makes at most this many attempts, the first included; less than 2 disables hedging, and more
    /// than 100 are 100 (a service config has at most 5, gRFC A6).
    pub fn with_max_attempts(self, max_attempts: u32) -> Self {
        Self { max_attempts: max_attempts.min(MOST_ATTEMPTS), ..self }
    }

    /// Begins an attempt this long after the one before; zero begins all of them at once.
    pub fn with_delay(self, delay: Duration) -> Self {
        Self { delay, adaptive: None, ..self }
    }

    /// Lets the other attempts go on after one of these codes; any other ends the call.
    pub fn with_non_fatal_codes(self, codes: impl IntoIterator<Item = Code>) -> Self {
        Self { codes: codes.into_iter().collect(), ..self }
    }

    /// Sets the delay by itself: to the quantile of the latency beyond which a share of
    /// `extra_load` of all calls lie, so that about this share is hedged, and never more.
    ///
    /// Nothing is hedged before 100 calls have been answered.
    ///
    /// # Errors
    /// When `extra_load` is not above 0 and at most 1.
    pub fn with_extra_load(self, extra_load: f64) -> Result<Self, Invalid> {
        if !(extra_load > 0.0 && extra_load <= 1.0) {
            return Err(Invalid::new("extra_load", extra_load, "above 0 and at most 1"));
        }
        // Never more than the share: so no tokens by time.
        let budget = Budget::new(extra_load, 10)?.with_per_second(0.0)?;
        let budget = SharedBudget::new(Some(budget), Instant::now());
        let adaptive = Adaptive { latency: Latency::new(1.0 - extra_load), budget };
        Ok(Self { adaptive: Some(Arc::new(adaptive)), ..self })
    }

    /// Whether a second attempt begins while the first takes this long.
    pub(crate) fn is_due_after(&self, took: Duration) -> bool {
        self.max_attempts > 1 && self.delay().is_some_and(|delay| delay < took)
    }

    /// How long to wait for an attempt before the next; `None` while that is not known.
    fn delay(&self) -> Option<Duration> {
        match &self.adaptive {
            Some(adaptive) => adaptive.latency.current(),
            None => Some(self.delay),
        }
    }
}

impl Default for HedgePolicy {
    fn default() -> Self {
        let codes = [Code::Unavailable].into_iter().collect();
        Self { max_attempts: 2, delay: Duration::from_secs(1), codes, adaptive: None }
    }
}

impl fmt::Debug for HedgePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HedgePolicy")
            .field("max_attempts", &self.max_attempts)
            .field("delay", &self.delay())
            .field("non_fatal_codes", &self.codes)
            .finish_non_exhaustive()
    }
}

/// A call under way: which attempts are, and when the next one is to begin.
struct Race {
    policy: HedgePolicy,
    call: Call,
    began: Instant,
    /// Those that were begun and have not ended.
    running: Vec<Attempt>,
    built: u32,
    /// When the next one is to begin.
    next: Option<Instant>,
    /// Why no other one will.
    closed: Option<Stop>,
}

/// What to do when an attempt has ended.
enum Next {
    GoOn,
    /// Begin this one anew, after a wait: it was never seen.
    Again(Attempt, Duration),
    Finish(Stop),
}

/// Runs the attempts side by side; the `first` was begun by the service that was ready for it.
pub(crate) async fn race<S, B>(
    call: Call,
    policy: HedgePolicy,
    spare: Spare<S>,
    first: S::Future,
) -> Outcome<ResponseBody<B>>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone,
    S::Error: Into<BoxError>,
    B: http_body::Body,
{
    let mut race = Race::begin(call, policy);
    let mut attempts = FuturesUnordered::new();
    attempts.push(attempt(race.running[0], Start::Begun(first)));
    let deadline = race.call.progress.deadline;
    let mut failure = None;
    loop {
        while race.is_due() {
            let Some((begun, request)) = race.start() else { break };
            let start = Start::With(clone(&spare), request.into(), race.call.progress);
            attempts.push(attempt(begun, start));
        }
        // Nothing runs and nothing is to come: the last failure is the call's.
        if attempts.is_empty() && race.next.is_none() {
            break;
        }
        let (ended, mut outcome) = tokio::select! {
            biased;
            Some(ended) = attempts.next() => ended,
            () = at(deadline) => {
                let call = race.withdraw(false);
                let elapsed = Err(elapsed(&call).into());
                return call.close(elapsed, Stop::Deadline, 0);
            }
            () = at(race.next) => continue,
        };
        if race.call.replay.has_left_behind(ended.begun.built) {
            continue;
        }
        match race.ended(ended, &mut outcome) {
            Next::Finish(stop) => {
                return race.withdraw(true).close(outcome, stop, ended.begun.built);
            }
            Next::Again(Attempt { number, begun }, wait) => {
                if let Some((begun, request)) = race.launch(number, begun.kind, wait) {
                    let start = Start::With(clone(&spare), request.into(), race.call.progress);
                    attempts.push(attempt(begun, start));
                }
            }
            Next::GoOn => {}
        }
        failure = Some(outcome);
    }
    let stop = race.closed.unwrap_or(Stop::Exhausted);
    let outcome = failure.unwrap_or_else(|| Err(elapsed(&race.call).into()));
    race.call.close(outcome, stop, 0)
}

// === impl Race ===

impl Race {
    fn begin(call: Call, policy: HedgePolicy) -> Self {
        let began = Instant::now();
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
        let running = vec![Attempt { number: 0, begun: Begun::first(began) }];
        let mut race = Self { policy, call, began, running, built: 1, next, closed };
        race.call.progress.attempts = 1;
        race
    }

    fn is_due(&self) -> bool {
        self.next.is_some_and(|next| next <= Instant::now())
    }

    /// The next attempt, if one may begin now.
    fn start(&mut self) -> Option<(Attempt, Request<Body>)> {
        let now = Instant::now();
        let n = self.call.progress.attempts;
        self.next = None;
        let refused = if n >= self.policy.max_attempts {
            Some(Stop::Exhausted)
        } else if !self.call.replay.can_repeat() {
            Some(Stop::BodyTooLarge)
        } else if !self.call.throttle.allows() {
            Some(Stop::Throttled)
        } else if !self.is_paid_for(now) {
            Some(Stop::Budget)
        } else {
            None
        };
        if refused.is_some() {
            self.closed = refused;
            return None;
        }
        self.call.progress.attempts += 1;
        self.schedule(now);
        tracing::debug!(rpc.method = self.call.path(), attempt = n + 1, "hedging");
        self.launch(n, AttemptKind::Hedge, Duration::ZERO)
    }

    /// Whether both budgets can pay for a hedge, and pays for it.
    fn is_paid_for(&self, now: Instant) -> bool {
        let path = self.call.path();
        let own = self.policy.adaptive.as_ref().map(|adaptive| &adaptive.budget);
        if own.is_some_and(|own| !own.withdraw(path, HEDGE, now)) {
            return false;
        }
        let is_paid = self.call.shared.budget.withdraw(path, HEDGE, now);
        if let Some(own) = own.filter(|_| !is_paid) {
            own.refund(path, HEDGE);
        }
        is_paid
    }

    /// The attempt of this number, after a wait.
    fn launch(
        &mut self,
        number: u32,
        kind: AttemptKind,
        wait: Duration,
    ) -> Option<(Attempt, Request<Body>)> {
        let request = self.call.replay.request()?;
        let at = later(Instant::now(), wait);
        let attempt = Attempt { number, begun: Begun { built: self.built, kind, at } };
        self.built += 1;
        self.running.push(attempt);
        Some((attempt, request))
    }

    /// The next attempt begins a delay after `now`, if there is to be another.
    fn schedule(&mut self, now: Instant) {
        let more = self.closed.is_none() && self.call.progress.attempts < self.policy.max_attempts;
        self.next = self.policy.delay().filter(|_| more).map(|delay| later(now, delay));
    }

    fn ended<B: http_body::Body>(&mut self, ended: Attempt, outcome: &mut Outcome<B>) -> Next {
        let now = Instant::now();
        let verdict = self.call.verdict(outcome);
        self.running.retain(|running| *running != ended);
        let pushback = outcome.as_ref().ok().and_then(|head| status::pushback(head.headers()));
        let can_repeat = self.call.replay.can_repeat();
        let attempts = self.call.progress.attempts;
        let decided =
            self.call.progress.before_policy(Ended { verdict, pushback, can_repeat, now });
        self.call.progress.attempts = attempts;
        // A wait for a connection is no attempt.
        let is_waiting = decided == Some(Decision::AwaitConnection);
        let has_story = verdict != Verdict::Ok || self.built > 1 || self.call.shared.explained;
        if has_story && !is_waiting {
            self.call.note(ended.begun, verdict, now);
        }
        let (kind, wait) = match decided {
            Some(Decision::Stop(stop)) => {
                if stop == Stop::Deadline && self.call.progress.wait_for_ready {
                    self.call.has_waited_in_vain(verdict, outcome);
                }
                return Next::Finish(stop);
            }
            Some(Decision::Transparent(wait)) => (AttemptKind::Transparent, wait),
            Some(_) => (ended.begun.kind, LOOK),
            None => return self.failed(ended, verdict, pushback, now),
        };
        self.call.replay.stop(ended.begun.built);
        let begun = Begun { kind, ..ended.begun };
        Next::Again(Attempt { begun, ..ended }, wait)
    }

    /// An attempt has failed: whether the others go on.
    fn failed(
        &mut self,
        ended: Attempt,
        verdict: Verdict,
        pushback: Option<Pushback>,
        now: Instant,
    ) -> Next {
        let non_fatal = self.policy.codes.contains(verdict.code());
        if non_fatal || pushback == Some(Pushback::Stop) {
            self.call.throttle.failed();
        }
        if !non_fatal {
            return Next::Finish(Stop::NotRetryable);
        }
        self.call.replay.stop(ended.begun.built);
        match pushback {
            // No more hedges; those under way may still win.
            Some(Pushback::Stop) => (self.closed, self.next) = (Some(Stop::Pushback), None),
            _ if self.closed.is_some() => {}
            // Waiting for an attempt that could not even start is waiting for nothing.
            Some(Pushback::After(wait)) if !self.call.progress.has_time(later(now, wait)) => {
                (self.closed, self.next) = (Some(Stop::Deadline), None);
            }
            Some(Pushback::After(wait)) => self.next = Some(later(now, wait)),
            None => self.next = Some(now),
        }
        if self.call.progress.attempts >= self.policy.max_attempts {
            self.next = None;
        }
        Next::GoOn
    }

    /// The call, with those of its attempts that are reset now in its ledger.
    fn withdraw(mut self, answered: bool) -> Call {
        let now = Instant::now();
        if let Some(adaptive) = &self.policy.adaptive {
            // Where a hedge has won, the first attempt would have taken even longer.
            adaptive.latency.record(now - self.began);
            if answered {
                let depositor = adaptive.budget.depositor(self.call.path());
                adaptive.budget.deposit(&depositor, || now);
            }
        }
        for Attempt { begun, .. } in self.running {
            self.call.note(begun, Verdict::MaybeProcessed(Code::Cancelled), now);
        }
        self.call
    }
}
