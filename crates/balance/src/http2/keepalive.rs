//! Pings that show whether a silent server is there (gRFC A8).

use super::shared::Shared;
use cinchona_plumbing::clock::later;
use h2::{Ping, PingPong};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};

/// Pings a server from which nothing has come for an interval while calls await it.
pub(super) struct KeepAlive {
    pings: PingPong,
    interval: Duration,
    timeout: Duration,
    shared: Arc<Shared>,
    /// The count of data received, and when it last changed.
    reads: u64,
    heard: Instant,
    is_pinged: bool,
    sleep: Pin<Box<Sleep>>,
}

// === impl KeepAlive ===

impl KeepAlive {
    pub(super) fn new(
        pings: PingPong,
        (interval, timeout): (Duration, Duration),
        shared: Arc<Shared>,
    ) -> Self {
        let now = Instant::now();
        let sleep = Box::pin(sleep_until(later(now, interval)));
        Self { pings, interval, timeout, shared, reads: 0, heard: now, is_pinged: false, sleep }
    }

    /// Runs with each poll of the connection; completes with why the server is taken for gone.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        loop {
            let reads = self.shared.line.reads();
            if reads != self.reads {
                (self.reads, self.heard) = (reads, Instant::now());
            }
            if self.is_pinged && self.pings.poll_pong(cx).is_ready() {
                self.is_pinged = false;
            }
            if !self.is_pinged {
                if self.shared.in_flight() == 0 {
                    // The next call polls the connection.
                    return Poll::Pending;
                }
                let due = later(self.heard, self.interval);
                if self.sleep.deadline() != due {
                    self.sleep.as_mut().reset(due);
                }
            }
            ready!(self.sleep.as_mut().poll(cx));
            if self.is_pinged {
                let timeout = self.timeout;
                return Poll::Ready(format!("keepalive: no answer to a ping within {timeout:?}"));
            }
            if self.pings.send_ping(Ping::opaque()).is_err() {
                return Poll::Pending;
            }
            self.is_pinged = true;
            self.sleep.as_mut().reset(later(Instant::now(), self.timeout));
        }
    }
}
