//! A call that may have to wait for its place.

use crate::{
    Criticality,
    arrival::{Coming, Held, Seen, deadline, put},
    body::holding,
    limiter::{Entry, Limiter, Permit, Waits},
    places::Until,
};
use bytes::Bytes;
use cinchona_core::{BoxError, Switch};
use cinchona_plumbing::{ResponseBody, status, timeout::take_off};
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Code, body::Body as TonicBody};
use tower_service::Service;

pin_project! {
    /// A call that may have to wait for its place.
    pub(crate) struct Entering<S, B, F> {
        #[pin]
        state: State<S, B, F>,
        permit: Option<Permit>,
        until: Until,
        arriving: Option<Box<Arriving>>,
    }
}

/// A call that has its place, and since when it has waited for it.
type Admitted<S, B> = (Permit, S, Request<B>, Instant);

/// A request that is called before it has arrived, and until when it may take.
type Arriving = (Held, Option<Pin<Box<Sleep>>>);

pin_project! {
    #[project = StateProj]
    enum State<S, B, F> {
        Coming { call: Box<Expected<S, B>> },
        // Boxed, as is the one before: both are rare, and large.
        Waiting { call: Pin<Box<Queued<S, B>>> },
        Calling { #[pin] future: F },
        TurnedAway,
    }
}

pin_project! {
    /// A call that waits for its place.
    struct Queued<S, B> {
        #[pin]
        given: Waits,
        #[pin]
        patience: Sleep,
        held: Option<(S, Request<B>, Instant)>,
    }
}

/// A call that waits for its request.
struct Expected<S, B> {
    coming: Coming,
    late: Option<Pin<Box<Sleep>>>,
    held: Option<(S, Request<B>)>,
    since: Instant,
    put: fn(&mut Request<B>, TonicBody),
    limiter: Arc<Limiter>,
    criticality: Criticality,
    /// Counts instead of turning away.
    shadow: Option<Switch>,
}

/// What became of it.
pub(crate) enum Entered<T> {
    Answered(T),
    TurnedAway,
    /// The request has not arrived in time.
    Late,
}

// === impl Entering ===

impl<S, B> Entering<S, B, S::Future>
where
    S: Service<Request<B>> + Clone,
{
    /// Calls the service, which is ready, when the call is let in to its place; it waits until
    /// `deadline` at the latest.
    pub(crate) fn new(
        entry: Entry,
        until: Until,
        service: &mut S,
        request: Request<B>,
        deadline: Option<Instant>,
    ) -> Self {
        let (state, permit) = match entry {
            Entry::Admitted(permit) => match until.settle(permit) {
                Some(permit) => (State::Calling { future: service.call(request) }, Some(permit)),
                None => (State::TurnedAway, None),
            },
            Entry::Waits(given, longest) => {
                let longest = deadline.map_or(longest, |deadline| deadline.min(longest));
                // The one that is ready waits with the request; its place takes a clone.
                let clone = service.clone();
                let held = Some((mem::replace(service, clone), request, Instant::now()));
                (State::waiting(given, longest, held), None)
            }
            Entry::TurnedAway => (State::TurnedAway, None),
        };
        Self { state, permit, until, arriving: None }
    }

    /// Calls the service in its place, or without one, which `switch` counts.
    pub(crate) fn shadow(
        entry: Entry,
        until: Until,
        service: &mut S,
        request: Request<B>,
        switch: &Switch,
    ) -> Self {
        let permit = match entry {
            Entry::Admitted(permit) => until.settle(permit),
            _ => None,
        };
        if permit.is_none() {
            switch.count();
        }
        let state = State::Calling { future: service.call(request) };
        Self { state, permit, until, arriving: None }
    }

    /// Calls the service without asking for a place.
    pub(crate) fn unlimited(service: &mut S, request: Request<B>) -> Self {
        let state = State::Calling { future: service.call(request) };
        Self { state, permit: None, until: Until::Head, arriving: None }
    }

    /// Calls the service when the request has come, which has to be by `late`, and has its place.
    pub(crate) fn coming(
        coming: Coming,
        (limiter, until): (Arc<Limiter>, Until),
        service: &mut S,
        request: Request<B>,
        late: Option<Instant>,
        shadow: Option<Switch>,
    ) -> Self
    where
        B: 'static,
    {
        let clone = service.clone();
        let criticality = Criticality::of(request.headers());
        let call = Expected {
            coming,
            late: late.map(|late| Box::pin(sleep_until(late))),
            held: Some((mem::replace(service, clone), request)),
            since: Instant::now(),
            put,
            limiter,
            criticality,
            shadow,
        };
        let state = State::Coming { call: Box::new(call) };
        Self { state, permit: None, until, arriving: None }
    }

    /// Calls the service; the request asks for its place when it has arrived, and has to by `late`.
    pub(crate) fn arriving(
        held: Held,
        until: Until,
        service: &mut S,
        request: Request<B>,
        late: Option<Instant>,
    ) -> Self {
        let late = late.map(|late| Box::pin(sleep_until(late)));
        let state = State::Calling { future: service.call(request) };
        Self { state, permit: None, until, arriving: Some(Box::new((held, late))) }
    }
}

impl<S, B, ResBody> Future for Entering<S, B, S::Future>
where
    S: Service<Request<B>, Response = Response<ResBody>>,
    ResBody: Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    type Output = Entered<Result<Response<ResponseBody>, S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::TurnedAway => return Poll::Ready(Entered::TurnedAway),
                StateProj::Coming { call } => match call.poll_entry(cx) {
                    Poll::Ready(Some((service, request, entry))) => {
                        call.enters(service, request, entry, this.until, this.permit)
                    }
                    Poll::Ready(None) => return Poll::Ready(Entered::Late),
                    Poll::Pending => return Poll::Pending,
                },
                StateProj::Calling { future } => match future.poll(cx) {
                    Poll::Ready(outcome) => {
                        let held = this.arriving.take().and_then(|arriving| arriving.0.take());
                        let permit = this.permit.take().or(held);
                        return Poll::Ready(Entered::Answered(answered(
                            outcome, permit, this.until,
                        )));
                    }
                    Poll::Pending => return arrives(this.arriving.as_deref_mut(), cx),
                },
                StateProj::Waiting { call } => match ready!(call.as_mut().poll_place(cx)) {
                    Some((permit, mut service, mut request, since)) => {
                        match this.until.settle(permit) {
                            Some(permit) => {
                                // Whoever serves it is told what is left, not what there was.
                                take_off(request.headers_mut(), Instant::now() - since);
                                *this.permit = Some(permit);
                                State::Calling { future: service.call(request) }
                            }
                            None => State::TurnedAway,
                        }
                    }
                    None => State::TurnedAway,
                },
            };
            this.state.set(next);
        }
    }
}

