//! Bodies that fail at a message that is too large.

use super::lengths::{Lengths, TooLarge};
use bytes::Bytes;
use cinchona_core::BoxError;
use cinchona_plumbing::{Next, Polled, Seen, Watcher};
use http_body::{Body as _, Frame};
use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, Waker, ready},
};
use tonic::{Status, body::Body};

/// The error of a request that failed, with which the response fails too.
pub(super) type Overrun = Arc<OnceLock<Status>>;

/// A request's body; its first frame may have been read already.
#[derive(Debug)]
pub(super) struct RequestBody {
    body: Checked,
    first: Option<Option<Result<Frame<Bytes>, BoxError>>>,
    overrun: Overrun,
}

/// Fails a response with `RESOURCE_EXHAUSTED` at a message that is too large, or once the request
/// had one.
#[derive(Debug)]
pub(super) struct Limiter {
    lengths: Option<Lengths>,
    // The position in the message after those that were passed on.
    too_large: Option<u32>,
    overrun: Option<Overrun>,
}

/// A request's body up to a message that is too large.
#[derive(Debug)]
struct Checked {
    // `None` once it has failed: the stream is then reset.
    inner: Option<Body>,
    lengths: Lengths,
    // The position in the message after those that were passed on.
    too_large: Option<u32>,
}

// === impl RequestBody ===

impl RequestBody {
    /// Reads the frames of `body` that are ready: a request that fails by them is not sent.
    ///
    /// # Errors
    /// With the status of the call.
    pub(super) fn begin(body: Body, most: u32) -> Result<(Self, Overrun), Status> {
        let overrun = Overrun::default();
        let body = Checked { inner: Some(body), lengths: Lengths::new(most), too_large: None };
        let mut body = Self { body, first: None, overrun: overrun.clone() };
        // The transport polls the body again, with its own waker.
        if let Poll::Ready(first) = body.poll_next(&mut Context::from_waker(Waker::noop())) {
            body.first = Some(first);
        }
        match overrun.get() {
            Some(status) => Err(status.clone()),
            None => Ok((body, overrun)),
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = ready!(self.body.poll_checked(cx));
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

// === impl Limiter ===

impl Limiter {
    pub(super) fn new(most: Option<u32>, overrun: Option<Overrun>) -> Self {
        Self { lengths: most.map(Lengths::new), too_large: None, overrun }
    }

    fn fails(&mut self, length: u32) -> Result<Frame<Bytes>, Status> {
        let most = self.lengths.take().map_or(u32::MAX, |lengths| lengths.most());
        Err(too_large("received", length, most))
    }
}

impl Watcher for Limiter {
    fn sees(self: Pin<&mut Self>, polled: &mut Polled, _: &mut Seen) -> Next {
        let own = self.get_mut();
        // Ignores the body's own result: the call has failed with its request.
        if let Some(status) = own.overrun.as_ref().and_then(|overrun| overrun.get()) {
            *polled = Some(Err(status.clone()));
            own.overrun = None;
            (own.lengths, own.too_large) = (None, None);
            return Next::Cut;
        }
        if let Some(length) = own.too_large.take() {
            *polled = Some(own.fails(length));
            return Next::Cut;
        }
        let (Some(Ok(frame)), Some(lengths)) = (&mut *polled, &mut own.lengths) else {
            return Next::Watch;
        };
        let piece = frame.data_ref().map_or(&[][..], |piece| piece);
        let Err(TooLarge { at, length }) = lengths.follow(piece) else { return Next::Watch };
        let sound = frame.data_ref().map(|piece| piece.slice(..at)).unwrap_or_default();
        *polled = Some(if sound.is_empty() {
            own.fails(length)
        } else {
            own.too_large = Some(length);
            Ok(Frame::data(sound))
        });
        Next::Cut
    }

    fn holds_more(&self) -> bool {
        self.too_large.is_some()
    }
}

fn too_large(what: &str, length: u32, most: u32) -> Status {
    Status::resource_exhausted(format!("{what} message larger than max ({length} vs. {most})"))
}

// === impl Checked ===

/// The error of such a body.
enum Failed {
    TooLarge(Status),
    Inner(BoxError),
}

impl Checked {
    fn poll_checked(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failed>>> {
        let most = self.lengths.most();
        let failed = |length| {
            let status = too_large("trying to send", length, most);
            Poll::Ready(Some(Err(Failed::TooLarge(status))))
        };
        if let Some(length) = self.too_large.take() {
            return failed(length);
        }
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        let frame = match ready!(Pin::new(inner).poll_frame(cx)) {
            None => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(Failed::Inner(error.into())))),
            Some(Ok(frame)) => frame,
        };
        let piece = frame.data_ref().map_or(&[][..], |piece| piece);
        let Err(TooLarge { at, length }) = self.lengths.follow(piece) else {
            return Poll::Ready(Some(Ok(frame)));
        };
        let sound = frame.into_data().map(|piece| piece.slice(..at)).unwrap_or_default();
        self.inner = None;
        if sound.is_empty() {
            return failed(length);
        }
        self.too_large = Some(length);
        Poll::Ready(Some(Ok(Frame::data(sound))))
    }

    fn is_end(&self) -> bool {
        let has_ended = self.inner.as_ref().is_none_or(Body::is_end_stream);
        has_ended && self.too_large.is_none()
    }
}
