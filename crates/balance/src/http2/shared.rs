//! What the calls of a connection share with it.

use crate::wire::{End, Line};
use cinchona_core::{BoxError, Rejected};
use http::uri::{Authority, Scheme};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{runtime::Handle, sync::Notify};

/// What the calls of a connection share with it.
pub(super) struct Shared {
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
    pub(super) line: Arc<Line>,
    pub(super) runtime: Handle,
    // Each of the two is written before the other is read, in one order for all threads: a call
    // that comes to wait sees that one has left, or the one that leaves sees that it waits.
    in_flight: AtomicUsize,
    /// Calls that wait, as the server allows no more at once, in their order.
    waiting: AtomicUsize,
    left: Notify,
}

/// A call on its way, which counts.
pub(super) struct InFlight(Arc<Shared>);

/// A call that waits, which counts as well.
struct Waiting<'a>(&'a Shared);

/// The connection takes no more calls.
pub(super) fn lost(why: &impl std::fmt::Display) -> Rejected {
    Rejected::lost(format!("the connection takes no more calls: {why}"))
}

// === impl Shared ===

impl Shared {
    pub(super) fn new(scheme: Scheme, authority: Authority, line: Arc<Line>) -> Self {
        let [in_flight, waiting] = [const { AtomicUsize::new(0) }; 2];
        let (runtime, left) = (Handle::current(), Notify::new());
        Self { scheme, authority, line, runtime, in_flight, waiting, left }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Counts a call, if the server allows `most` and none waits longer.
    pub(super) fn enter(self: &Arc<Self>, most: usize) -> Option<InFlight> {
        match self.waiting.load(Ordering::SeqCst) {
            0 => self.takes(most),
            _ => None,
        }
    }

    fn takes(self: &Arc<Self>, most: usize) -> Option<InFlight> {
        let more = |count: usize| (count < most).then_some(count + 1);
        let taken = self.in_flight.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more);
        taken.ok().map(|_| InFlight(self.clone()))
    }

    /// Waits for its turn. Meanwhile h2 knows nothing of the call: one that is given up there would
    /// be opened and reset, and servers end connections for that (CVE-2023-44487).
    ///
    /// # Errors
    /// When the connection takes no more calls: nothing of this one was sent.
    pub(super) async fn enters(
        self: &Arc<Self>,
        most: impl Fn() -> usize,
    ) -> Result<InFlight, Rejected> {
        let waiting = Waiting::new(self);
        loop {
            let mut left = std::pin::pin!(self.left.notified());
            // What changes from here on is not missed.
            left.as_mut().enable();
            if let Some(end) = self.line.end() {
                return Err(lost(&end));
            }
            if let Some(in_flight) = self.takes(most()) {
                drop(waiting);
                self.moves_up(most());
                return Ok(in_flight);
            }
            left.await;
        }
    }

    /// Lets the first that waits look whether it has its turn.
    pub(super) fn moves_up(&self, most: usize) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            match self.line.has_ended() {
                true => self.left.notify_waiters(),
                false if self.in_flight() < most => self.left.notify_one(),
                false => {}
            }
        }
    }

    /// The connection has ended: none waits any longer.
    pub(super) fn ends(&self, end: End) {
        self.line.ends(end);
        self.left.notify_waiters();
    }
}

// === impl Waiting ===

impl<'a> Waiting<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.waiting.fetch_add(1, Ordering::SeqCst);
        Self(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

// === impl InFlight ===

impl InFlight {
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
        let io = error.into_io().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into());
        match self.0.line.end() {
            Some(End::Closed) | None => io.into(),
            Some(end) => io::Error::new(io.kind(), end.to_string()).into(),
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.0.moves_up(usize::MAX);
    }
}
