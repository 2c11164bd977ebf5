//! When a call ends at the latest, and with what.

use crate::phases::{Phase, Shared};
use pin_project_lite::pin_project;
use std::{future::Future, pin::Pin, sync::Arc, task::Context};
use tokio::sync::futures::OwnedNotified;
use tonic::Status;

pin_project! {
    /// When a call ends at the latest.
    pub(crate) struct End {
        shared: Arc<Shared>,
        at: Phase,
        // From the first time that there is something to wait for.
        #[pin]
        told: Option<OwnedNotified>,
    }
}

/// What calls end with.
pub(crate) fn unavailable() -> Status {
    Status::unavailable("the server is shutting down")
}

// === impl End ===

impl End {
    pub(crate) fn new(shared: Arc<Shared>, at: Phase) -> Self {
        Self { shared, at, told: None }
    }

    /// The same end, for what comes next of the call.
    pub(crate) fn renewed(&self) -> Self {
        Self::new(self.shared.clone(), self.at)
    }

    /// Whether it has come.
    pub(crate) fn is_here(&self) -> bool {
        self.at < Phase::Cut && self.shared.phase() >= self.at
    }

    /// Whether it has come; if not, the task is woken when it does.
    pub(crate) fn poll_is_here(self: Pin<&mut Self>, cx: &mut Context<'_>) -> bool {
        let mut this = self.project();
        // Connections are cut without anybody else's help.
        if *this.at == Phase::Cut {
            return false;
        }
        if this.told.is_none() {
            this.told.set(Some(this.shared.wait(*this.at)));
        }
        // It is told of all that comes after it was made.
        let is_told = this.told.as_pin_mut().is_none_or(|told| told.poll(cx).is_ready());
        is_told || this.shared.phase() >= *this.at
    }
}
