//! The body of an answer.

use super::{shared::InFlight, upload::Task};
use bytes::Bytes;
use cinchona_core::BoxError;
use h2::{Reason, RecvStream};
use http_body::{Body, Frame, SizeHint};
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

/// The body of an answer. Its end is that of the call: what is left of the request is not sent.
/// Dropped before, it leaves the request to go on, as with tonic's channel; if that has ended, the
/// stream is reset.
pub(crate) struct Incoming {
    body: RecvStream,
    /// Its data have all come.
    has_data: bool,
    /// Until it has ended.
    in_flight: Option<InFlight>,
    /// Sends the rest of the request.
    upload: Option<Task>,
}

type Polled = Option<Result<Frame<Bytes>, BoxError>>;

// === impl Incoming ===

impl Incoming {
    pub(super) const fn new(
        body: RecvStream,
        upload: Option<Task>,
        in_flight: Option<InFlight>,
    ) -> Self {
        Self { body, has_data: true, in_flight, upload }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        let data = ready!(self.body.poll_data(cx));
        if let Some(Ok(data)) = &data {
            _ = self.body.flow_control().release_capacity(data.len());
        }
        Poll::Ready(data)
    }

    /// The last of it; the call is over.
    fn ends(&mut self, last: Option<Result<Frame<Bytes>, h2::Error>>) -> Polled {
        let in_flight = self.in_flight.take();
        self.upload = None;
        last.map(|last| {
            last.map_err(|error| match in_flight {
                Some(in_flight) => in_flight.explain(error),
                None => error.into(),
            })
        })
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Polled> {
        if self.has_data {
            match ready!(self.poll_data(cx)) {
                Some(Ok(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                // The server wants no more of the request (RFC 9113, section 8.1); what has come of
                // the answer is all.
                Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => {
                    return Poll::Ready(self.ends(None));
                }
                Some(Err(error)) => return Poll::Ready(self.ends(Some(Err(error)))),
                None => self.has_data = false,
            }
        }
        let trailers = ready!(self.body.poll_trailers(cx)).transpose();
        Poll::Ready(self.ends(trailers.map(|trailers| trailers.map(Frame::trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_end_stream() { SizeHint::with_exact(0) } else { SizeHint::new() }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(upload) = self.upload.take() {
            upload.detach();
        }
    }
}
