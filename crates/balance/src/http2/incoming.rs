//! The body of an answer.

use super::{shared::InFlight, upload::Upload};
use bytes::Bytes;
use cinchona_core::BoxError;
use h2::{Reason, RecvStream};
use http_body::{Body, Frame, SizeHint};
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::task::AbortHandle;

/// The body of an answer. While it is read, the rest of the request is sent; dropped before its
/// end, it resets the stream.
pub(crate) struct Incoming {
    body: RecvStream,
    /// Its data have all come.
    has_data: bool,
    in_flight: Option<InFlight>,
    /// Sends the rest of the request.
    _upload: Option<Task>,
}

struct Task(AbortHandle);

// === impl Incoming ===

impl Incoming {
    pub(super) fn new(
        body: RecvStream,
        upload: Option<Upload>,
        in_flight: Option<InFlight>,
    ) -> Self {
        let spawn = |upload| {
            let runtime = in_flight.as_ref().map(InFlight::runtime);
            runtime.map(|runtime| Task(runtime.spawn(upload).abort_handle()))
        };
        let upload = upload.and_then(spawn);
        Self { body, has_data: true, in_flight, _upload: upload }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        let data = ready!(self.body.poll_data(cx));
        if let Some(Ok(data)) = &data {
            _ = self.body.flow_control().release_capacity(data.len());
        }
        Poll::Ready(data)
    }

    fn explain(&self, error: h2::Error) -> BoxError {
        match &self.in_flight {
            Some(in_flight) => in_flight.explain(error),
            None => error.into(),
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.has_data {
            match ready!(self.poll_data(cx)) {
                Some(Ok(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                // The server wants no more of the request (RFC 9113, section 8.1); what has come of
                // the answer is all.
                Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => {
                    return Poll::Ready(None);
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(self.explain(error)))),
                None => self.has_data = false,
            }
        }
        let trailers = ready!(self.body.poll_trailers(cx));
        let trailers = trailers.map_err(|error| self.explain(error)).transpose();
        Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_end_stream() { SizeHint::with_exact(0) } else { SizeHint::new() }
    }
}

// === impl Task ===

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
