//! Whose turn it is while a request is streamed.

use cinchona_core::MethodKind;
use cinchona_plumbing::{clock::nanos, watch_request};
use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};
use tokio::time::Instant;
use tonic::body::Body;

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

/// Knows whose turn it is, as long as the request is sent.
struct Turn(Arc<Upload>);

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
        let turn = Turn(upload.clone());
        watch_request(body, move |polled| match polled {
            Poll::Pending => turn.0.since.store(CALLER, Ordering::Release),
            Poll::Ready(_) => turn.0.server_is_to_move(),
        });
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

// === impl Turn ===

impl Drop for Turn {
    /// The caller is not awaited any more.
    fn drop(&mut self) {
        if self.0.since.load(Ordering::Acquire) == CALLER {
            self.0.server_is_to_move();
        }
    }
}
