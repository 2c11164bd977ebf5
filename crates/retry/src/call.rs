//! One logical call: its request, its progress, and its attempts.

use crate::{policies::RunningPolicy, shared::Shared};
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
use tonic::{Code, Status, body::Body};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const WITHIN_ATTEMPTS: &str = "a retry layer stands within the attempts of another, so that they \
    multiply: leave one of them out";

/// What the service has returned for an attempt.
pub(crate) type AttemptResult = Result<Response<ResponseBody>, BoxError>;

/// A call of the application, and all that its attempts need.
pub(crate) struct Call {
    pub(crate) began: Instant,
    /// The record of the call: the handle of the first attempt.
    pub(crate) record: Record,
    pub(crate) replay: Replay<Record>,
    pub(crate) progress: Progress,
    pub(crate) policy: Policy,
    /// What the layer's calls have shown, if it hedges by an extra load.
    pub(crate) adaptive: Option<Arc<AdaptiveDelay>>,
    pub(crate) throttle: CallThrottling,
    pub(crate) shared: Arc<Shared>,
}

/// An attempt that is in flight, or waits for its time.
#[derive(Clone, Debug)]
pub(crate) struct RunningAttempt {
    /// Which of the rebuilt requests it sends, from 0.
    pub(crate) request_number: u32,
    /// The handle of its line in the call's record.
    pub(crate) record: Record,
}

fn verdict(result: &AttemptResult) -> Verdict {
    match result {
        Ok(response) if begins(response) => Verdict::Ok,
        result => Verdict::of(result),
    }
}

// === impl Call ===

impl Call {
    /// The call, and the request of its first attempt.
    pub(crate) fn new(
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

    pub(crate) fn first_attempt(&self) -> RunningAttempt {
        RunningAttempt { request_number: 0, record: self.record.clone() }
    }

    /// A further attempt of this kind, which starts at `at`, and its request; `None` once that
    /// cannot be sent again.
    pub(crate) fn next_attempt(
        &mut self,
        kind: AttemptKind,
        at: Instant,
    ) -> Option<(RunningAttempt, Request<Body>)> {
        let request_number = self.replay.built();
        let mut request = self.replay.request()?;
        let record = self.record.schedules(kind, at);
        request.extensions_mut().insert(record.clone());
        Some((RunningAttempt { request_number, record }, request))
    }

    /// Whether a success now needs no ledger.
    pub(crate) fn is_plain(&self) -> bool {
        self.replay.built() == 1 && !self.shared.explained
    }

    /// What the result of an attempt means. If the request's own body has failed, its error is the
    /// cause, not how HTTP/2 reported it.
    pub(crate) fn verdict(&self, result: &mut AttemptResult) -> Verdict {
        match self.replay.failure() {
            Some(own) if result.is_err() => {
                let local = Verdict::Local(own.code());
                *result = Err(own.into());
                local
            }
            _ => verdict(result),
        }
    }

    /// What the call's policy decides after an attempt. Where it does not retry, only what never
    /// reached the service is repeated.
    pub(crate) fn decide(&mut self, ended: Ended) -> Decision {
        match *self.policy.kind() {
            Kind::Retry(retry) => {
                let mut rng = self.shared.rng.draw();
                self.with_limits(|progress, limits| retry.decide(ended, progress, limits, &mut rng))
            }
            Kind::Once | Kind::Hedge(_) => {
                let decided = self.progress.before_policy(ended);
                decided.unwrap_or(Decision::Stop(Stop::NotRetryable))
            }
        }
    }

    /// Calls `decide` with the progress of the call, and the limits on its further attempts.
    pub(crate) fn with_limits<T>(
        &mut self,
        decide: impl FnOnce(&mut Progress, Limits<'_>) -> T,
    ) -> T {
        let (throttle, budget) = (&self.throttle, &self.shared.budget);
        let limits = Limits { throttle, budget, method: self.replay.uri().path() };
        decide(&mut self.progress, limits)
    }

    /// Warns, once for each method, that this one is not repeated after `code`.
    pub(crate) fn warn_unsafe_to_repeat(&self, code: Code) {
        self.shared.unsafe_to_repeat.warn(self.path(), code);
    }

    /// A call that has waited for a connection until its deadline ends with that, not with the last
    /// failure to connect.
    pub(crate) fn blame_deadline(&self, verdict: Verdict, result: &mut AttemptResult) {
        let no_connection = Verdict::NotProcessed(Stage::NoConnection);
        if self.progress.wait_for_ready && verdict == no_connection {
            *result = Err(self.elapsed().into());
        }
    }

    /// The call's deadline has passed.
    pub(crate) fn elapsed(&self) -> Elapsed {
        Elapsed::new(format!("call deadline exceeded by {}", self.path()))
    }

    /// Whether a hedge would have begun beside an attempt that `took` this long.
    pub(crate) fn would_hedge(&self, result: &AttemptResult, took: Duration) -> bool {
        let Kind::Hedge(hedge) = self.policy.kind() else { return false };
        let verdict = cinchona_policy::Verdict::from(verdict(result));
        self.progress.safety.allows_repeating()
            && hedge.would_begin(verdict.code(), took, self.adaptive.as_deref())
    }

    pub(crate) fn report_retry(&self, failed: &RunningAttempt, wait: Duration, of: u32) {
        failed.record.waits(wait);
        let failed = failed.record.with_attempt(|attempt, _| attempt.verdict).flatten();
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
}

// === impl RunningAttempt ===

impl RunningAttempt {
    /// Records what became of the attempt.
    pub(crate) fn end(&self, verdict: Verdict, pushback: Option<Pushback>, now: Instant) {
        self.record.ended(verdict, now);
        pushback.into_iter().for_each(|pushback| self.record.pushed_back(pushback));
    }
}
