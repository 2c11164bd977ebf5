//! Whose turn it is while a request is streamed.

use bytes::Bytes;
use cinchona_core::MethodKind;
use cinchona_plumbing::clock::nanos;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::{
    any::Any,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::Instant;
use tonic::{Status, body::Body};

/// Since when it has been the server's turn: since the call, the last message from the client, or
/// the end of the request. While the caller has not yet made its next message, a limit does not
/// run.
#[derive(Debug)]
pub(crate) struct Upload {
    origin: Instant,
    /// Nanoseconds after `origin`, or [`CALLER`].
    since: AtomicU64,
}

/// It is the caller's turn.
const CALLER: u64 = u64::MAX;

struct Watched {
    inner: Body,
    upload: Arc<Upload>,
}

// === impl Upload ===

impl Upload {
    /// Watches the body of a streamed request. Only tonic's own, which generated clients send, can
    /// be watched.
    pub(crate) fn watch<B: 'static>(
        kind: Option<MethodKind>,
        request: &mut http::Request<B>,
        now: Instant,
    ) -> Option<Arc<Self>> {
        if !kind.is_some_and(MethodKind::streams_requests) {
            return None;
        }
        let body = (request.body_mut() as &mut dyn Any).downcast_mut::<Body>()?;
        let upload = Arc::new(Self { origin: now, since: AtomicU64::new(0) });
        let inner = std::mem::take(body);
        *body = Body::new(Watched { inner, upload: upload.clone() });
        Some(upload)
    }

    /// When `limit` is over, as of `now`.
    pub(crate) fn end(&self, limit: Duration, now: Instant) -> Instant {
        match self.since.load(Ordering::Acquire) {
            // Check again then. Timers have the resolution of a millisecond.
            CALLER => now + limit.max(Duration::from_millis(1)),
            since => self.origin + Duration::from_nanos(since) + limit,
        }
    }

    fn server_is_to_move(&self) {
        let since = nanos(Instant::now() - self.origin).min(CALLER - 1);
        self.since.store(since, Ordering::Release);
    }
}

// === impl Watched ===

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        match &polled {
            Poll::Pending => self.upload.since.store(CALLER, Ordering::Release),
            Poll::Ready(_) => self.upload.server_is_to_move(),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Watched {
    /// The caller is not awaited any more.
    fn drop(&mut self) {
        if self.upload.since.load(Ordering::Acquire) == CALLER {
            self.upload.server_is_to_move();
        }
    }
}
