//! When a call ends at the latest, and with which status.

use crate::phases::{Phase, Shared};
use std::{future::Future, pin::Pin, sync::Arc, task::Context};
use tokio::sync::futures::OwnedNotified;
use tonic::Status;

/// When a call ends at the latest.
pub(crate) struct End {
    /// `None` once it was passed on.
    shared: Option<Arc<Shared>>,
    at: Phase,
    /// From the first wait on; boxed, as it is large, and futures of calls move.
    wait: Option<Pin<Box<OwnedNotified>>>,
}

/// The status of calls that are ended.
pub(crate) fn unavailable() -> Status {
    Status::unavailable("the server is shutting down")
}

// === impl End ===

impl End {
    pub(crate) fn new(shared: Arc<Shared>, at: Phase) -> Self {
        Self { shared: Some(shared), at, wait: None }
    }

    /// The same end, for the next stage of the call.
    pub(crate) fn handed_on(&mut self) -> Self {
        Self { shared: self.shared.take(), at: self.at, wait: None }
    }

    /// Whether it has come.
    pub(crate) fn is_here(&self) -> bool {
        let has_come = |shared: &Arc<Shared>| shared.phase() >= self.at;
        self.at < Phase::Cut && self.shared.as_ref().is_some_and(has_come)
    }

    /// Whether it has come; if not, the task is woken when it does.
    pub(crate) fn poll_is_here(&mut self, cx: &mut Context<'_>) -> bool {
        let at = self.at;
        // Connections are cut by the connection wrapper itself.
        let Some(shared) = self.shared.as_ref().filter(|_| at < Phase::Cut) else {
            return false;
        };
        // A `Notified` receives all notifications after its creation.
        let wait = self.wait.get_or_insert_with(|| Box::pin(shared.wait(at)));
        wait.as_mut().poll(cx).is_ready() || shared.phase() >= at
    }
}
