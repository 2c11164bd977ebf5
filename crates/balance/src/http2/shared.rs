//! What the calls of a connection share with it.

use crate::wire::{End, Line};
use cinchona_core::{BoxError, Rejected};
use http::uri::{Authority, Scheme};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::runtime::Handle;

/// What the calls of a connection share with it.
pub(super) struct Shared {
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
    pub(super) line: Arc<Line>,
    pub(super) in_flight: AtomicUsize,
    pub(super) runtime: Handle,
}

/// A call on its way, which counts.
pub(super) struct InFlight(Arc<Shared>);

/// The connection takes no more calls.
pub(super) fn lost(error: &h2::Error) -> Rejected {
    Rejected::lost(format!("the connection takes no more calls: {error}"))
}

// === impl InFlight ===

impl InFlight {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        shared.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(shared.clone())
    }

    /// Where the task of the connection runs.
    pub(super) fn runtime(&self) -> &Handle {
        &self.0.runtime
    }

    /// An error of the connection or of the stream, with the reason for which the connection has
    /// ended, where that is known.
    pub(super) fn explain(&self, error: h2::Error) -> BoxError {
        if !error.is_io() {
            return error.into();
        }
        let io = error.into_io().unwrap_or_else(|| std::io::ErrorKind::BrokenPipe.into());
        match self.0.line.end() {
            Some(End::Failed(why)) => std::io::Error::new(io.kind(), &*why).into(),
            _ => io.into(),
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
