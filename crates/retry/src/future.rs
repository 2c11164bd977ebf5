//! The future of a call: its first attempt, in place, without a box.
//!
//! [`Retry`](crate::Retry) sends the first attempt, and this polls it and has it judged once it has
//! ended ([`judge`](plan::judge)): most calls end with it. Where another follows, and from the
//! start where the call is hedged, this polls [`run`](executor::run), which makes all others.

use crate::{
    answer::unjudged,
    call::{AttemptResult, Call},
    executor::{self, First},
    plan::{self, Plan},
    shared::Template,
};
use bytes::Bytes;
use cinchona_core::{BoxError, Mode};
use cinchona_plumbing::polled_again;
use cinchona_policy::retry::{Decision, Serial};
use http::{Request, Response};
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    ops::ControlFlow::{Break, Continue},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::time::Instant;
use tonic::{Status, body::Body};
use tower_service::Service;

pin_project! {
    /// The future of a [`Retry`] call.
    pub struct ResponseFuture<S: Service<Request<Body>>> {
        #[pin]
        state: State<S, S::Future>,
    }
}

pin_project! {
    /// The first attempt is stored in place; state of rarer cases is boxed.
    ///
    /// First: it is in flight, and the call goes on with it. Plain: the layer is off. Failed: the
    /// call is not made. Further: the executor makes the attempts.
    #[project = StateProj]
    enum State<S, F> {
        First { #[pin] attempt: F, call: Option<(Box<Call>, Template<S>, Mode)> },
        Plain { #[pin] attempt: F },
        Failed { error: Option<BoxError> },
        Further { run: Boxed },
    }
}

type Boxed = Pin<Box<dyn Future<Output = AttemptResult> + Send>>;

// === impl ResponseFuture ===

impl<S: Service<Request<Body>>> ResponseFuture<S> {
    /// A call that bypasses the layer.
    pub(crate) const fn plain(attempt: S::Future) -> Self {
        Self { state: State::Plain { attempt } }
    }

    /// A call that is not made.
    pub(crate) fn failed(status: Status) -> Self {
        Self { state: State::Failed { error: Some(status.into()) } }
    }

    /// The first attempt of a `call`, and the service for others; in shadow they are only counted.
    pub(crate) const fn first(
        attempt: S::Future,
        call: Box<Call>,
        template: Template<S>,
        mode: Mode,
    ) -> Self {
        Self { state: State::First { attempt, call: Some((call, template, mode)) } }
    }

    /// A call whose attempts the executor makes.
    pub(crate) fn further(run: impl Future<Output = AttemptResult> + Send + 'static) -> Self {
        Self { state: State::Further { run: Box::pin(run) } }
    }
}

impl<S, B> Future for ResponseFuture<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Output = AttemptResult;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        let (attempt, call) = match state.as_mut().project() {
            StateProj::Further { run } => return run.as_mut().poll(cx),
            StateProj::Failed { error } => {
                return Poll::Ready(Err(error.take().unwrap_or_else(polled_again)));
            }
            StateProj::Plain { attempt } => {
                return Poll::Ready(executor::attempt_result(ready!(attempt.poll(cx))));
            }
            StateProj::First { attempt, call } => (attempt, call),
        };
        let mut result = executor::attempt_result(ready!(attempt.poll(cx)));
        let Some((mut call, template, mode)) = call.take() else {
            return Poll::Ready(Err(polled_again()));
        };
        if mode == Mode::Shadow {
            return Poll::Ready(shadowed(call, result));
        }
        let (mut serial, attempt) = (Serial::new(call.began), call.first_attempt());
        match plan::judge_serial(&mut serial, &mut call, &attempt, &mut result) {
            Break(stop) => Poll::Ready(call.finish(result, stop, attempt)),
            Continue(next) => {
                let first = First::Failed(Box::new((result, next)));
                let run = executor::run(call, Plan::Serial(serial), template, first);
                let mut run: Boxed = Box::pin(run);
                let polled = run.as_mut().poll(cx);
                state.set(State::Further { run });
                polled
            }
        }
    }
}

/// In shadow the first attempt is the only one: counts whether there would have been another.
fn shadowed(mut call: Box<Call>, mut result: AttemptResult) -> AttemptResult {
    let would_hedge = call.would_hedge(&result, Instant::now() - call.began);
    let attempt = call.first_attempt();
    let next =
        plan::judge(&mut call, &attempt, &mut result, |call, ended| match call.decide(ended) {
            Decision::Stop(stop) => Break(stop),
            _ => Continue(None),
        });
    if would_hedge || next.is_continue() {
        call.shared.switch.count();
    }
    if let Break(stop) = next {
        return call.finish(result, stop, attempt);
    }
    result.map(unjudged)
}

impl<S: Service<Request<Body>>> fmt::Debug for ResponseFuture<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
