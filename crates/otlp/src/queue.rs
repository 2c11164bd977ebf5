//! Where spans wait for the task that sends them.

use opentelemetry_proto::tonic::trace::v1::Span;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

/// Where spans wait.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    pub(crate) spans: mpsc::Sender<Waiting>,
    pub(crate) lost: Arc<AtomicU64>,
}

#[derive(Debug)]
pub(crate) enum Waiting {
    Span(Box<Span>),
    Flush(Asked),
}

/// Somebody wants to know what became of all that was there.
pub(crate) type Asked = oneshot::Sender<Result<(), Status>>;

// === impl Queue ===

impl Queue {
    /// Sends `span`, when there is time for it; nobody waits here.
    pub(crate) fn push(&self, span: Span) {
        if self.spans.try_send(Waiting::Span(Box::new(span))).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}
