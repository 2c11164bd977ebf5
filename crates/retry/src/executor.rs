//! The loop of attempts: those that follow the first, or run beside it.
//!
//! A call comes here from [`ResponseFuture`](crate::ResponseFuture), once its first attempt has
//! failed and another follows, or from [`Retry`](crate::Retry) at once where it is hedged; most
//! calls end with their first attempt, and never come here. [`run`] makes the attempts that the
//! [`Plan`] asks for, and has each judged as the first one was ([`judge`](crate::plan::judge)),
//! until the plan, the call's deadline or the lack of another attempt ends the call.

use crate::{
    call::{AttemptResult, Call, RunningAttempt},
    plan::Plan,
    shared::{Template, clone_service},
    stamp::stamp,
};
use bytes::Bytes;
use cinchona_core::BoxError;
use cinchona_plumbing::{ResponseBody, clock::later};
use cinchona_policy::retry::{NextAttempt, Progress, Stop};
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::{Request, Response};
use std::ops::ControlFlow::{Break, Continue};
use tokio::time::{Instant, sleep_until};
use tonic::body::Body;
use tower::{Service, ServiceExt};

/// The first attempt of a call when it comes here.
pub(crate) enum First<F> {
    /// It is in flight: the call is hedged.
    Running(F),
    /// It has failed so, and this one follows.
    // Boxed: it is large.
    Failed(Box<(AttemptResult, NextAttempt)>),
}

/// How far an attempt has come.
enum Start<S: Service<Request<Body>>> {
    /// It is in flight.
    Running(S::Future),
    /// What it needs, after its wait.
    // Boxed: it is large, and few calls come to this.
    NotStarted(S, Box<Request<Body>>, Progress),
}

/// Makes attempts until the plan is satisfied, or the call's deadline has come.
pub(crate) async fn run<S, B>(
    mut call: Box<Call>,
    mut plan: Plan,
    template: Template<S>,
    first: First<S::Future>,
) -> AttemptResult
where
    S: Service<Request<Body>, Response = Response<B>> + Clone,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let mut in_flight = FuturesUnordered::new();
    let mut running = Vec::new();
    let deadline = call.progress.deadline;
    let (mut failure, mut next) = match first {
        First::Running(future) => {
            running.push(call.first_attempt());
            in_flight.push(result_of(call.first_attempt(), Start::Running(future)));
            (None, None)
        }
        First::Failed(failed) => (Some(failed.0), Some(failed.1)),
    };
    loop {
        while let Some(due) = next.take().or_else(|| plan.due(&mut call)) {
            let Some((attempt, start)) = prepare(&mut call, &template, due) else { break };
            running.push(attempt.clone());
            in_flight.push(result_of(attempt, start));
        }
        // None is in flight, in its wait, or due later: the last failure is the call's.
        if in_flight.is_empty() && plan.due_at().is_none() {
            break;
        }
        let (attempt, mut result) = tokio::select! {
            biased;
            Some(ended) = in_flight.next() => ended,
            () = at(deadline) => return Err(expire(call, &plan, &running)),
            () = at(plan.due_at()) => continue,
        };
        // Abandoned: the request has outgrown its buffer, and another attempt goes on alone. It
        // says nothing of the server, stays in `running`, and is closed with the call.
        if call.replay.has_left_behind(attempt.request_number) {
            continue;
        }
        running.retain(|other| other.request_number != attempt.request_number);
        match plan.judge(&mut call, &attempt, &mut result) {
            Break(stop) => {
                plan.answered(&call, &running);
                return call.finish(result, stop, attempt);
            }
            Continue(follows) => next = follows,
        }
        failure = Some(result);
    }
    // There is a failure, as the attempt for which others were abandoned is judged. If there were
    // none, the call would have waited in vain, as until a deadline.
    let failure = failure.unwrap_or_else(|| Err(call.elapsed().into()));
    Err(call.fail(failure, plan.exhausted(&running)))
}

/// The call's deadline has come, with these attempts in flight.
fn expire(call: Box<Call>, plan: &Plan, running: &[RunningAttempt]) -> BoxError {
    plan.expired(&call, running);
    let elapsed = call.elapsed();
    call.fail(Err(elapsed.into()), Stop::Deadline)
}

/// What an attempt needs; `None` once the request cannot be sent again.
fn prepare<S>(
    call: &mut Call,
    template: &Template<S>,
    next: NextAttempt,
) -> Option<(RunningAttempt, Start<S>)>
where
    S: Service<Request<Body>> + Clone,
{
    let (attempt, request) = call.next_attempt(next.kind, later(Instant::now(), next.wait))?;
    let mut progress = call.progress;
    progress.attempts = next.previous;
    Some((attempt, Start::NotStarted(clone_service(template), request.into(), progress)))
}

/// One attempt, from the wait before it to the head of its response.
async fn result_of<S, B>(
    attempt: RunningAttempt,
    start: Start<S>,
) -> (RunningAttempt, AttemptResult)
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let result = match start {
        Start::Running(future) => attempt_result(future.await),
        Start::NotStarted(service, request, progress) => {
            if let Some(at) = attempt.record.with_attempt(|attempt, _| attempt.began) {
                sleep_until(at).await;
            }
            attempt.record.starts(Instant::now());
            ready_and_call(service, *request, progress).await
        }
    };
    (attempt, result)
}

/// Waits for the service, and stamps the remaining time.
async fn ready_and_call<S, B>(
    mut service: S,
    mut request: Request<Body>,
    progress: Progress,
) -> AttemptResult
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let ready = service.ready().await.map_err(Into::into)?;
    stamp(&progress, request.headers_mut(), Instant::now());
    attempt_result(ready.call(request).await)
}

/// What the service has returned, with the body and the error of all services.
pub(crate) fn attempt_result<B, E>(returned: Result<Response<B>, E>) -> AttemptResult
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    E: Into<BoxError>,
{
    returned.map(|response| response.map(ResponseBody::of)).map_err(Into::into)
}

async fn at(then: Option<Instant>) {
    match then {
        Some(then) => sleep_until(then).await,
        None => std::future::pending().await,
    }
}
