//! The frames of an answer, some of which are read before they are sent.

use super::watcher::{Next, Polled, Seen, Watcher};
use crate::clock;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::{
    mem,
    pin::Pin,
    task::{Context, Poll, Waker},
};
use tokio::time::Instant;
use tonic::body::Body;

/// The frames of an answer.
#[derive(Default)]
pub(super) struct Frames {
    ahead: Ahead,
    /// The rest; `None` if there is none, or it was cut off.
    inner: Option<Body>,
}

/// The first frames, if they were read ahead.
#[derive(Default)]
pub(super) struct Ahead {
    /// The first, and the second: each `None` once it was taken, or if there is none.
    frames: [Polled; 2],
    /// The frames are a message and its trailers, and nothing follows.
    is_whole: bool,
    /// Something was read, so the length of what follows is not that of the body.
    was_read: bool,
    seen: Seen,
}

/// The largest message that is read ahead: an HTTP/2 stream has room for it from the beginning
/// (RFC 9113, 6.9.2: 65,535 bytes), so a client that does not read makes no server keep more.
const MOST: usize = 16 << 10;

pub(super) fn is_data(polled: &Polled) -> bool {
    matches!(polled, Some(Ok(frame)) if frame.is_data())
}

// === impl Frames ===

impl Frames {
    /// Those of `body`, in place of none.
    #[inline]
    pub(super) fn set(&mut self, body: Body) {
        self.inner = Some(body);
    }

    /// None.
    #[inline]
    pub(super) fn clear(&mut self) {
        self.inner = None;
        if self.ahead.was_read {
            self.ahead = Ahead::default();
        }
    }

    /// Reads what is ready, once.
    ///
    /// No waker is registered: whoever reads the body polls it again.
    pub(super) fn read_ahead(&mut self) {
        let Self { ahead, inner } = self;
        let Some(body) = inner.as_mut().filter(|body| !ahead.was_read && !body.is_end_stream())
        else {
            return;
        };
        let cx = &mut Context::from_waker(Waker::noop());
        let Poll::Ready(first) = Pin::new(&mut *body).poll_frame(cx) else { return };
        let is_small = |frame: &Frame<Bytes>| frame.data_ref().is_some_and(|b| b.len() <= MOST);
        let is_message = matches!(&first, Some(Ok(frame)) if is_small(frame));
        ahead.was_read = true;
        ahead.frames[0] = first;
        if is_message && let Poll::Ready(second) = Pin::new(body).poll_frame(cx) {
            ahead.is_whole = matches!(&second, Some(Ok(frame)) if frame.is_trailers());
            if ahead.is_whole || second.is_none() {
                *inner = None;
            }
            ahead.frames[1] = second;
        } else if ahead.frames[0].is_none() {
            *inner = None;
        }
    }

    /// The answer, if all of it is there.
    pub(super) fn whole(&mut self) -> Option<&mut Ahead> {
        Some(&mut self.ahead).filter(|ahead| ahead.is_whole)
    }

    #[inline]
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Polled> {
        match &mut self.inner {
            _ if self.ahead.has_next() => Poll::Ready(self.ahead.next()),
            Some(inner) => Pin::new(inner).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    pub(super) fn are_over(&self) -> bool {
        self.ahead.frames.iter().all(Option::is_none)
            && self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    /// The length of an answer that was read ahead is not announced, as tonic announces none.
    pub(super) fn size_hint(&self) -> SizeHint {
        match &self.inner {
            _ if self.ahead.was_read => SizeHint::new(),
            None => SizeHint::with_exact(0),
            Some(inner) => inner.size_hint(),
        }
    }
}

// === impl Ahead ===

impl Ahead {
    /// Now: the time that its watchers have taken, if they did in this poll, else they will.
    pub(super) fn now(&mut self) -> Instant {
        clock::last_read().unwrap_or_else(|| self.seen.now_again())
    }

    #[inline]
    fn has_next(&self) -> bool {
        self.was_read && self.frames.iter().any(Option::is_some)
    }

    /// The next frame; it is no longer whole.
    fn next(&mut self) -> Polled {
        self.is_whole = false;
        let [first, second] = &mut self.frames;
        mem::take(if first.is_some() { first } else { second })
    }

    /// Shows each frame to a watcher, which may change it, as if it was read now.
    pub(super) fn show(&mut self, mut watcher: Pin<&mut dyn Watcher>) -> Next {
        let sees_data = watcher.sees_data();
        for at in 0..self.frames.len() {
            let frame = &mut self.frames[at];
            if !sees_data && is_data(frame) {
                continue;
            }
            let next = watcher.as_mut().sees(frame, &mut self.seen);
            let goes_on = is_data(frame);
            if next == Next::Cut || !goes_on {
                self.frames[at + 1..].fill_with(|| None);
            }
            if next == Next::Cut {
                self.seen = Seen::default();
            }
            if next != Next::Watch {
                return next;
            }
        }
        Next::Watch
    }
}
