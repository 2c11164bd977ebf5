//! An answer that is read before it is sent.

use super::watcher::{BoxError, Next, Polled, Seen, Watcher};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use std::{
    fmt, mem,
    pin::Pin,
    task::{Context, Poll, Waker},
};
use tonic::body::Body;

/// The first frames of a body.
#[derive(Default)]
pub(super) struct Ahead {
    /// The first, and the second: each `None` once it was taken, or if there is none.
    frames: [Polled; 2],
    seen: Seen,
    /// The frames are a message and its trailers, and nothing follows.
    is_whole: bool,
}

/// The largest message that is read ahead: an HTTP/2 stream has room for it from the beginning
/// (RFC 9113, 6.9.2: 65,535 bytes), so a client that does not read makes no server keep more.
const MOST: usize = 16 << 10;

// === impl Ahead ===

impl Ahead {
    /// Reads what is ready of `body`, which is `None` afterwards if there is no more.
    ///
    /// No waker is registered: whoever reads the body polls it again.
    pub(super) fn read(body: &mut Option<Body>) -> Option<Box<Self>> {
        let own = body.as_mut().filter(|own| !own.is_end_stream())?;
        let cx = &mut Context::from_waker(Waker::noop());
        let Poll::Ready(first) = Pin::new(&mut *own).poll_frame(cx) else { return None };
        let mut ahead = Box::new(Self::default());
        let is_small = |frame: &Frame<Bytes>| frame.data_ref().is_some_and(|b| b.len() <= MOST);
        let is_message = matches!(&first, Some(Ok(frame)) if is_small(frame));
        ahead.frames[0] = first.map(|frame| frame.map_err(BoxError::from));
        if is_message && let Poll::Ready(second) = Pin::new(own).poll_frame(cx) {
            ahead.is_whole = matches!(&second, Some(Ok(frame)) if frame.is_trailers());
            if ahead.is_whole || second.is_none() {
                *body = None;
            }
            ahead.frames[1] = second.map(|frame| frame.map_err(BoxError::from));
        } else if ahead.frames[0].is_none() {
            *body = None;
        }
        Some(ahead)
    }

    pub(super) const fn is_whole(&self) -> bool {
        self.is_whole
    }

    pub(super) fn is_over(&self) -> bool {
        self.frames.iter().all(Option::is_none)
    }

    /// The next frame; it is no longer whole.
    pub(super) fn next(&mut self) -> Polled {
        self.is_whole = false;
        let [first, second] = &mut self.frames;
        mem::take(first).or_else(|| mem::take(second))
    }

    /// Shows each frame to a watcher, which may change it, as if it was read now.
    pub(super) fn show(&mut self, mut watcher: Pin<&mut dyn Watcher>) -> Next {
        for at in 0..self.frames.len() {
            let frame = &mut self.frames[at];
            let next = watcher.as_mut().sees(frame, &mut self.seen);
            let goes_on = matches!(frame, Some(Ok(frame)) if frame.is_data());
            if next == Next::Cut || !goes_on {
                self.frames[at + 1..].fill_with(|| None);
            }
            if next != Next::Watch {
                return next;
            }
        }
        Next::Watch
    }
}

impl fmt::Debug for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ahead").field("is_whole", &self.is_whole).finish_non_exhaustive()
    }
}
