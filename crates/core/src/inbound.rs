//! The call that is being served while another is made.

use crate::Deadline;
use std::future::Future;
use tokio::task::futures::TaskLocalFuture;

/// What of the call being served bears on the calls that its handler makes.
///
/// A server layer puts it around the handler; client layers find it by themselves, as long as the
/// handler makes its calls in its own task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerContext {
    /// When the answer is due: no call of the handler is worth more time.
    pub deadline: Option<Deadline>,
    /// Which retry of the caller this is; 0 for its first attempt (gRFC A6).
    pub previous_attempts: u32,
}

tokio::task_local! {
    static INBOUND: ServerContext;
}

// === impl ServerContext ===

impl ServerContext {
    /// The call that this task is serving, if it is.
    pub fn current() -> Option<Self> {
        INBOUND.try_with(|inbound| *inbound).ok()
    }

    /// Runs `handler` as serving this call.
    pub fn scope<F: Future>(self, handler: F) -> TaskLocalFuture<Self, F> {
        INBOUND.scope(self, handler)
    }

    /// Runs `poll` as serving this call.
    pub fn within<T>(self, poll: impl FnOnce() -> T) -> T {
        INBOUND.sync_scope(self, poll)
    }
}
