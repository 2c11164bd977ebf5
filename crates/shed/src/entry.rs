//! A call that may have to wait for its place.

use crate::{
    Criticality,
    arrival::{Held, Seen, deadline, put},
    body::holding,
    places::Until,
};
use bytes::Bytes;
use cinchona_core::{BoxError, ServerContext, Switch};
use cinchona_plumbing::{
    Arriving, ResponseBody, clock,
    clock::later,
    status,
    timeout::{SLACK, take_off},
    timer,
};
use cinchona_policy::concurrency::{Entry, Limiter, Permit, Waits};
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep};
use tonic::{Code, body::Body as TonicBody};
use tower_service::Service;

pin_project! {
    /// A call that may have to wait for its place.
    pub(crate) struct Entering<S, B, F> {
        #[pin]
        state: State<S, B, F>,
        // Boxed: the future of a call is small.
        permit: Option<Box<Permit>>,
        until: Until,
        arriving: Option<Held>,
    }
}

/// A call that has its place, and since when it waited for it.
type Admitted<S, B> = (Permit, S, Request<B>, Instant);

pin_project! {
    #[project = StateProj]
    enum State<S, B, F> {
        // Boxed, as is the next: both are large.
        Coming { call: Pin<Box<Expected<S, B>>> },
        Waiting { call: Pin<Box<Queued<S, B>>> },
        Calling { #[pin] future: F },
        TurnedAway { criticality: Criticality },
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

pin_project! {
    /// A call that waits for its request.
    struct Expected<S, B> {
        upload: Upload,
        #[pin]
        late: Option<Sleep>,
        held: Option<(S, Request<B>)>,
        since: Instant,
        put: fn(&mut Request<B>, TonicBody),
        limiter: Arc<Limiter>,
    }
}

/// A request that has not arrived.
pub(crate) struct Upload {
    pub(crate) coming: Arriving,
    /// How long it may take.
    pub(crate) patience: Option<Duration>,
    /// Counts refusals without refusing.
    pub(crate) shadow: Option<Switch>,
}

/// The result of the wait.
pub(crate) enum Entered<T> {
    Answered(T),
    TurnedAway(Criticality),
    /// The request has not arrived in time.
    Late,
}

// === impl Entering ===

impl<S, B> Entering<S, B, S::Future>
where
    S: Service<Request<B>> + Clone,
{
    /// The call, which has its place.
    #[inline(always)]
    pub(crate) fn calling(future: S::Future, permit: Box<Permit>, until: Until) -> Self {
        let permit = Some(permit);
        Self { state: State::Calling { future }, permit, until, arriving: None }
    }

    /// Calls the service, which is ready, when the call has its place; it waits until `deadline` at
    /// the latest.
    pub(crate) fn new(
        entry: Entry,
        until: Until,
        service: &mut S,
        request: Request<B>,
        deadline: Option<Instant>,
    ) -> Self {
        let (state, permit) = match entry {
            Entry::Admitted(permit) => match until.settle(permit) {
                Some(permit) => {
                    (State::Calling { future: service.call(request) }, Some(Box::new(permit)))
                }
                None => (State::turned_away(&request), None),
            },
            Entry::Waits(given, longest) => {
                let longest = deadline.map_or(longest, |deadline| deadline.min(longest));
                // The ready service waits with the request; a clone takes its place.
                let clone = service.clone();
                let held = Some((mem::replace(service, clone), request, Instant::now()));
                (State::waiting(given, longest, held), None)
            }
            Entry::TurnedAway => (State::turned_away(&request), None),
        };
        Self { state, permit, until, arriving: None }
    }

    /// Calls the service with its place, or without one, which `switch` counts.
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
        Self { state, permit: permit.map(Box::new), until, arriving: None }
    }

    /// Calls the service without requesting a place.
    pub(crate) fn unlimited(service: &mut S, request: Request<B>) -> Self {
        let state = State::Calling { future: service.call(request) };
        Self { state, permit: None, until: Until::Head, arriving: None }
    }

    /// Calls the service when the request has arrived, and has its place.
    pub(crate) fn coming(
        upload: Upload,
        (limiter, until): (Arc<Limiter>, Until),
        service: &mut S,
        request: Request<B>,
    ) -> Self
    where
        B: 'static,
    {
        let clone = service.clone();
        let began = ServerContext::find(&request).and_then(ServerContext::began);
        let since = began.unwrap_or_else(Instant::now);
        let call = Expected {
            late: upload.patience.map(|patience| timer(later(since, patience))),
            upload,
            held: Some((mem::replace(service, clone), request)),
            since,
            put,
            limiter,
        };
        let state = State::Coming { call: Box::pin(call) };
        Self { state, permit: None, until, arriving: None }
    }

    /// Calls the service; the request asks for its place when it has arrived.
    pub(crate) fn arriving(held: Held, until: Until, service: &mut S, request: Request<B>) -> Self {
        let state = State::Calling { future: service.call(request) };
        Self { state, permit: None, until, arriving: Some(held) }
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
        // A layer below may have waited since it read the clock.
        clock::forget();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::TurnedAway { criticality } => {
                    return Poll::Ready(Entered::TurnedAway(*criticality));
                }
                StateProj::Coming { call } => match call.as_mut().poll_entry(cx) {
                    Poll::Ready(Some((service, request, entry))) => {
                        call.enters(service, request, entry, this.until, this.permit)
                    }
                    Poll::Ready(None) => return Poll::Ready(Entered::Late),
                    Poll::Pending => return Poll::Pending,
                },
                StateProj::Calling { future } => match future.poll(cx) {
                    Poll::Ready(outcome) => {
                        let held = this.arriving.take().and_then(|arriving| arriving.take());
                        let permit = this.permit.take().or(held.map(Box::new));
                        return Poll::Ready(Entered::Answered(answered(
                            outcome, permit, this.until,
                        )));
                    }
                    Poll::Pending => return arrives(this.arriving.as_ref(), cx),
                },
                StateProj::Waiting { call } => match ready!(call.as_mut().poll_place(cx)) {
                    Ok((permit, mut service, mut request, since)) => {
                        match this.until.settle(permit) {
                            Some(permit) => {
                                has_waited(&mut request, since);
                                *this.permit = Some(Box::new(permit));
                                State::Calling { future: service.call(request) }
                            }
                            None => State::turned_away(&request),
                        }
                    }
                    Err(criticality) => State::TurnedAway { criticality },
                },
            };
            this.state.set(next);
        }
    }
}

