//! The loop of attempts.

use crate::{
    body::ResponseBody,
    call::{Begun, Call, Outcome},
    ledger::AttemptKind,
    policy::{Decision, Kind, LOOK, Stop},
};
use cinchona_core::{BoxError, Elapsed};
use http::{HeaderMap, Request, Response};
use std::{future::Future, time::Duration};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::body::Body;
use tower::{Service, ServiceExt};

/// No more than two attempts of a call begin within this time, whatever the policy: a call that
/// fails at once must not keep a core busy.
pub(crate) const PACE: Duration = Duration::from_millis(1);

/// Goes on after the first attempt with a `decision` to try again, until the policy is satisfied.
pub(crate) async fn retries<S, B>(
    mut call: Call,
    mut service: S,
    mut outcome: Outcome<B>,
    mut decision: Decision,
) -> Outcome<ResponseBody<B>>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: http_body::Body,
{
    let of = match &call.policy.kind {
        Kind::Retry(retry) => retry.max_attempts(),
        _ => 1,
    };
    // When the last attempt began, and the one before.
    let (mut last, mut before) = (call.began, None);
    let mut n = 0;
    loop {
        n += 1;
        let wait = match decision {
            Decision::Stop(stop) => return call.close(outcome, stop, n - 1),
            Decision::AwaitConnection => LOOK,
            Decision::Transparent(wait) | Decision::RetryAfter(wait) => wait,
        };
        let paced = before.map_or(Duration::ZERO, |before: Instant| {
            (before + PACE).saturating_duration_since(Instant::now())
        });
        let wait = wait.max(paced);
        call.replay.stop(n - 1);
        let Some(request) = call.replay.request() else {
            return call.close(outcome, Stop::BodyTooLarge, n - 1);
        };
        if decision != Decision::AwaitConnection {
            call.report_retry(wait, of);
        }
        drop(outcome);
        sleep(wait).await;
        let kind = match decision {
            Decision::Transparent(_) => AttemptKind::Transparent,
            // Nothing was sent before.
            Decision::AwaitConnection if call.ledger.attempts().is_empty() => AttemptKind::First,
            _ => AttemptKind::Retry,
        };
        let begun = Begun { built: n, kind, at: Instant::now() };
        (last, before) = (begun.at, Some(last));
        let (progress, previous) = (call.progress, call.progress.attempts);
        let stamp = move |headers: &mut HeaderMap| {
            progress.stamp(headers, previous, Instant::now());
        };
        outcome = within_deadline(&call, ready_and_call(&mut service, request, stamp)).await;
        decision = call.judge(&mut outcome, begun);
    }
}

/// Waits for the service, and tells the server what is left after that.
pub(crate) async fn ready_and_call<S, B>(
    service: &mut S,
    mut request: Request<Body>,
    stamp: impl FnOnce(&mut HeaderMap),
) -> Outcome<B>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
{
    let ready = service.ready().await.map_err(Into::into)?;
    stamp(request.headers_mut());
    ready.call(request).await.map_err(Into::into)
}

/// The attempt, ended at the call's deadline: so the ledger is there to tell of it.
async fn within_deadline<B>(call: &Call, attempt: impl Future<Output = Outcome<B>>) -> Outcome<B> {
    let Some(deadline) = call.progress.deadline else { return attempt.await };
    match timeout_at(deadline, attempt).await {
        Ok(outcome) => outcome,
        Err(_) => Err(elapsed(call).into()),
    }
}

/// The call's deadline has passed.
pub(crate) fn elapsed(call: &Call) -> Elapsed {
    Elapsed::new(format!("call deadline exceeded by {}", call.path()))
}
