//! A call that may have to wait for its place.

use crate::{
    body::ResponseBody,
    limiter::{Entry, Permit},
};
use cinchona_core::deadline::take_off;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use std::{
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::{
    sync::oneshot,
    time::{Instant, Sleep, sleep_until},
};
use tower_service::Service;

pin_project! {
    /// A call that may have to wait for its place; `None` where it is turned away.
    pub(crate) struct Entering<S, B, F> {
        #[pin]
        state: State<S, B, F>,
        permit: Option<Permit>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, B, F> {
        Waiting {
            #[pin]
            given: oneshot::Receiver<Permit>,
            #[pin]
            patience: Sleep,
            held: Option<(S, Request<B>, Instant)>,
        },
        Calling { #[pin] future: F },
        TurnedAway,
    }
}

// === impl Entering ===

impl<S, B> Entering<S, B, S::Future>
where
    S: Service<Request<B>> + Clone,
{
    /// Calls the service, which is ready, when the call is let in; it waits until `deadline` at
    /// the latest.
    pub(crate) fn new(
        entry: Entry,
        service: &mut S,
        request: Request<B>,
        deadline: Option<Instant>,
    ) -> Self {
        let (state, permit) = match entry {
            Entry::Admitted(permit) => {
                (State::Calling { future: service.call(request) }, Some(permit))
            }
            Entry::Waits(given, until) => {
                let until = deadline.map_or(until, |deadline| deadline.min(until));
                // The one that is ready waits with the request; its place takes a clone.
                let clone = service.clone();
                let held = Some((mem::replace(service, clone), request, Instant::now()));
                (State::Waiting { given, patience: sleep_until(until), held }, None)
            }
            Entry::TurnedAway => (State::TurnedAway, None),
        };
        Self { state, permit }
    }

    /// Calls the service without asking for a place.
    pub(crate) fn unlimited(service: &mut S, request: Request<B>) -> Self {
        Self { state: State::Calling { future: service.call(request) }, permit: None }
    }
}

impl<S, B, ResBody> Future for Entering<S, B, S::Future>
where
    S: Service<Request<B>, Response = Response<ResBody>>,
    ResBody: Body,
{
    type Output = Option<Result<Response<ResponseBody<ResBody>>, S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::TurnedAway => return Poll::Ready(None),
                StateProj::Calling { future } => {
                    let outcome = ready!(future.poll(cx));
                    let permit = this.permit.take();
                    return Poll::Ready(Some(
                        outcome
                            .map(|response| response.map(|inner| ResponseBody::new(inner, permit))),
                    ));
                }
                StateProj::Waiting { given, patience, held } => match given.poll(cx) {
                    Poll::Pending => {
                        ready!(patience.poll(cx));
                        State::TurnedAway
                    }
                    Poll::Ready(Err(_)) => State::TurnedAway,
                    Poll::Ready(Ok(permit)) => match held.take() {
                        Some((mut service, mut request, since)) => {
                            // Whoever serves it is told what is left, not what there was.
                            take_off(request.headers_mut(), Instant::now() - since);
                            *this.permit = Some(permit);
                            State::Calling { future: service.call(request) }
                        }
                        None => State::TurnedAway,
                    },
                },
            };
            this.state.set(next);
        }
    }
}
