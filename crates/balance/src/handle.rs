//! The handle that the clones of a balancer and its calls share.

use crate::set::Set;
use std::sync::{Arc, Weak};
use tokio::task::AbortHandle;

/// The endpoints of a balancer, and the task that keeps them connected while a handle exists.
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

    /// Returns `Some` while another handle exists.
    pub(crate) fn finder(&self) -> impl Fn() -> Option<Self> + Send + Sync + use<> {
        let (set, task): (_, Weak<Task>) = (Arc::downgrade(&self.set), Arc::downgrade(&self._task));
        move || Some(Self { set: set.upgrade()?, _task: task.upgrade()? })
    }
}

// === impl Task ===

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