// === impl State ===

impl<S, B, F> State<S, B, F> {
    fn waiting(given: Waits, longest: Instant, held: Option<(S, Request<B>, Instant)>) -> Self {
        let call = Queued { given, patience: sleep_until(longest), held };
        Self::Waiting { call: Box::pin(call) }
    }
}

// === impl Queued ===

impl<S, B> Queued<S, B> {
    /// The place, and what is to be called in it; `None` where there is none in time.
    fn poll_place(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Admitted<S, B>>> {
        let this = self.project();
        let Poll::Ready(given) = this.given.poll(cx) else {
            return this.patience.poll(cx).map(|()| None);
        };
        let given = given.ok().zip(this.held.take());
        Poll::Ready(
            given.map(|(permit, (service, request, since))| (permit, service, request, since)),
        )
    }
}

// === impl Expected ===

impl<S, B> Expected<S, B> {
    /// The service and the request that has come, and whether there is a place; `None` where it is
    /// late.
    fn poll_entry(&mut self, cx: &mut Context<'_>) -> Poll<Option<(S, Request<B>, Entry)>> {
        let Poll::Ready(body) = self.coming.poll_body(cx) else {
            let Some(late) = &mut self.late else { return Poll::Pending };
            return late.as_mut().poll(cx).map(|()| None);
        };
        let Some((service, mut request)) = self.held.take() else { return Poll::Pending };
        (self.put)(&mut request, body);
        take_off(request.headers_mut(), Instant::now() - self.since);
        Poll::Ready(Some((service, request, self.limiter.enter(self.criticality))))
    }

    fn enters<F>(
        &self,
        mut service: S,
        request: Request<B>,
        entry: Entry,
        until: &Until,
        place: &mut Option<Permit>,
    ) -> State<S, B, F>
    where
        S: Service<Request<B>, Future = F>,
    {
        *place = match entry {
            Entry::Admitted(permit) => until.settle(permit),
            Entry::Waits(given, longest) if self.shadow.is_none() => {
                let longest = deadline(&request).map_or(longest, |deadline| deadline.min(longest));
                let held = Some((service, request, Instant::now()));
                return State::waiting(given, longest, held);
            }
            _ => None,
        };
        match (&self.shadow, &place) {
            (None, None) => return State::TurnedAway,
            (Some(shadow), None) => shadow.count(),
            _ => {}
        }
        State::Calling { future: service.call(request) }
    }
}

/// Looks after a request that had not arrived when it was called.
fn arrives<T>(arriving: Option<&mut Arriving>, cx: &mut Context<'_>) -> Poll<Entered<T>> {
    let Some((held, late)) = arriving else { return Poll::Pending };
    match held.poll_state(cx) {
        Seen::TurnedAway => Poll::Ready(Entered::TurnedAway),
        Seen::Arrived => Poll::Pending,
        Seen::Arriving => match late {
            Some(late) => late.as_mut().poll(cx).map(|()| Entered::Late),
            None => Poll::Pending,
        },
    }
}

/// An answer, which holds the place where that is kept until it has ended.
fn answered<B, E>(
    outcome: Result<Response<B>, E>,
    permit: Option<Permit>,
    until: &Until,
) -> Result<Response<ResponseBody>, E>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let response = outcome?;
    let mut permit = permit;
    if until.is_head()
        && let Some(mut permit) = permit.take()
    {
        // Whoever has run out of time has no use for the answer.
        permit.answered(status::code(response.headers()) != Some(Code::DeadlineExceeded));
    }
    Ok(response.map(|body| holding(body, permit)))
}
