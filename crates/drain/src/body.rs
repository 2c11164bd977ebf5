//! Responses that end in trailers where they would outlive the server.

use crate::end::{End, unavailable};
use cinchona_plumbing::status;
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

pin_project! {
    /// A response body that ends with the server, in `UNAVAILABLE`.
    pub struct DrainBody<B> {
        // None once it was ended.
        #[pin]
        inner: Option<B>,
        // None where it is no gRPC.
        #[pin]
        end: Option<End>,
        // How many frames may come once the end has.
        left: u8,
    }
}

/// So much of what is there already is handed on at the end; a stream may have something for ever.
const LEFT: u8 = 16;

// === impl DrainBody ===

impl<B> DrainBody<B> {
    pub(crate) fn wrap(response: Response<B>, end: End) -> Response<Self> {
        let end = status::is_grpc(response.headers()).then_some(end);
        response.map(|inner| Self { inner: Some(inner), end, left: LEFT })
    }
}

impl<B: Body> Body for DrainBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        let is_here = this.end.as_ref().as_pin_ref().is_some_and(|end| end.is_here());
        if !is_here || *this.left > 0 {
            *this.left -= u8::from(is_here);
            if let Poll::Ready(frame) = inner.poll_frame(cx) {
                return Poll::Ready(frame);
            }
            if !this.end.as_pin_mut().is_some_and(|end| end.poll_is_here(cx)) {
                return Poll::Pending;
            }
        }
        this.inner.set(None);
        Poll::Ready(Some(Ok(Frame::trailers(trailers()))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    // A status of ours, whose message is ASCII.
    drop(unavailable().add_header(&mut trailers));
    trailers
}

impl<B> Default for DrainBody<B> {
    /// Empty, and at its end.
    fn default() -> Self {
        Self { inner: None, end: None, left: 0 }
    }
}

impl<B> fmt::Debug for DrainBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DrainBody").finish_non_exhaustive()
    }
}
