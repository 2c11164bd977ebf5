//! One logical call: its request, its progress, and its attempts.

use crate::{ledger::Ledger, policies::RunningPolicy, shared::Shared};
use cinchona_core::{
    AttemptKind, BoxError, Call as Record, Deadline, IDEMPOTENCY_KEY, Mode, ServerContext, Stage,
    Verdict,
};
use cinchona_plumbing::{
    Elapsed, Replay, ResponseBody, begins, code, headers,
    status::{self, Pushback},
};
use cinchona_policy::retry::{
    AdaptiveDelay, CallThrottling, Decision, Ended, Kind, Limits, Policy, Progress, Stop,
};
use http::{HeaderName, Request, Response};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use tonic::{Status, body::Body};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const WITHIN_ATTEMPTS: &str = "a retry layer stands within the attempts of another, so that they \
    multiply: leave one of them out";

pub(crate) type Outcome = Result<Response<ResponseBody>, BoxError>;

pub(crate) struct Call {
    pub(crate) began: Instant,
    /// The handle of the first attempt.
    pub(crate) record: Record,
    pub(crate) replay: Replay<Record>,
    pub(crate) progress: Progress,
    pub(crate) policy: Policy,
    /// What the layer's calls have shown, if it hedges by an extra load.
    pub(crate) adaptive: Option<Arc<AdaptiveDelay>>,
    pub(crate) throttle: CallThrottling,
    pub(crate) shared: Arc<Shared>,
}

/// An attempt that was begun: which of the rebuilt requests it sends, from 0, and its line in the
/// record.
#[derive(Clone, Debug)]
pub(crate) struct Begun {
    pub(crate) built: u32,
    pub(crate) line: Record,
}

fn verdict(outcome: &Outcome) -> Verdict {
    match outcome {
        Ok(response) if begins(response) => Verdict::Ok,
        outcome => Verdict::of(outcome),
    }
}

// === impl Call ===

impl Call {
    /// The call, and the request of its first attempt.
    pub(crate) fn begin(
        mut first: Request<Body>,
        shared: &Arc<Shared>,
        mode: Mode,
        now: Instant,
    ) -> Result<(Box<Self>, Request<Body>), Status> {
        let deadline = Deadline::of(&first, now)
            .map_err(|invalid| Status::invalid_argument(invalid.to_string()))?;
        // gRFC A6 reserves the header: the application's value is not passed on.
        if mode == Mode::Enforce {
            headers::remove(first.headers_mut(), &status::PREVIOUS_ATTEMPTS);
        }
        let policy = first.extensions_mut().remove::<Policy>();
        let RunningPolicy { policy, adaptive } = shared.policies.get(first.uri().path(), policy);
        let safety = shared.methods.safety_of(&first);
        let mut progress = Progress::new(safety, deadline.map(|deadline| deadline.0));
        progress.wait_for_ready = policy.waits_for_ready();
        progress.serves_retry = !shared.retries_of_retries
            && ServerContext::current().is_some_and(|inbound| inbound.previous_attempts > 0);
        let (replay, mut first) = Replay::capture(first, &shared.buffer);
        if let Some(failed) = replay.failure() {
            // As over a bare channel, but without sending it.
            return Err(failed);
        }
        let record = Record::of(&mut first, || now);
        if record.is_of_attempt() {
            shared.misplaced.warn(replay.uri().path(), WITHIN_ATTEMPTS);
        }
        *record = record.begins(AttemptKind::First, now);
        record.set_size(replay.size());
        let record = record.clone();
        let (throttle, shared) = (shared.throttle.now(), shared.clone());
        let call =
            Self { began: now, record, replay, progress, policy, adaptive, throttle, shared };
        // Boxed: it is large, and what is around it moves.
        Ok((Box::new(call), first))
    }

    pub(crate) fn path(&self) -> &str {
        self.replay.uri().path()
    }

    pub(crate) fn first(&self) -> Begun {
        Begun { built: 0, line: self.record.clone() }
    }

    /// An attempt of this kind, which begins at `at`, and its request; `None` once the request
    /// cannot be sent again.
    pub(crate) fn begin_again(
        &mut self,
        kind: AttemptKind,
        at: Instant,
    ) -> Option<(Begun, Request<Body>)> {
        let built = self.replay.built();
        let mut request = self.replay.request()?;
        let line = self.record.begins(kind, at);
        request.extensions_mut().insert(line.clone());
        Some((Begun { built, line }, request))
    }

    /// Whether a success at this point has no ledger.
    fn is_plain(&self) -> bool {
        self.replay.built() == 1 && !self.shared.explained
    }

    /// The outcome of an attempt. If the request's own body has failed, its error is the cause, not
    /// how HTTP/2 reported it.
    pub(crate) fn verdict(&self, outcome: &mut Outcome) -> Verdict {
        match self.replay.failure() {
            Some(own) if outcome.is_err() => {
                let local = Verdict::Local(own.code());
                *outcome = Err(own.into());
                local
            }
            _ => verdict(outcome),
        }
    }

