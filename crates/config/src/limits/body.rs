//! Bodies that fail where a message is too large.

use super::lengths::{Lengths, TooLarge};
use bytes::Bytes;
use cinchona_core::BoxError;
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, Waker, ready},
};
use tonic::{Status, body::Body};

/// What a request failed with, if it did: whoever waits for the response is to be told.
pub(super) type Overrun = Arc<OnceLock<Status>>;

/// A request's body; its first frame may have been read already.
#[derive(Debug)]
pub(super) struct RequestBody {
    body: Checked<Body>,
    first: Option<Option<Result<Frame<Bytes>, BoxError>>>,
    overrun: Overrun,
}

pin_project! {
    /// A response body that fails with `RESOURCE_EXHAUSTED` at a message that is too large, or once
    /// one of the request was.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        #[pin]
        body: Checked<B>,
        overrun: Option<Overrun>,
    }
}

pin_project! {
    #[derive(Debug)]
    struct Checked<B> {
        // None once it has failed: a stream is reset then.
        #[pin]
        inner: Option<B>,
        lengths: Option<Lengths>,
        // Of the message after those that were passed on.
        too_large: Option<u32>,
        words: &'static str,
    }
}

// === impl RequestBody ===

impl RequestBody {
    /// What is there of `body` is read at once: a request that fails by that is not to be sent.
    ///
    /// # Errors
    /// With the status that the call fails with.
    pub(super) fn begin(body: Body, most: u32) -> Result<(Self, Overrun), Status> {
        let overrun = Overrun::default();
        let body = Checked::new(body, Some(most), "trying to send message larger than max");
        let mut body = Self { body, first: None, overrun: overrun.clone() };
        // Whoever sends the body polls it again, with a waker of its own.
        if let Poll::Ready(first) = body.poll_next(&mut Context::from_waker(Waker::noop())) {
            body.first = Some(first);
        }
        match overrun.get() {
            Some(status) => Err(status.clone()),
            None => Ok((body, overrun)),
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = ready!(Pin::new(&mut self.body).poll_checked(cx));
        Poll::Ready(polled.map(|polled| {
            polled.map_err(|failed| match failed {
                Failed::TooLarge(status) => self.overrun.get_or_init(|| status).clone().into(),
                Failed::Inner(error) => error,
            })
        }))
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(first),
            None => self.poll_next(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.first {
            None => self.body.is_end(),
            Some(first) => first.is_none(),
        }
    }
}

// === impl ResponseBody ===

impl<B> ResponseBody<B> {
    pub(super) const fn new(body: B, most: Option<u32>, overrun: Option<Overrun>) -> Self {
        Self { body: Checked::new(body, most, "received message larger than max"), overrun }
    }
}

impl<B> Default for ResponseBody<B> {
    /// A body without anything in it.
    fn default() -> Self {
        let body = Checked { inner: None, lengths: None, too_large: None, words: "" };
        Self { body, overrun: None }
    }
}

impl<B> http_body::Body for ResponseBody<B>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut this = self.project();
        let polled = ready!(this.body.as_mut().poll_checked(cx));
        // Whatever came of it: the call has failed with its request.
        if let Some(status) = this.overrun.as_ref().and_then(|overrun| overrun.get()) {
            let status = status.clone();
            *this.overrun = None;
            this.body.end();
            return Poll::Ready(Some(Err(status.into())));
        }
        Poll::Ready(polled.map(|polled| polled.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.inner.as_ref().map(B::size_hint).unwrap_or_default()
    }
}

// === impl Checked ===

/// Why a body fails.
enum Failed {
    TooLarge(Status),
    Inner(BoxError),
}

impl<B> Checked<B> {
    const fn new(inner: B, most: Option<u32>, words: &'static str) -> Self {
        let lengths = match most {
            Some(most) => Some(Lengths::new(most)),
            None => None,
        };
        Self { inner: Some(inner), lengths, too_large: None, words }
    }

    fn end(self: Pin<&mut Self>) {
        self.project().inner.set(None);
    }
}

impl<B> Checked<B>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    fn poll_checked(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failed>>> {
        let mut this = self.project();
        let most = this.lengths.as_ref().map_or(u32::MAX, Lengths::most);
        let failed = |length| {
            let text = format!("{} ({length} vs. {most})", this.words);
            Poll::Ready(Some(Err(Failed::TooLarge(Status::resource_exhausted(text)))))
        };
        if let Some(length) = this.too_large.take() {
            return failed(length);
        }
        let Some(inner) = this.inner.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        let frame = match ready!(inner.poll_frame(cx)) {
            None => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(Failed::Inner(error.into())))),
            Some(Ok(frame)) => frame,
        };
        let piece = frame.data_ref().map_or(&[][..], |piece| piece);
        let found = this.lengths.as_mut().map_or(Ok(()), |lengths| lengths.follow(piece));
        let Err(TooLarge { at, length }) = found else { return Poll::Ready(Some(Ok(frame))) };
        let sound = frame.into_data().map(|piece| piece.slice(..at)).unwrap_or_default();
        this.inner.set(None);
        if sound.is_empty() {
            return failed(length);
        }
        *this.too_large = Some(length);
        Poll::Ready(Some(Ok(Frame::data(sound))))
    }

    fn is_end(&self) -> bool {
        let has_ended = self.inner.as_ref().is_none_or(B::is_end_stream);
        has_ended && self.too_large.is_none()
    }
}

// === impl Failed ===

impl From<Failed> for BoxError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::TooLarge(status) => status.into(),
            Failed::Inner(error) => error,
        }
    }
}
