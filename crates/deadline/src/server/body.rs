//! What is answered, bounded as well.

use super::end::{EXCEEDED, End, TICK};
use bytes::Bytes;
use cinchona_core::{Deadline, ServerContext};
use cinchona_plumbing::status;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tonic::Status;

pin_project! {
    /// A response body that ends at the deadline, with `DEADLINE_EXCEEDED` in its trailers.
    pub struct ServerBody<B> {
        #[pin]
        inner: Option<B>,
        end: Option<End>,
        // The caller's own deadline, where it is another, until it is the end.
        whole: Option<Box<Option<Deadline>>>,
        context: ServerContext,
    }
}

// === impl ServerBody ===

impl<B: Body> ServerBody<B> {
    /// `body`, which must begin before `end`, and end before it or the deadline of the `whole`.
    pub(super) fn bound(
        body: B,
        end: Option<End>,
        whole: Option<Box<Option<Deadline>>>,
        context: ServerContext,
    ) -> Self {
        Self { inner: Some(body), end, whole, context }
    }
}

impl<B> Default for ServerBody<B> {
    /// A body without frames, for a response that was made by an interceptor.
    fn default() -> Self {
        Self { inner: None, end: None, whole: None, context: ServerContext::default() }
    }
}

impl<B: Body<Data = Bytes>> Body for ServerBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        // The stream of a handler may make calls as well.
        let mut polled = this.context.within(|| inner.poll_frame(cx));
        if let Poll::Ready(frame) = &mut polled {
            if let Some(Ok(frame)) = frame {
                frame.trailers_mut().into_iter().for_each(status::strip);
            }
            // It has begun: from here on only the caller's deadline counts.
            if let Some(whole) = this.whole.take() {
                let whole = *whole;
                this.context.deadline = whole;
                match (whole.map(|whole| whole.0 - TICK), &mut *this.end) {
                    (Some(at), Some(end)) => end.move_to(at),
                    (at, end) => *end = at.map(End::at),
                }
            }
            return polled;
        }
        let Some(end) = this.end else { return Poll::Pending };
        ready!(end.poll(cx));
        this.inner.set(None);
        let mut trailers = http::HeaderMap::new();
        // What cannot be said ends the response all the same.
        _ = Status::deadline_exceeded(EXCEEDED).add_header(&mut trailers);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            // It may be cut off.
            Some(_) if self.end.is_some() || self.whole.is_some() => SizeHint::default(),
            Some(inner) => inner.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

impl<B> fmt::Debug for ServerBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBody").field("context", &self.context).finish_non_exhaustive()
    }
}
