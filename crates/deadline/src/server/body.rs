//! What is answered, bounded as well.

use super::end::{EXCEEDED, End, TICK};
use cinchona_core::{Deadline, ServerContext};
use cinchona_plumbing::{Next, Polled, Seen, Watcher, status};
use http_body::Frame;
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};
use tonic::Status;

/// Ends a response at the deadline, with `DEADLINE_EXCEEDED` in its trailers.
pub(super) struct Bounded {
    /// When it must begin, and then when it must end.
    pub(super) end: Option<End>,
    // The caller's own deadline, where it is another, until it is the end.
    pub(super) whole: Option<Box<Option<Deadline>>>,
    pub(super) context: ServerContext,
}

impl Watcher for Bounded {
    fn sees(self: Pin<&mut Self>, polled: &mut Polled, _: &mut Seen) -> Next {
        let own = self.get_mut();
        if let Some(Ok(frame)) = polled {
            frame.trailers_mut().into_iter().for_each(status::strip);
        }
        // It has begun: from here on only the caller's deadline counts.
        if let Some(whole) = own.whole.take() {
            let whole = *whole;
            own.context.deadline = whole;
            match (whole.map(|whole| whole.0 - TICK), &mut own.end) {
                (Some(at), Some(end)) => end.move_to(at),
                (at, end) => *end = at.map(End::at),
            }
        }
        Next::Watch
    }

    fn waits(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Polled> {
        let Some(end) = &mut self.get_mut().end else { return Poll::Pending };
        ready!(end.poll(cx));
        let mut trailers = http::HeaderMap::new();
        // What cannot be said ends the response all the same.
        _ = Status::deadline_exceeded(EXCEEDED).add_header(&mut trailers);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn may_cut(&self) -> bool {
        self.end.is_some() || self.whole.is_some()
    }

    /// The stream of a handler may make calls as well.
    fn scope(self: Pin<&mut Self>, poll: &mut dyn FnMut()) {
        self.context.within(poll);
    }
}
