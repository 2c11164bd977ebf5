//! When a call that is served ends.

use cinchona_plumbing::timer;
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep};

/// When a call ends; its timer is created at the first wait.
#[derive(Debug)]
pub(super) struct End {
    at: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

/// A tick before the transport's own timer, which would answer `CANCELLED`.
pub(super) const TICK: Duration = Duration::from_millis(1);

pub(super) const EXCEEDED: &str = "the deadline has passed";

// === impl End ===

impl End {
    pub(super) const fn at(at: Instant) -> Self {
        Self { at, timer: None }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.get_or_insert_with(|| Box::pin(timer(self.at))).as_mut().poll(cx)
    }

    pub(super) fn move_to(&mut self, at: Instant) {
        if at == self.at {
            return;
        }
        self.at = at;
        if let Some(timer) = &mut self.timer {
            timer.as_mut().reset(at);
        }
    }
}
