//! The loop of attempts, sequential or parallel.
//!
//! A [`Plan`] decides, and this waits: for an attempt to end, for the time of the plan's next
//! attempt, and for the call's deadline. The first attempt was begun by the service that was ready
//! for it; most calls end with it, and never come here.

use crate::{
    call::{Begun, Call, Outcome},
    plan::Plan,
    shared::{Template, clone},
    stamp::stamp,
};
use bytes::Bytes;
use cinchona_core::BoxError;
use cinchona_plumbing::{ResponseBody, clock::later};
use cinchona_policy::retry::{Again, Progress, Step, Stop};
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::{Request, Response};
use tokio::time::{Instant, sleep_until};
use tonic::body::Body;
use tower::{Service, ServiceExt};

/// The state of a call's first attempt.
pub(crate) enum First<F> {
    Running(F),
    /// It has ended so, and another attempt follows.
    // Boxed: it is large.
    Failed(Box<(Option<Outcome>, Option<Again>)>),
}

/// An attempt that was begun, or what it needs to begin.
enum Start<S: Service<Request<Body>>> {
    Begun(S::Future),
    // Boxed: it is large, and few calls come to this.
    With(S, Box<Request<Body>>, Progress),
}

/// Makes attempts until the plan is satisfied, or the call's deadline has come.
pub(crate) async fn run<S, B>(
    mut call: Box<Call>,
    mut plan: Plan,
    template: Template<S>,
    first: First<S::Future>,
) -> Outcome
where
    S: Service<Request<Body>, Response = Response<B>> + Clone,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let mut attempts = FuturesUnordered::new();
    let mut running = Vec::new();
    let deadline = call.progress.deadline;
    let (mut failure, mut again) = match first {
        First::Running(future) => {
            running.push(call.first());
            attempts.push(attempt(call.first(), Start::Begun(future)));
            (None, None)
        }
        First::Failed(failed) => *failed,
    };
    loop {
        while let Some(next) = again.take().or_else(|| plan.due(&mut call)) {
            let Some((begun, start)) = begin(&mut call, &template, next) else { break };
            running.push(begun.clone());
            attempts.push(attempt(begun, start));
        }
        // No attempt is in flight or due: the last failure is the call's.
        if attempts.is_empty() && plan.next().is_none() {
            break;
        }
        let (ended, mut outcome) = tokio::select! {
            biased;
            Some(ended) = attempts.next() => ended,
            () = at(deadline) => {
                plan.abandon(&call, &running, false);
                let elapsed = call.elapsed();
                return call.close(Err(elapsed.into()), Stop::Deadline, 0);
            }
            () = at(plan.next()) => continue,
        };
        if call.replay.has_left_behind(ended.built) {
            continue;
        }
        running.retain(|begun| begun.built != ended.built);
        match plan.ended(&mut call, &ended, &mut outcome) {
            Step::Finish(stop) => {
                plan.abandon(&call, &running, true);
                return call.close(outcome, stop, ended.built);
            }
            Step::Again(next) => again = Some(next),
            Step::GoOn => {}
        }
        failure = Some(outcome);
    }
    let outcome = failure.unwrap_or_else(|| Err(call.elapsed().into()));
    call.close(outcome, plan.closed(), 0)
}

/// Begins an attempt after its wait; `None` once the request cannot be sent again.
fn begin<S>(call: &mut Call, template: &Template<S>, next: Again) -> Option<(Begun, Start<S>)>
where
    S: Service<Request<Body>> + Clone,
{
    let (begun, request) = call.begin_again(next.kind, later(Instant::now(), next.wait))?;
    let mut progress = call.progress;
    progress.attempts = next.previous;
    Some((begun, Start::With(clone(template), request.into(), progress)))
}

/// One attempt, from the wait before it to the head of its response.
async fn attempt<S, B>(begun: Begun, start: Start<S>) -> (Begun, Outcome)
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let outcome = match start {
        Start::Begun(future) => outcome(future.await),
        Start::With(service, request, progress) => {
            if let Some(at) = begun.line.with_attempt(|attempt, _| attempt.began) {
                sleep_until(at).await;
            }
            begun.line.starts(Instant::now());
            ready_and_call(service, *request, progress).await
        }
    };
    (begun, outcome)
}

/// Waits for the service, and stamps the remaining time.
async fn ready_and_call<S, B>(
    mut service: S,
    mut request: Request<Body>,
    progress: Progress,
) -> Outcome
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let ready = service.ready().await.map_err(Into::into)?;
    stamp(&progress, request.headers_mut(), Instant::now());
    outcome(ready.call(request).await)
}

/// The outcome of an attempt.
pub(crate) fn outcome<B, E>(ended: Result<Response<B>, E>) -> Outcome
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    E: Into<BoxError>,
{
    ended.map(|response| response.map(ResponseBody::of)).map_err(Into::into)
}

async fn at(then: Option<Instant>) {
    match then {
        Some(then) => sleep_until(then).await,
        None => std::future::pending().await,
    }
}
