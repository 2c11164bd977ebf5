//! The body of a request, on its way.

use bytes::Bytes;
use cinchona_plumbing::cause::find_cause;
use h2::{Reason, SendStream};
use http_body::{Body as HttpBody, Frame};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::{runtime::Handle, task::AbortHandle};
use tonic::{Status, body::Body};

/// Sends a body, frame by frame, each when the window has room for it; of the last frame the end of
/// the stream is part. It ends with the body, or when the stream takes no more.
pub(super) struct Upload {
    stream: SendStream<Bytes>,
    body: Body,
    /// Read, and not sent.
    held: Option<Bytes>,
    /// Something was sent, for which the window may have no room left.
    has_sent: bool,
    is_over: bool,
}

/// An upload that goes on by itself, until this is dropped.
pub(super) struct Task(Option<AbortHandle>);

// === impl Upload ===

impl Upload {
    pub(super) const fn new(stream: SendStream<Bytes>, body: Body) -> Self {
        Self { stream, body, held: None, has_sent: false, is_over: false }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    /// Waits until all that was sent has left, and there is room for more.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.stream.reserve_capacity(1);
        while self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(false),
            }
        }
        Poll::Ready(true)
    }

    /// Sends what is held; whether the stream takes more.
    fn sends(&mut self, is_last: bool) -> bool {
        let held = self.held.take();
        if held.is_none() && !is_last {
            return true;
        }
        self.has_sent = true;
        self.stream.send_data(held.unwrap_or_default(), is_last).is_ok() && !is_last
    }

    /// The end of the body, trailers or a failure.
    fn ends(&mut self, last: Option<Result<Frame<Bytes>, Status>>) {
        match last {
            None => _ = self.sends(true),
            Some(Ok(frame)) => {
                self.sends(false);
                if let Ok(trailers) = frame.into_trailers() {
                    _ = self.stream.send_trailers(trailers);
                }
            }
            // What fails never looks complete.
            Some(Err(error)) => {
                let reset = find_cause::<h2::Error>(&error).and_then(h2::Error::reason);
                self.stream.send_reset(reset.unwrap_or(Reason::INTERNAL_ERROR));
            }
        }
    }
}

impl Upload {
    fn goes_on(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.held.is_some() && self.has_sent && !ready!(self.poll_room(cx)) {
                return Poll::Ready(());
            }
            match self.poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) if frame.is_data() => {
                    if !self.sends(false) {
                        return Poll::Ready(());
                    }
                    self.held = frame.into_data().ok().filter(|data| !data.is_empty());
                }
                Poll::Ready(last) => {
                    self.ends(last);
                    return Poll::Ready(());
                }
                Poll::Pending => {
                    // What is there is not held back for what may come.
                    let is_over = !self.sends(false) || self.stream.poll_reset(cx).is_ready();
                    return if is_over { Poll::Ready(()) } else { Poll::Pending };
                }
            }
        }
    }
}

impl Future for Upload {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.goes_on(cx));
        self.is_over = true;
        Poll::Ready(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // A part of a body never looks complete: its call was dropped, or its body has panicked.
        if !self.is_over {
            let has_failed = std::thread::panicking();
            self.stream.send_reset(if has_failed {
                Reason::INTERNAL_ERROR
            } else {
                Reason::CANCEL
            });
        }
    }
}

// === impl Task ===

impl Task {
    pub(super) fn new(runtime: &Handle, upload: Upload) -> Self {
        Self(Some(runtime.spawn(upload).abort_handle()))
    }

    /// Lets it go on to the end of its body.
    pub(super) fn detach(mut self) {
        self.0 = None;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}