// === impl State ===

impl<S, B, F> State<S, B, F> {
    fn waiting(given: Waits, longest: Instant, held: Option<(S, Request<B>, Instant)>) -> Self {
        let call = Queued { given, patience: timer(longest), held };
        Self::Waiting { call: Box::pin(call) }
    }

    fn turned_away(request: &Request<B>) -> Self {
        Self::TurnedAway { criticality: Criticality::of(request.headers()) }
    }
}

// === impl Queued ===

impl<S, B> Queued<S, B> {
    /// The place, and the service and request to call with it; how much the call matters if there
    /// is none in time.
    fn poll_place(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Admitted<S, B>, Criticality>> {
        let this = self.project();
        let given = match this.given.poll(cx) {
            Poll::Ready(given) => given.ok(),
            Poll::Pending => {
                ready!(this.patience.poll(cx));
                None
            }
        };
        Poll::Ready(match (given, this.held.take()) {
            (Some(permit), Some((service, request, since))) => {
                Ok((permit, service, request, since))
            }
            (_, Some((_, request, _))) => Err(Criticality::of(request.headers())),
            (_, None) => Err(Criticality::default()),
        })
    }
}

// === impl Expected ===

impl<S, B> Expected<S, B> {
    /// The service, the request that has arrived, and its place; `None` if it is late.
    fn poll_entry(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<(S, Request<B>, Entry)>> {
        let this = self.project();
        if this.upload.coming.poll_read(cx).is_pending() {
            return match this.late.as_pin_mut() {
                Some(late) => late.poll(cx).map(|()| None),
                None => Poll::Pending,
            };
        }
        let Some((service, mut request)) = this.held.take() else { return Poll::Pending };
        (this.put)(&mut request, mem::take(&mut this.upload.coming).into_body());
        has_waited(&mut request, *this.since);
        let entry = this.limiter.enter(|| Criticality::of(request.headers()));
        Poll::Ready(Some((service, request, entry)))
    }

    fn enters<F>(
        &self,
        mut service: S,
        request: Request<B>,
        entry: Entry,
        until: &Until,
        place: &mut Option<Box<Permit>>,
    ) -> State<S, B, F>
    where
        S: Service<Request<B>, Future = F>,
    {
        *place = match entry {
            Entry::Admitted(permit) => until.settle(permit).map(Box::new),
            Entry::Waits(given, longest) if self.upload.shadow.is_none() => {
                let longest = deadline(&request).map_or(longest, |deadline| deadline.min(longest));
                let held = Some((service, request, Instant::now()));
                return State::waiting(given, longest, held);
            }
            _ => None,
        };
        match (&self.upload.shadow, &place) {
            (None, None) => return State::turned_away(&request),
            (Some(shadow), None) => shadow.count(),
            _ => {}
        }
        State::Calling { future: service.call(request) }
    }
}

/// Watches over a request that had not arrived when the service was called.
fn arrives<T>(arriving: Option<&Held>, cx: &mut Context<'_>) -> Poll<Entered<T>> {
    match arriving.map(|held| held.poll_state(cx)) {
        Some(Seen::TurnedAway(criticality)) => Poll::Ready(Entered::TurnedAway(criticality)),
        _ => Poll::Pending,
    }
}

/// A request has waited since then: its server receives the remaining time.
fn has_waited<B>(request: &mut Request<B>, since: Instant) {
    let now = Instant::now();
    let waited = now.saturating_duration_since(since);
    // The tolerance between a timer and a read of the clock.
    if waited < SLACK {
        return;
    }
    take_off(request.headers_mut(), waited);
    if let Some(context) = request.extensions_mut().get_mut::<ServerContext>() {
        context.begins(now);
    }
}

/// An answer, which holds the place until its end, if the place is kept so long.
fn answered<B, E>(
    outcome: Result<Response<B>, E>,
    permit: Option<Box<Permit>>,
    until: &Until,
) -> Result<Response<ResponseBody>, E>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let mut response = outcome?.map(ResponseBody::of);
    let mut permit = permit;
    if until.is_head()
        && let Some(mut permit) = permit.take()
        && permit.is_measured()
    {
        // The deadline has passed, so the answer is useless.
        permit.answered(status::code(response.headers()) != Some(Code::DeadlineExceeded));
        if let Some(now) = response.body_mut().settled_now() {
            permit.ends(now);
        }
    }
    Ok(response.map(|body| holding(body, permit)))
}
