//! When a call ends at the latest, and with which status.

use crate::phases::{Phase, Shared};
use pin_project_lite::pin_project;
use std::{future::Future, pin::Pin, sync::Arc, task::Context};
use tokio::sync::futures::OwnedNotified;
use tonic::Status;

pin_project! {
    /// When a call ends at the latest.
    pub(crate) struct End {
        // `None` once it was passed on.
        shared: Option<Arc<Shared>>,
        at: Phase,
        // From the first wait on.
        #[pin]
        wait: Option<OwnedNotified>,
    }
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
    pub(crate) fn handed_on(self: Pin<&mut Self>) -> Self {
        let this = self.project();
        Self { shared: this.shared.take(), at: *this.at, wait: None }
    }

    /// Whether it has come.
    pub(crate) fn is_here(&self) -> bool {
        let has_come = |shared: &Arc<Shared>| shared.phase() >= self.at;
        self.at < Phase::Cut && self.shared.as_ref().is_some_and(has_come)
    }

    /// Whether it has come; if not, the task is woken when it does.
    pub(crate) fn poll_is_here(self: Pin<&mut Self>, cx: &mut Context<'_>) -> bool {
        let mut this = self.project();
        // Connections are cut by the connection wrapper itself.
        let Some(shared) = this.shared.as_ref().filter(|_| *this.at < Phase::Cut) else {
            return false;
        };
        if this.wait.is_none() {
            this.wait.set(Some(shared.wait(*this.at)));
        }
        // A `Notified` receives all notifications after its creation.
        let is_woken = this.wait.as_pin_mut().is_none_or(|wait| wait.poll(cx).is_ready());
        is_woken || shared.phase() >= *this.at
    }
}
