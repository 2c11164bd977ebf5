//! The loop of attempts.

use crate::{
    Shared,
    ledger::Ledger,
    policy::{Decision, Progress, Stop},
};
use cinchona_core::{BoxError, Deadline, Elapsed, Once, Replay, Verdict, code, status};
use http::{HeaderValue, Request, Response, Uri};
use std::{future::Future, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Status, body::Body};
use tower::{Service, ServiceExt};

/// One logical call: what is sent again, how far it is, and what has happened to it.
struct Call {
    replay: Result<Replay, Once>,
    uri: Uri,
    request_id: Option<HeaderValue>,
    progress: Progress,
    ledger: Ledger,
    shared: Arc<Shared>,
}

type Outcome<B> = Result<Response<B>, BoxError>;

/// Tries until the policy is satisfied; `service` is ready for the first attempt.
pub(crate) async fn attempts<S, B>(
    mut service: S,
    first: Request<Body>,
    shared: Arc<Shared>,
) -> Outcome<B>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
{
    let mut began = Instant::now();
    let (mut call, first) = Call::begin(first, shared, began)?;
    let mut outcome = call.within_deadline(service.call(first)).await;
    loop {
        let decision = call.judge(&outcome, began, Instant::now());
        let wait = match decision {
            Decision::Stop(stop) => return call.close(outcome, stop),
            Decision::Transparent => Duration::ZERO,
            Decision::RetryAfter(wait) => wait,
        };
        let mut request = match &call.replay {
            Ok(replay) => replay.request(),
            Err(once) => {
                let stop = Stop::from(*once);
                return call.close(outcome, stop);
            }
        };
        call.report_retry(wait);
        drop(outcome);
        sleep(wait).await;
        began = Instant::now();
        call.progress.stamp(request.headers_mut(), began);
        outcome = call.within_deadline(ready_and_call(&mut service, request)).await;
    }
}

async fn ready_and_call<S, B>(service: &mut S, request: Request<Body>) -> Outcome<B>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
{
    let ready = service.ready().await.map_err(Into::into)?;
    ready.call(request).await.map_err(Into::into)
}

// === impl Call ===

impl Call {
    /// The call, and the request of its first attempt.
    fn begin(
        mut first: Request<Body>,
        shared: Arc<Shared>,
        now: Instant,
    ) -> Result<(Self, Request<Body>), Status> {
        let deadline = Deadline::of(&first, now)
            .map_err(|invalid| Status::invalid_argument(invalid.to_string()))?;
        // gRFC A6 reserves the header: what the application put there is not passed on.
        first.headers_mut().remove(status::PREVIOUS_ATTEMPTS);
        let uri = first.uri().clone();
        let safety = shared.methods.safety_of(&first);
        let request_id = first.headers().get("x-request-id").cloned();
        let (replay, first) = match Replay::capture(first, shared.policy.buffer) {
            Ok(replay) => {
                let first = replay.request();
                (Ok(replay), first)
            }
            Err((first, why)) => (Err(why), first),
        };
        let progress = Progress::new(safety, deadline.map(|deadline| deadline.0));
        let ledger = Ledger::new();
        Ok((Self { replay, uri, request_id, progress, ledger, shared }, first))
    }

    /// The attempt, ended at the call's deadline: so the ledger is there to tell of it.
    async fn within_deadline<B, E: Into<BoxError>>(
        &self,
        attempt: impl Future<Output = Result<Response<B>, E>>,
    ) -> Outcome<B> {
        let Some(deadline) = self.progress.deadline else {
            return attempt.await.map_err(Into::into);
        };
        match timeout_at(deadline, attempt).await {
            Ok(outcome) => outcome.map_err(Into::into),
            Err(_) => {
                let message = format!("call deadline exceeded by {}", self.uri.path());
                Err(Elapsed::new(message).into())
            }
        }
    }

    /// What to do after an attempt that `began` then and ended `now`.
    fn judge<B>(&mut self, outcome: &Outcome<B>, began: Instant, now: Instant) -> Decision {
        let verdict = Verdict::of(outcome);
        if verdict == Verdict::Ok && self.ledger.attempts().is_empty() {
            return Decision::Stop(Stop::Succeeded);
        }
        self.ledger.push(verdict, now - began);
        let pushback = outcome.as_ref().ok().and_then(|head| status::pushback(head.headers()));
        let Shared { policy, rng, .. } = &*self.shared;
        policy.decide(verdict, pushback, &mut self.progress, now, &mut rng.draw())
    }

    fn report_retry(&mut self, wait: Duration) {
        self.ledger.waits(wait);
        let failed = self.ledger.last_code();
        tracing::info!(
            rpc.method = self.uri.path(),
            attempt = self.progress.attempts,
            of = self.shared.policy.max_attempts(),
            code = failed.map(code::name),
            ?wait,
            request_id = self.request_id.as_ref().and_then(|id| id.to_str().ok()),
            "attempt failed, retrying"
        );
    }

    /// The outcome as the caller gets it, with the story of the call.
    fn close<B>(self, outcome: Outcome<B>, stop: Stop) -> Outcome<B> {
        let status = match outcome {
            Ok(mut response) if stop == Stop::Succeeded => {
                if !self.ledger.attempts().is_empty() {
                    response.extensions_mut().insert(self.ledger);
                }
                return Ok(response);
            }
            Ok(response) => status::of_head(&response),
            Err(error) => status::of_error(error),
        };
        tracing::debug!(rpc.method = self.uri.path(), ?stop, "giving up");
        Err(self.ledger.close(stop, status).into())
    }
}
