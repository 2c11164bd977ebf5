//! A request body that is all there.

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};
use tonic::body::Body;

struct Whole(Option<Bytes>);

/// It does not report its length, as tonic's own does not: HTTP would add a `content-length`, which
/// gRPC peers ignore.
pub(super) fn body(bytes: Bytes) -> Body {
    Body::new(Whole(Some(bytes).filter(|bytes| !bytes.is_empty())))
}

impl HttpBody for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        hint.set_lower(self.0.as_ref().map_or(0, Bytes::len) as u64);
        hint
    }
}
