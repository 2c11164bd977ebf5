//! The queue of spans for the sending task.

use cinchona_plumbing::Count;
use opentelemetry_proto::tonic::trace::v1::Span;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

/// The sending end of the queue.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    pub(crate) spans: mpsc::Sender<Waiting>,
    pub(crate) lost: Arc<Count>,
}

#[derive(Debug)]
pub(crate) enum Waiting {
    Span(Box<Span>),
    Flush(Asked),
}

/// A flush waits for the result of all earlier spans.
pub(crate) type Asked = oneshot::Sender<Result<(), Status>>;

// === impl Queue ===

impl Queue {
    /// Queues `span`; never blocks.
    pub(crate) fn push(&self, span: Span) {
        if self.spans.try_send(Waiting::Span(Box::new(span))).is_err() {
            self.lost.count();
        }
    }
}
