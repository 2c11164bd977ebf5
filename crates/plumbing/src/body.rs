//! The one response body of ours: what comes from below, and the layers that watch it.

use crate::status;
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use smallvec::SmallVec;
use std::{
    any::Any,
    cell::Cell,
    error::Error,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::time::Instant;
use tonic::{Code, body::Body};

type BoxError = Box<dyn Error + Send + Sync>;

/// What a body's poll has brought: a frame, a failure, or its end.
pub type Polled = Option<Result<Frame<Bytes>, BoxError>>;

/// A response body that layers watch.
///
/// Each layer of ours adds a [`Watcher`], and none wraps the body of another: however many there
/// are, there is one body around tonic's.
#[derive(Default)]
pub struct ResponseBody {
    /// None once it was cut off, or where there never was anything.
    inner: Option<Body>,
    /// The innermost first.
    watchers: SmallVec<[Option<Pin<Box<dyn Watcher>>>; 6]>,
    has_scopes: bool,
    /// It goes with the beginning of an answer, and nothing of it was read since.
    has_begun: Cell<bool>,
}

/// A layer that watches a response's body.
pub trait Watcher: Send {
    /// The poll of the body has brought `polled`, which is the layer's to change.
    fn sees(self: Pin<&mut Self>, polled: &mut Polled, seen: &mut Seen) -> Next;

    /// Nothing has come: what the body is to fail with all the same.
    fn waits(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<BoxError> {
        Poll::Pending
    }

    /// Whether it will bring something of its own once the body has ended.
    fn holds_more(&self) -> bool {
        false
    }

    /// Polls what is further in, within a scope of the layer's ([`ResponseBody::watch_within`]).
    fn scope(self: Pin<&mut Self>, poll: &mut dyn FnMut()) {
        poll();
    }

    /// It has seen all that it wants, and is not asked again.
    fn is_over(self: Pin<Box<Self>>) {}
}

/// What a watcher wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// To see the next frame.
    Watch,
    /// To be dropped.
    Over,
    /// That nothing more is read: HTTP/2 resets the stream.
    Cut,
}

/// What the watchers of one frame need to find out once.
#[derive(Debug, Default)]
pub struct Seen {
    now: Option<Instant>,
    code: Option<Option<Code>>,
    is_mended: bool,
}

// === impl Seen ===

impl Seen {
    /// When it came.
    pub fn now(&mut self) -> Instant {
        *self.now.get_or_insert_with(Instant::now)
    }

    /// The code in these trailers, if they have one.
    pub fn code(&mut self, trailers: &http::HeaderMap) -> Option<Code> {
        *self.code.get_or_insert_with(|| status::code(trailers))
    }

    /// Makes the trailers fit for the application ([`status::mend`]).
    pub fn mend(&mut self, trailers: &mut http::HeaderMap) {
        if !std::mem::replace(&mut self.is_mended, true) {
            status::mend_said(trailers, self.code(trailers));
        }
    }
}

/// Whether this is the beginning of an answer: a head of gRPC's without a status, whose body goes
/// on. Each layer asks that of a head, and it is found out once.
pub fn begins(response: &Response<ResponseBody>) -> bool {
    let (headers, body) = (response.headers(), response.body());
    if !body.has_begun.get() {
        let is_head = response.status() == StatusCode::OK && status::is_grpc(headers);
        let goes_on = is_head && status::code(headers).is_none() && !body.is_end_stream();
        body.has_begun.set(goes_on);
    }
    body.has_begun.get()
}

// === impl ResponseBody ===

impl ResponseBody {
    /// `body`, with those that watch it if it is such a body already. tonic's is taken as it is,
    /// another is boxed.
    pub fn of<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let mut body = Some(body);
        if let Some(own) = (&mut body as &mut dyn Any).downcast_mut::<Option<Self>>() {
            return own.take().unwrap_or_default();
        }
        Self { inner: body.map(Body::new), ..Self::default() }
    }

    /// Lets `watcher` see what all those further in have.
    #[must_use]
    pub fn watched(mut self, watcher: Pin<Box<dyn Watcher>>) -> Self {
        self.watchers.push(Some(watcher));
        self
    }

    /// The same, and polls those further in within the scope of `watcher`.
    #[must_use]
    pub fn watched_within(self, watcher: Pin<Box<dyn Watcher>>) -> Self {
        Self { has_scopes: true, ..self.watched(watcher) }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Polled> {
        let Self { inner, watchers, has_scopes, has_begun } = self;
        has_begun.set(false);
        let mut seen = Seen::default();
        if *has_scopes {
            let mut polled = Poll::Pending;
            poll_within(inner, watchers, cx, &mut seen, &mut polled);
            return polled;
        }
        let mut polled = poll_inner(inner, cx);
        for at in 0..watchers.len() {
            step(inner, &mut watchers[..=at], cx, &mut seen, &mut polled);
        }
        polled
    }
}

type Slots = [Option<Pin<Box<dyn Watcher>>>];

fn poll_inner(inner: &mut Option<Body>, cx: &mut Context<'_>) -> Poll<Polled> {
    match inner {
        Some(inner) => Pin::new(inner).poll_frame(cx).map_err(Into::into),
        None => Poll::Ready(None),
    }
}

/// Polls what the last of `slots` watches, within its scope.
fn poll_within(
    inner: &mut Option<Body>,
    slots: &mut Slots,
    cx: &mut Context<'_>,
    seen: &mut Seen,
    polled: &mut Poll<Polled>,
) {
    let Some((last, further_in)) = slots.split_last_mut() else {
        *polled = poll_inner(inner, cx);
        return;
    };
    let mut poll = || poll_within(inner, further_in, cx, seen, polled);
    match last {
        Some(watcher) => watcher.as_mut().scope(&mut poll),
        None => poll(),
    }
    step(inner, slots, cx, seen, polled);
}

/// Lets the last of `slots` see what has come.
fn step(
    inner: &mut Option<Body>,
    slots: &mut Slots,
    cx: &mut Context<'_>,
    seen: &mut Seen,
    polled: &mut Poll<Polled>,
) {
    let Some((last, further_in)) = slots.split_last_mut() else { return };
    let Some(watcher) = last else { return };
    let next = match polled {
        Poll::Ready(polled) => watcher.as_mut().sees(polled, seen),
        Poll::Pending => match watcher.as_mut().waits(cx) {
            Poll::Ready(error) => {
                *polled = Poll::Ready(Some(Err(error)));
                Next::Cut
            }
            Poll::Pending => Next::Watch,
        },
    };
    match next {
        Next::Watch => {}
        Next::Over => {
            if let Some(watcher) = last.take() {
                watcher.is_over();
            }
        }
        Next::Cut => {
            *inner = None;
            further_in.fill_with(|| None);
        }
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Polled> {
        self.poll(cx)
    }

    fn is_end_stream(&self) -> bool {
        if self.has_begun.get() {
            return false;
        }
        let mut watchers = self.watchers.iter().flatten();
        self.inner.as_ref().is_none_or(Body::is_end_stream)
            && !watchers.any(|watcher| watcher.holds_more())
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}
