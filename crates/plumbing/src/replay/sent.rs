//! A request of which no other attempt will be built.

use super::tape::Tape;
use std::sync::Arc;
use tonic::Status;

/// A request that was sent: whether its body has failed since.
#[derive(Debug)]
pub struct Sent(pub(super) Option<Arc<Tape>>);

// === impl Sent ===

impl Sent {
    /// By what the body of the request has failed, if it has.
    pub fn failure(&self) -> Option<Status> {
        self.0.as_ref()?.failure()
    }
}
