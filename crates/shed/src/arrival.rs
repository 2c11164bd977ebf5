//! Requests that have not arrived yet.

use crate::{
    Criticality,
    limiter::{Entry, Limiter, Permit, Waits},
    places::{Place, Until},
};
use bytes::Bytes;
use cinchona_core::{Deadline, Switch};
use http::Request;
use http_body::{Body as HttpBody, Frame};
use std::{
    any::Any,
    collections::VecDeque,
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Status, body::Body};

/// How much of a request is there.
pub(crate) enum Arrival {
    /// All of it, or nobody can tell.
    Whole,
    /// Some of it, and there is no more than one message: the call waits for the rest.
    Coming(Coming),
    /// Some of it, and it may be a stream: its body asks for the place when it has ended.
    Partly(Held),
}

/// The rest of a request.
pub(crate) struct Coming {
    kept: Kept,
    inner: Body,
}

/// A call whose request has not arrived, and its place once it has. Dropped, it gives it back.
pub(crate) struct Held(Arc<Gate>);

/// What the body of a request and the call share.
struct Gate {
    limiter: Arc<Limiter>,
    until: Until,
    criticality: Criticality,
    /// When the caller gives up.
    deadline: Option<Instant>,
    /// Counts instead of turning away.
    shadow: Option<Switch>,
    state: Mutex<(State, Option<Waker>)>,
}

enum State {
    Arriving,
    Arrived(Option<Permit>),
    TurnedAway,
    /// It has answered already, or was given up.
    Over,
}

/// What has arrived of a body.
#[derive(Default)]
struct Kept {
    first: Option<Frame<Bytes>>,
    more: VecDeque<Frame<Bytes>>,
    error: Option<Status>,
    size: usize,
}

/// Waits for a place, and for how long.
type Waiting = (Waits, Pin<Box<Sleep>>);

/// A body of which so much has arrived that nobody waits for more of it.
struct Read {
    kept: Kept,
    rest: Body,
}

/// A body of one frame, as most are that have arrived: its box is small.
struct One(Option<Bytes>);

/// As much is kept of a request that has not arrived: tonic decodes no more, unless it is told.
const MOST: usize = 4 << 20;

/// A body that is arriving. What makes it whole is handed on when the call has its place.
struct Arriving {
    kept: Kept,
    inner: Body,
    gate: Arc<Gate>,
    last: Option<Option<Frame<Bytes>>>,
    waits: Option<Waiting>,
    is_over: bool,
}

/// How much of `request` is there, which `may_stream`. Only tonic's own body can be looked into: it
/// is what its servers hand on.
pub(crate) fn look<B: 'static>(
    request: &mut Request<B>,
    may_stream: bool,
    place: &Place<'_>,
    shadow: impl FnOnce() -> Option<Switch>,
) -> Arrival {
    let Some(body) = (request.body_mut() as &mut dyn Any).downcast_mut::<Body>() else {
        return Arrival::Whole;
    };
    if body.is_end_stream() {
        return Arrival::Whole;
    }
    let mut kept = Kept::default();
    // Where it is not all, it is polled again, by a task.
    if kept.poll_read(body, &mut Context::from_waker(Waker::noop())) == Poll::Ready(true) {
        *body = kept.into_body();
        return Arrival::Whole;
    }
    let inner = mem::take(body);
    if !may_stream {
        return Arrival::Coming(Coming { kept, inner });
    }
    let gate = Arc::new(Gate {
        limiter: place.limiter.clone(),
        until: place.until.clone(),
        criticality: Criticality::of(request.headers()),
        deadline: deadline(request),
        shadow: shadow(),
        state: Mutex::new((State::Arriving, None)),
    });
    let (last, waits, is_over) = (None, None, false);
    let body = Arriving { kept, inner, gate: gate.clone(), last, waits, is_over };
    put(request, Body::new(body));
    Arrival::Partly(Held(gate))
}

/// Gives `request` another `body`, if its own is tonic's.
pub(crate) fn put<B: 'static>(request: &mut Request<B>, body: Body) {
    if let Some(own) = (request.body_mut() as &mut dyn Any).downcast_mut::<Body>() {
        *own = body;
    }
}

/// When the caller gives up, by `grpc-timeout`.
pub(crate) fn deadline<B>(request: &Request<B>) -> Option<Instant> {
    let timeout = Deadline::parse_timeout(request.headers()).ok().flatten();
    timeout.map(|timeout| Deadline::after(timeout, Instant::now()).0)
}
// === impl Coming ===

