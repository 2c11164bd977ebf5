//! A response body that holds its call's place until it has ended.

use crate::limiter::Permit;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

pin_project! {
    /// A response body; its call is in progress until it has ended or is dropped.
    pub struct ResponseBody<B> {
        #[pin]
        inner: Option<B>,
        permit: Option<Permit>,
    }
}

// === impl ResponseBody ===

impl<B: Body> ResponseBody<B> {
    pub(crate) fn new(inner: B, permit: Option<Permit>) -> Self {
        let mut permit = permit;
        if permit.is_some()
            && inner.is_end_stream()
            && let Some(mut permit) = permit.take()
        {
            permit.answered(true);
        }
        Self { inner: Some(inner), permit }
    }

    /// The body of an answer that is over with its headers.
    pub(crate) const fn empty() -> Self {
        Self { inner: None, permit: None }
    }
}

impl<B> Default for ResponseBody<B> {
    /// A body without frames, for a response that was made by an interceptor.
    fn default() -> Self {
        Self { inner: None, permit: None }
    }
}

impl<B: Body> Body for ResponseBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let Some(inner) = this.inner.as_pin_mut() else { return Poll::Ready(None) };
        let frame = ready!(inner.poll_frame(cx));
        let goes_on = frame.as_ref().is_some_and(|frame| frame.as_ref().is_ok_and(Frame::is_data));
        if !goes_on && let Some(mut permit) = this.permit.take() {
            permit.answered(frame.as_ref().is_none_or(Result::is_ok));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<B> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}
