//! Responses that end in trailers when the server ends.

use crate::end::{End, unavailable};
use bytes::Bytes;
use cinchona_core::BoxError;
use cinchona_plumbing::{Next, Polled, ResponseBody, Seen, Watcher, begins};
use http::{HeaderMap, Response};
use http_body::{Body, Frame};
use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// Ends a response with `UNAVAILABLE` when the server ends.
struct Ending {
    end: End,
    /// How many frames may be sent after that.
    left: u8,
}

/// How many ready frames are still forwarded at the end; a stream may have frames without end.
const LEFT: u8 = 16;

/// The response, which ends with the server if it is one of gRPC's that goes on.
pub(crate) fn ending<B>(response: Response<B>, end: End) -> Response<ResponseBody>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let mut response = response.map(ResponseBody::of);
    if begins(&response) {
        response.body_mut().watch(Ending { end, left: LEFT });
    }
    response
}

impl Watcher for Ending {
    fn sees(mut self: Pin<&mut Self>, polled: &mut Polled, _: &mut Seen) -> Next {
        let is_data = matches!(polled, Some(Ok(frame)) if frame.is_data());
        if !is_data || !self.end.is_here() {
            return Next::Watch;
        }
        if self.left > 0 {
            self.left -= 1;
            return Next::Watch;
        }
        *polled = Some(Ok(Frame::trailers(trailers())));
        Next::Cut
    }

    fn waits(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Polled> {
        if !self.end.poll_is_here(cx) {
            return Poll::Pending;
        }
        Poll::Ready(Some(Ok(Frame::trailers(trailers()))))
    }

    fn may_cut(&self) -> bool {
        true
    }
}

fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    // One of our statuses, whose message is ASCII.
    drop(unavailable().add_header(&mut trailers));
    trailers
}
