//! The response's body: as it comes from below, or what was read of it, or a kept answer.

use bytes::Bytes;
use cinchona_core::BoxError;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::{
    collections::VecDeque,
    fmt, mem,
    pin::Pin,
    task::{Context, Poll},
};

pin_project! {
    /// A response body that is passed on as it is, or a second answer.
    pub struct FallbackBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<B> {
        Passed { #[pin] inner: B },
        Alternate { #[pin] inner: tonic::body::Body },
        Played { frames: Frames, end: End<B> },
    }
}

pub(crate) type Frames = VecDeque<Bytes>;

/// What comes after the frames that are held.
#[derive(Debug)]
pub(crate) enum End<B> {
    Trailers(HeaderMap),
    Error(BoxError),
    Rest(Pin<Box<B>>),
    Nothing,
}

// === impl FallbackBody ===

impl<B> FallbackBody<B> {
    pub(crate) const fn passed(inner: B) -> Self {
        Self { kind: Kind::Passed { inner } }
    }

    pub(crate) const fn alternate(inner: tonic::body::Body) -> Self {
        Self { kind: Kind::Alternate { inner } }
    }

    pub(crate) const fn played(frames: Frames, end: End<B>) -> Self {
        Self { kind: Kind::Played { frames, end } }
    }
}

impl<B> Default for FallbackBody<B> {
    /// A body without frames, for a response that was made by an interceptor.
    fn default() -> Self {
        Self::played(Frames::new(), End::Nothing)
    }
}

impl<B> Body for FallbackBody<B>
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
        let (frames, end) = match self.project().kind.project() {
            KindProj::Passed { inner } => return inner.poll_frame(cx).map_err(Into::into),
            KindProj::Alternate { inner } => return inner.poll_frame(cx).map_err(Into::into),
            KindProj::Played { frames, end } => (frames, end),
        };
        if let Some(data) = frames.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let End::Rest(rest) = end {
            return rest.as_mut().poll_frame(cx).map_err(Into::into);
        }
        Poll::Ready(match mem::replace(end, End::Nothing) {
            End::Trailers(trailers) => Some(Ok(Frame::trailers(trailers))),
            End::Error(error) => Some(Err(error)),
            End::Rest(_) | End::Nothing => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Passed { inner } => inner.is_end_stream(),
            Kind::Alternate { inner } => inner.is_end_stream(),
            Kind::Played { frames, end } => {
                let over = match end {
                    End::Nothing => true,
                    End::Rest(rest) => rest.is_end_stream(),
                    End::Trailers(_) | End::Error(_) => false,
                };
                over && frames.is_empty()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Passed { inner } => inner.size_hint(),
            Kind::Alternate { inner } => inner.size_hint(),
            Kind::Played { frames, end: End::Trailers(_) | End::Nothing } => {
                SizeHint::with_exact(frames.iter().map(|data| data.len() as u64).sum())
            }
            Kind::Played { .. } => SizeHint::default(),
        }
    }
}

impl<B> fmt::Debug for FallbackBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FallbackBody").finish_non_exhaustive()
    }
}
