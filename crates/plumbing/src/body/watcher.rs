//! A layer that watches a response's body, and what it sees of it.

use crate::{clock, status};
use bytes::Bytes;
use http_body::Frame;
use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::time::Instant;
use tonic::{Code, Status};

pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// The result of polling a body: a frame, a failure, or its end.
pub type Polled = Option<Result<Frame<Bytes>, Status>>;

/// A layer that watches a response's body.
pub trait Watcher: Send {
    /// A poll of the body returned `polled`, which the layer may change.
    fn sees(self: Pin<&mut Self>, polled: &mut Polled, seen: &mut Seen) -> Next;

    /// Whether it sees frames of data, and not only what ends the body: trailers, a failure, or its
    /// end. The answer is always the same.
    fn sees_data(&self) -> bool {
        true
    }

    /// Nothing is ready: the error with which the body must end anyway.
    fn waits(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Polled> {
        Poll::Pending
    }

    /// Whether the watcher will add its own frame after the body.
    fn holds_more(&self) -> bool {
        false
    }

    /// Whether it may end the body early and in order, by trailers, so that its length is unknown.
    fn may_cut(&self) -> bool {
        false
    }

    /// Polls the inner body within a scope of the layer's: `watch_within` of
    /// [`ResponseBody`](super::ResponseBody).
    fn scope(self: Pin<&mut Self>, poll: &mut dyn FnMut()) {
        poll();
    }

    /// It has seen all that it wants, and is not called again; only if it has its own box.
    fn is_over(self: Pin<Box<Self>>) {}
}

/// What a watcher wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// To see the next frame.
    Watch,
    /// To be dropped.
    Over,
    /// To stop reading: HTTP/2 resets the stream.
    Cut,
}

/// Values that all watchers of one frame need, computed once.
#[derive(Debug, Default)]
pub struct Seen {
    now: Option<Instant>,
    code: Option<Option<Code>>,
    is_mended: bool,
}

// === impl Seen ===

impl Seen {
    /// Now: another time than before, if it was read before.
    pub(super) fn now_again(&mut self) -> Instant {
        match self.now {
            None => self.now(),
            Some(_) => Instant::now(),
        }
    }

    /// When it arrived.
    pub fn now(&mut self) -> Instant {
        *self.now.get_or_insert_with(clock::read)
    }

    /// The code in these trailers, if they have one.
    pub fn code(&mut self, trailers: &http::HeaderMap) -> Option<Code> {
        *self.code.get_or_insert_with(|| status::code(trailers))
    }

    /// Makes the trailers safe for the application ([`status::mend`]).
    pub fn mend(&mut self, trailers: &mut http::HeaderMap) {
        if !std::mem::replace(&mut self.is_mended, true) {
            status::mend_said(trailers, self.code(trailers));
        }
    }
}
