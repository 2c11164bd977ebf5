//! What the clones of a balancer share, and its calls with them.

use crate::set::Set;
use std::sync::Arc;
use tokio::task::AbortHandle;

/// The endpoints of a balancer, and the task that keeps them connected for as long as somebody
/// holds this.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    pub(crate) set: Arc<Set>,
    _task: Arc<Task>,
}

/// Ends the task of a balancer with its last clone.
#[derive(Debug)]
struct Task(AbortHandle);

// === impl Handle ===

impl Handle {
    pub(crate) fn new(set: Arc<Set>, task: AbortHandle) -> Self {
        Self { set, _task: Arc::new(Task(task)) }
    }
}

// === impl Task ===

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