impl Coming {
    /// The body, when all of it has arrived, or as much as is kept.
    pub(crate) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Body> {
        let is_whole = ready!(self.kept.poll_read(&mut self.inner, cx));
        let (kept, rest) = (mem::take(&mut self.kept), mem::take(&mut self.inner));
        Poll::Ready(if is_whole { kept.into_body() } else { Body::new(Read { kept, rest }) })
    }
}

// === impl Kept ===

impl Kept {
    /// Takes what comes; whether that is all, or as much as is kept.
    fn poll_read(&mut self, body: &mut Body, cx: &mut Context<'_>) -> Poll<bool> {
        while self.size < MOST {
            match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                None => return Poll::Ready(true),
                Some(Err(error)) => {
                    self.error = Some(error);
                    return Poll::Ready(true);
                }
                Some(Ok(frame)) => self.push(frame),
            }
            if body.is_end_stream() {
                return Poll::Ready(true);
            }
        }
        Poll::Ready(false)
    }

    fn push(&mut self, frame: Frame<Bytes>) {
        self.size += frame.data_ref().map_or(0, Bytes::len);
        if self.first.is_none() && self.more.is_empty() {
            self.first = Some(frame);
        } else {
            self.more.push_back(frame);
        }
    }

    fn next(&mut self) -> Option<Result<Frame<Bytes>, Status>> {
        let frame = self.first.take().or_else(|| self.more.pop_front());
        frame.map(Ok).or_else(|| self.error.take().map(Err))
    }

    /// A body of nothing but what was kept.
    fn into_body(mut self) -> Body {
        if self.more.is_empty() && self.error.is_none() {
            match self.first.take().map(Frame::into_data) {
                Some(Ok(data)) => return Body::new(One(Some(data))),
                Some(Err(frame)) => self.first = Some(frame),
                None => {}
            }
        }
        Body::new(Read { kept: self, rest: Body::empty() })
    }

    fn is_empty(&self) -> bool {
        self.first.is_none() && self.more.is_empty() && self.error.is_none()
    }
}

// === impl One ===

impl HttpBody for One {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(self.0.take().map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}

// === impl Read ===

impl HttpBody for Read {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.kept.next() {
            Some(kept) => Poll::Ready(Some(kept)),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.kept.is_empty() && self.rest.is_end_stream()
    }
}

// === impl Arriving ===

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Some(kept) = this.kept.next() {
            return Poll::Ready(Some(kept));
        }
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

    /// Waits until the call has its place; for ever, where it is turned away.
    fn enter(&self, waits: &mut Option<Waiting>, cx: &mut Context<'_>) -> Poll<()> {
        if !matches!(self.state().0, State::Arriving) {
            let is_turned_away = matches!(self.state().0, State::TurnedAway);
            return if is_turned_away { Poll::Pending } else { Poll::Ready(()) };
        }
        let given = match waits {
            Some(waiting) => ready!(poll_waits(waiting, cx)),
            None => match self.limiter.enter(self.criticality) {
                Entry::Admitted(permit) => Some(permit),
                Entry::Waits(waiting, until) if self.shadow.is_none() => {
                    let until = self.deadline.map_or(until, |deadline| deadline.min(until));
                    let waiting = waits.insert((waiting, Box::pin(sleep_until(until))));
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

/// The place that was given, if one was in time.
fn poll_waits((waits, patience): &mut Waiting, cx: &mut Context<'_>) -> Poll<Option<Permit>> {
    if let Poll::Ready(given) = Pin::new(waits).poll(cx) {
        return Poll::Ready(given.ok());
    }
    patience.as_mut().poll(cx).map(|()| None)
}

// === impl Held ===

impl Held {
    /// Whether it is still arriving, or was turned away; whoever asks is woken when it is.
    pub(crate) fn poll_state(&self, cx: &mut Context<'_>) -> Seen {
        let mut state = self.0.state();
        match state.0 {
            State::TurnedAway => Seen::TurnedAway,
            State::Arriving => {
                if !state.1.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    state.1 = Some(cx.waker().clone());
                }
                Seen::Arriving
            }
            _ => Seen::Arrived,
        }
    }

    /// Its place, now that it is answered.
    pub(crate) fn take(&self) -> Option<Permit> {
        match mem::replace(&mut self.0.state().0, State::Over) {
            State::Arrived(permit) => permit,
            _ => None,
        }
    }
}

/// What a call sees of its request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    Arriving,
    Arrived,
    TurnedAway,
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
