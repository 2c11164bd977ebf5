//! Requests that have not arrived yet.

use crate::{
    Criticality,
    places::{Place, Until},
};
use bytes::Bytes;
use cinchona_core::{Deadline, ServerContext, Switch};
use cinchona_plumbing::{Arriving, gather, timer};
use cinchona_policy::concurrency::{Entry, Limiter, Permit, Waits};
use http::Request;
use http_body::{Body as HttpBody, Frame};
use std::{
    any::Any,
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};
use tokio::time::{Instant, Sleep};
use tonic::{Status, body::Body};

/// How much of a request has arrived.
pub(crate) enum Arrival {
    /// All of it, or it cannot be known.
    Whole,
    /// A part of it, and it has at most one message: the call waits for the rest.
    Coming(Arriving),
    /// A part of it, and it may be a stream: its body requests the place at its end.
    Partly(Held),
}

/// A call whose request has not arrived, and its place once it has; dropping it gives the place
/// back.
pub(crate) struct Held(Arc<Gate>);

/// The state shared by a call and the body of its request.
struct Gate {
    limiter: Arc<Limiter>,
    until: Until,
    criticality: Criticality,
    /// The deadline of the caller.
    deadline: Option<Instant>,
    /// Counts refusals without refusing.
    shadow: Option<Switch>,
    state: Mutex<(State, Option<Waker>)>,
}

enum State {
    Arriving,
    Arrived(Option<Permit>),
    TurnedAway,
    /// The call is answered or was dropped.
    Over,
}

/// The wait for a place, and its limit.
type Waiting = (Waits, Pin<Box<Sleep>>);

/// A body that is arriving. Its last frame is passed on when the call has its place.
struct Partial {
    inner: Body,
    gate: Arc<Gate>,
    last: Option<Option<Frame<Bytes>>>,
    waits: Option<Waiting>,
    is_over: bool,
}

/// How much of `request` has arrived, of which this is `known`; it `may_stream`. Only tonic's own
/// body, which its servers pass on, can be inspected.
pub(crate) fn look<B: 'static>(
    request: &mut Request<B>,
    (known, may_stream): (ServerContext, bool),
    place: &Place<'_>,
    shadow: impl FnOnce() -> Option<Switch>,
) -> Arrival {
    if known.arrived().is_some() {
        return Arrival::Whole;
    }
    let Some(body) = (request.body_mut() as &mut dyn Any).downcast_mut::<Body>() else {
        return Arrival::Whole;
    };
    if !known.was_arriving() && gather(body).is_some() {
        return Arrival::Whole;
    }
    if !may_stream {
        return Arrival::Coming(Arriving::of(body));
    }
    let inner = mem::take(body);
    let gate = Arc::new(Gate {
        limiter: place.limiter.clone(),
        until: place.until.clone(),
        criticality: Criticality::of(request.headers()),
        deadline: deadline(request),
        shadow: shadow(),
        state: Mutex::new((State::Arriving, None)),
    });
    let (last, waits, is_over) = (None, None, false);
    let body = Partial { inner, gate: gate.clone(), last, waits, is_over };
    put(request, Body::new(body));
    Arrival::Partly(Held(gate))
}

/// Replaces the body of `request`, if it is tonic's.
pub(crate) fn put<B: 'static>(request: &mut Request<B>, body: Body) {
    if let Some(own) = (request.body_mut() as &mut dyn Any).downcast_mut::<Body>() {
        *own = body;
    }
}

/// The caller's deadline, from `grpc-timeout`.
pub(crate) fn deadline<B>(request: &Request<B>) -> Option<Instant> {
    let timeout = Deadline::parse_timeout(request.headers()).ok().flatten();
    timeout.map(|timeout| Deadline::after(timeout, Instant::now()).0)
}

// === impl Partial ===

impl HttpBody for Partial {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.is_over {
            return Poll::Ready(None);
        }
        if this.last.is_none() {
            match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Ok(frame)) if frame.is_data() && !this.inner.is_end_stream() => {
                    return Poll::Ready(Some(Ok(frame)));
                }
                Some(Err(error)) => {
                    this.is_over = true;
                    return Poll::Ready(Some(Err(error)));
                }
                last => this.last = Some(last.and_then(Result::ok)),
            }
        }
        ready!(this.gate.enter(&mut this.waits, cx));
        this.is_over = true;
        Poll::Ready(this.last.take().flatten().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }
}

// === impl Gate ===

impl Gate {
    fn state(&self) -> MutexGuard<'_, (State, Option<Waker>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the call has its place; never completes if it is refused.
    fn enter(&self, waits: &mut Option<Waiting>, cx: &mut Context<'_>) -> Poll<()> {
        if !matches!(self.state().0, State::Arriving) {
            let is_turned_away = matches!(self.state().0, State::TurnedAway);
            return if is_turned_away { Poll::Pending } else { Poll::Ready(()) };
        }
        let given = match waits {
            Some(waiting) => ready!(poll_waits(waiting, cx)),
            None => match self.limiter.enter(|| self.criticality) {
                Entry::Admitted(permit) => Some(permit),
                Entry::Waits(waiting, until) if self.shadow.is_none() => {
                    let until = self.deadline.map_or(until, |deadline| deadline.min(until));
                    let waiting = waits.insert((waiting, Box::pin(timer(until))));
                    ready!(poll_waits(waiting, cx))
                }
                _ => None,
            },
        };
        *waits = None;
        let permit = given.and_then(|permit| self.until.settle(permit));
        let next = match (permit, &self.shadow) {
            (Some(permit), _) => State::Arrived(Some(permit)),
            (None, Some(shadow)) => {
                shadow.count();
                State::Arrived(None)
            }
            (None, None) => State::TurnedAway,
        };
        self.becomes(next)
    }

    fn becomes(&self, next: State) -> Poll<()> {
        let is_turned_away = matches!(next, State::TurnedAway);
        let (before, waker) = {
            let mut state = self.state();
            if matches!(state.0, State::Over) {
                return Poll::Ready(());
            }
            (mem::replace(&mut state.0, next), state.1.take())
        };
        drop(before);
        if !is_turned_away {
            return Poll::Ready(());
        }
        waker.into_iter().for_each(Waker::wake);
        Poll::Pending
    }
}

/// The place, if it was given in time.
fn poll_waits((waits, patience): &mut Waiting, cx: &mut Context<'_>) -> Poll<Option<Permit>> {
    if let Poll::Ready(given) = Pin::new(waits).poll(cx) {
        return Poll::Ready(given.ok());
    }
    patience.as_mut().poll(cx).map(|()| None)
}

// === impl Held ===

impl Held {
    /// Whether the request is still arriving or was refused; otherwise the polling task is woken at
    /// the change.
    pub(crate) fn poll_state(&self, cx: &mut Context<'_>) -> Seen {
        let mut state = self.0.state();
        match state.0 {
            State::TurnedAway => Seen::TurnedAway(self.0.criticality),
            State::Arriving => {
                if !state.1.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    state.1 = Some(cx.waker().clone());
                }
                Seen::Arriving
            }
            _ => Seen::Arrived,
        }
    }

    /// Takes the place when the call is answered.
    pub(crate) fn take(&self) -> Option<Permit> {
        match mem::replace(&mut self.0.state().0, State::Over) {
            State::Arrived(permit) => permit,
            _ => None,
        }
    }
}

/// The request body as the service sees it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    Arriving,
    Arrived,
    TurnedAway(Criticality),
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.take());
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").finish_non_exhaustive()
    }
}
