//! The response's body, which ends at an instant or after a silence.

use crate::{stage::Stage, timer::Timer};
use bytes::Bytes;
use cinchona_core::BoxError;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

pin_project! {
    /// A response body that ends when its time is over, if need be with an error.
    #[derive(Debug)]
    pub struct BoundBody<B> {
        #[pin]
        inner: Option<B>,
        timer: Option<Pin<Box<Timer>>>,
    }
}

// === impl BoundBody ===

impl<B> BoundBody<B> {
    pub(crate) const fn new(inner: B, timer: Option<Pin<Box<Timer>>>) -> Self {
        Self { inner: Some(inner), timer }
    }
}

impl<B> Default for BoundBody<B> {
    /// A body without frames, for a response that was made by an interceptor.
    fn default() -> Self {
        Self { inner: None, timer: None }
    }
}

impl<B> Body for BoundBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        let Some(timer) = this.timer else {
            return inner.poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Into::into)));
        };
        match inner.poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    timer.as_mut().heard(data);
                    // A stream whose next frame is always there never waits, and must end as well.
                    if timer.bound().messages.stage() == Stage::Rest
                        && let Some(elapsed) = timer.bound().whole_is_over()
                    {
                        this.inner.set(None);
                        return Poll::Ready(Some(Err(elapsed.into())));
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                Poll::Ready(Some(Err(cinchona_core::Verdict::status_of(error.into()).into())))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                let stage = timer.bound().messages.stage();
                let elapsed = ready!(timer.as_mut().poll_end(cx, stage));
                // Drops the body: HTTP/2 resets the stream.
                this.inner.set(None);
                Poll::Ready(Some(Err(elapsed.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}
