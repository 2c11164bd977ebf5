//! The future of a call.

use crate::{
    body::Mends,
    call::{Call, Outcome},
    executor::{self, First},
    plan::Plan,
    shared::Template,
};
use bytes::Bytes;
use cinchona_core::BoxError;
use cinchona_plumbing::{ResponseBody, polled_again, status};
use cinchona_policy::retry::{Decision, Serial, Step};
use http::{Request, Response};
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
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
    #[project = StateProj]
    enum State<S, F> {
        First { #[pin] attempt: F, call: Option<(Box<Call>, Template<S>, bool)> },
        Plain { #[pin] attempt: F },
        Failed { error: Option<BoxError> },
        Rest { rest: Boxed },
    }
}

type Boxed = Pin<Box<dyn Future<Output = Outcome> + Send>>;

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

    /// The first attempt of a `call`, and the service for others; only counted in `shadow`.
    pub(crate) const fn first(
        attempt: S::Future,
        call: Box<Call>,
        template: Template<S>,
        shadow: bool,
    ) -> Self {
        Self { state: State::First { attempt, call: Some((call, template, shadow)) } }
    }

    pub(crate) fn boxed(rest: impl Future<Output = Outcome> + Send + 'static) -> Self {
        Self { state: State::Rest { rest: Box::pin(rest) } }
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
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        let rest = match state.as_mut().project() {
            StateProj::Rest { rest } => return rest.as_mut().poll(cx),
            StateProj::Failed { error } => {
                return Poll::Ready(Err(error.take().unwrap_or_else(polled_again)));
            }
            StateProj::Plain { attempt } => {
                return Poll::Ready(executor::outcome(ready!(attempt.poll(cx))));
            }
            StateProj::First { attempt, call } => {
                let mut outcome = executor::outcome(ready!(attempt.poll(cx)));
                let Some((mut call, template, shadow)) = call.take() else { return Poll::Pending };
                if shadow && call.would_hedge(&outcome, Instant::now() - call.began) {
                    call.shared.switch.count();
                }
                let first = call.first();
                if shadow {
                    if let Decision::Stop(stop) = call.judge(&mut outcome, &first) {
                        return Poll::Ready(call.close(outcome, stop, 0));
                    }
                    call.shared.switch.count();
                    return Poll::Ready(outcome.map(plain));
                }
                let mut plan = Plan::Serial(Serial::new(call.began));
                match plan.ended(&mut call, &first, &mut outcome) {
                    Step::Finish(stop) => return Poll::Ready(call.close(outcome, stop, 0)),
                    Step::GoOn => return Poll::Pending,
                    Step::Again(again) => {
                        let first = First::Failed(Box::new((Some(outcome), Some(again))));
                        Box::pin(executor::run(call, plan, template, first))
                    }
                }
            }
        };
        state.set(State::Rest { rest });
        // The box is new: it was never polled.
        match state.project() {
            StateProj::Rest { rest } => rest.as_mut().poll(cx),
            _ => Poll::Pending,
        }
    }
}

/// A response that is not judged.
fn plain(mut head: Response<ResponseBody>) -> Response<ResponseBody> {
    status::mend(head.headers_mut());
    head.map(|body| body.watched(Mends))
}

impl<S: Service<Request<Body>>> fmt::Debug for ResponseFuture<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
