//! The body of a response that was read or kept.

use bytes::Bytes;
use cinchona_plumbing::ResponseBody;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use std::{
    collections::VecDeque,
    mem,
    pin::Pin,
    task::{Context, Poll},
};
use tonic::Status;

/// A body that is replayed: what was read of another, or kept.
#[derive(Debug)]
struct Played {
    frames: Frames,
    end: End,
}

pub(crate) type Frames = VecDeque<Bytes>;

/// The rest after the frames that are held.
#[derive(Debug)]
pub(crate) enum End {
    Trailers(HeaderMap),
    Error(Status),
    Rest(Box<ResponseBody>),
    Nothing,
}

/// A body of these frames, with this end.
pub(crate) fn played(frames: Frames, end: End) -> ResponseBody {
    ResponseBody::of(Played { frames, end })
}

impl Body for Played {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Self { frames, end } = self.get_mut();
        if let Some(data) = frames.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let End::Rest(rest) = end {
            return Pin::new(rest).poll_frame(cx);
        }
        Poll::Ready(match mem::replace(end, End::Nothing) {
            End::Trailers(trailers) => Some(Ok(Frame::trailers(trailers))),
            End::Error(error) => Some(Err(error)),
            End::Rest(_) | End::Nothing => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        let over = match &self.end {
            End::Nothing => true,
            End::Rest(rest) => rest.is_end_stream(),
            End::Trailers(_) | End::Error(_) => false,
        };
        over && self.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.end {
            End::Trailers(_) | End::Nothing => {
                SizeHint::with_exact(self.frames.iter().map(|data| data.len() as u64).sum())
            }
            End::Error(_) | End::Rest(_) => SizeHint::default(),
        }
    }
}