    /// What to do after an attempt that has just ended.
    pub(crate) fn judge(&mut self, outcome: &mut Outcome, begun: &Begun) -> Decision {
        let verdict = self.verdict(outcome);
        if verdict == Verdict::Ok && self.is_plain() {
            return Decision::Stop(Stop::Succeeded);
        }
        let now = Instant::now();
        let pushback = outcome.as_ref().ok().and_then(|head| status::pushback(head.headers()));
        let can_repeat = self.replay.can_repeat();
        let ended = Ended { verdict: verdict.into(), pushback, can_repeat, now };
        let decision = match self.policy.kind() {
            Kind::Retry(retry) => {
                let Shared { budget, rng, .. } = &*self.shared;
                let (throttle, method) = (&self.throttle, self.replay.uri().path());
                let limits = Limits { throttle, budget, method };
                retry.decide(ended, &mut self.progress, limits, &mut rng.draw())
            }
            _ => {
                let decided = self.progress.before_policy(ended);
                decided.unwrap_or(Decision::Stop(Stop::NotRetryable))
            }
        };
        if decision == Decision::Stop(Stop::NotIdempotent) {
            self.shared.unsafe_to_repeat.warn(self.path(), verdict.code());
        }
        if decision == Decision::Stop(Stop::Deadline) && self.progress.wait_for_ready {
            self.has_waited_in_vain(verdict, outcome);
        }
        begun.end(verdict, pushback, now);
        // A wait for a connection is not an attempt: nothing was sent, and it may last long.
        if decision == Decision::AwaitConnection {
            begun.line.withdraw();
        }
        decision
    }

    /// A call that waits for a connection ends at its deadline with that, not with the last failure
    /// to connect.
    pub(crate) fn has_waited_in_vain(&self, verdict: Verdict, outcome: &mut Outcome) {
        if verdict == Verdict::NotProcessed(Stage::NoConnection) {
            *outcome = Err(self.elapsed().into());
        }
    }

    /// The call's deadline has passed.
    pub(crate) fn elapsed(&self) -> Elapsed {
        Elapsed::new(format!("call deadline exceeded by {}", self.path()))
    }

    /// Whether a hedge would have begun beside an attempt that `took` this long.
    pub(crate) fn would_hedge(&self, outcome: &Outcome, took: Duration) -> bool {
        let Kind::Hedge(hedge) = self.policy.kind() else { return false };
        let verdict = cinchona_policy::Verdict::from(verdict(outcome));
        self.progress.safety.allows_repeating()
            && hedge.would_begin(verdict.code(), took, self.adaptive.as_deref())
    }

    pub(crate) fn report_retry(&self, failed: &Begun, wait: Duration, of: u32) {
        failed.line.waits(wait);
        let failed = failed.line.with_attempt(|attempt, _| attempt.verdict).flatten();
        let id = self.replay.header(&REQUEST_ID);
        let request_id = id.or_else(|| self.replay.header(&IDEMPOTENCY_KEY));
        tracing::info!(
            rpc.method = self.path(),
            attempt = self.progress.attempts,
            of,
            code = failed.map(|failed| code::name(failed.code())),
            ?wait,
            request_id = request_id.and_then(|id| id.to_str().ok()),
            "attempt failed, retrying"
        );
    }

    /// The outcome of the `n`th request for the caller, with the ledger of the call.
    pub(crate) fn close(mut self: Box<Self>, outcome: Outcome, stop: Stop, n: u32) -> Outcome {
        let status = match outcome {
            Ok(mut response) if stop == Stop::Succeeded => {
                self.replay.settle(n);
                if !self.is_plain() {
                    response.extensions_mut().insert(self.ledger(stop));
                }
                if begins(&response) {
                    response.body_mut().watch_boxed(Box::into_pin(self));
                    return Ok(response);
                }
                status::mend(response.headers_mut());
                return Ok(match status::code(response.headers()) {
                    Some(code) => {
                        self.ended(Verdict::of_code(code), Instant::now);
                        response
                    }
                    None => {
                        response.body_mut().watch_boxed(Box::into_pin(self));
                        response
                    }
                });
            }
            Ok(response) => status::of_head(&response),
            Err(error) => Verdict::status_of(error),
        };
        tracing::debug!(rpc.method = self.path(), ?stop, "giving up");
        Err(self.ledger(stop).close(status, self.shared.explained).into())
    }

    /// The attempts that have ended, and why there was not another.
    fn ledger(&self, stopped: Stop) -> Ledger {
        Ledger::new(self.record.ended_attempts(), self.began, stopped)
    }
}

// === impl Begun ===

impl Begun {
    /// Records the outcome of the attempt.
    pub(crate) fn end(&self, verdict: Verdict, pushback: Option<Pushback>, now: Instant) {
        self.line.ended(verdict, now);
        pushback.into_iter().for_each(|pushback| self.line.pushed_back(pushback));
    }
}
