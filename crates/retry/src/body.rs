//! The response's body: what its trailers say counts too.

use crate::{budget::Depositor, codes::Codes, shared::Shared, throttle::CallThrottle};
use bytes::Bytes;
use cinchona_core::{BoxError, Verdict};
use cinchona_plumbing::{Sent, status};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::time::Instant;
use tonic::Code;

pin_project! {
    /// A response body; the status in its trailers goes to the throttle and the budget. It is
    /// passed on as it is, but for status details by which tonic would panic.
    pub struct ResponseBody<B> {
        #[pin]
        inner: B,
        observer: Option<Observer>,
        is_bare: bool,
    }
}

/// Who is told how the call ended.
pub(crate) struct Observer {
    shared: Arc<Shared>,
    throttle: CallThrottle,
    depositor: Depositor,
    listed: Codes,
    /// What has become of the request's own body, which may fail after the answer has begun.
    sent: Sent,
}

// === impl ResponseBody ===

impl<B> ResponseBody<B> {
    pub(crate) const fn new(inner: B, observer: Option<Observer>) -> Self {
        Self { inner, observer, is_bare: false }
    }

    /// A body that is passed on as it is, whatever its trailers say.
    pub(crate) const fn bare(inner: B) -> Self {
        Self { inner, observer: None, is_bare: true }
    }
}

impl<B: Default> Default for ResponseBody<B> {
    /// A body without frames, for a response that was made by an interceptor.
    fn default() -> Self {
        Self::bare(B::default())
    }
}

impl<B> Body for ResponseBody<B>
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
        let this = self.project();
        let mut frame = ready!(this.inner.poll_frame(cx)).map(|frame| frame.map_err(Into::into));
        if *this.is_bare {
            return Poll::Ready(frame);
        }
        if let Some(Err(error)) = &mut frame
            && let Some(own) = this.observer.as_ref().and_then(|observer| observer.sent.failure())
        {
            *error = own.into();
            *this.observer = None;
            return Poll::Ready(frame);
        }
        let verdict = match &mut frame {
            Some(Ok(frame)) => frame.trailers_mut().map(|trailers| {
                status::mend(trailers);
                Verdict::of_trailers(trailers)
            }),
            Some(Err(error)) => Some(Verdict::of_error(&**error)),
            None => Some(Verdict::MaybeProcessed(Code::Unknown)),
        };
        if let Some(verdict) = verdict
            && let Some(observer) = this.observer.take()
        {
            observer.ended(verdict);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}

// === impl Observer ===

impl Observer {
    pub(crate) const fn new(
        shared: Arc<Shared>,
        throttle: CallThrottle,
        depositor: Depositor,
        listed: Codes,
        sent: Sent,
    ) -> Self {
        Self { shared, throttle, depositor, listed, sent }
    }

    /// Waits for the trailers, unless the head has already said it all.
    pub(crate) fn unless_ended<B>(self, head: &http::Response<B>) -> Option<Self> {
        match status::code(head.headers()) {
            Some(code) => {
                self.ended(Verdict::of_code(code));
                None
            }
            None => Some(self),
        }
    }

    /// The attempt that was committed to has ended so. A failure counts as one before the commit
    /// does, whether trailers say it, a reset or a lost connection.
    pub(crate) fn ended(self, verdict: Verdict) {
        match verdict {
            Verdict::Ok => {
                self.throttle.succeeded();
                self.shared.budget.deposit(&self.depositor, Instant::now);
            }
            Verdict::Local(_) => {}
            failed if self.listed.contains(failed.code()) => self.throttle.failed(),
            _ => {}
        }
    }
}
