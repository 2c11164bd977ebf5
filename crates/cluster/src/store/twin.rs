//! Two live nodes with one id: the later gives way.

use std::{net::SocketAddr, time::Duration};
use tokio::time::Instant;

/// Another life of this node's id, not yet known to be alive.
#[derive(Debug)]
pub(crate) struct Namesake {
    pub(super) generation: u64,
    pub(super) address: Option<SocketAddr>,
    pub(super) is_earlier: bool,
    heartbeat: u64,
    met: Instant,
    /// When its heartbeat last rose, if ever.
    risen: Option<Instant>,
}

/// Echoes of a life that has ended circulate for fewer heartbeats than this.
const ECHO: u32 = 10;
/// It may be silent for this many heartbeats and still be alive.
const SILENT: u32 = 15;
/// Nodes whose heartbeats differ by this many are ordered by them: what is heard of the other is a
/// few heartbeats old.
const CLEAR: u64 = 25;

// === impl Namesake ===

impl Namesake {
    pub(super) const fn new(generation: u64, heartbeat: u64, now: Instant) -> Self {
        let (address, is_earlier, risen) = (None, false, None);
        Self { generation, address, is_earlier, heartbeat, met: now, risen }
    }

    /// It was named in gossip; `own` are this node's generation and heartbeat.
    pub(super) const fn sight(&mut self, heartbeat: u64, own: (u64, u64), now: Instant) {
        if heartbeat > self.heartbeat {
            self.heartbeat = heartbeat;
            self.risen = Some(now);
            self.is_earlier = if heartbeat.abs_diff(own.1) >= CLEAR {
                heartbeat > own.1
            } else {
                self.generation < own.0
            };
        }
    }

    /// Whether it was named lately, be it only by an echo.
    pub(super) fn is_heard(&self, beat: Duration, now: Instant) -> bool {
        let last = self.risen.unwrap_or(self.met);
        now.saturating_duration_since(last) < beat.saturating_mul(SILENT)
    }

    /// Whether it is alive: its heartbeat rises for longer than an echo's does.
    pub(super) fn lives(&self, beat: Duration, now: Instant) -> bool {
        let heard_for = self.risen.map(|risen| risen.saturating_duration_since(self.met));
        let is_no_echo = heard_for.is_some_and(|heard| heard >= beat.saturating_mul(ECHO));
        is_no_echo && self.is_heard(beat, now)
    }

    /// Whether it was silent for so long that it is gone.
    pub(super) fn is_gone(&self, beat: Duration, now: Instant) -> bool {
        !self.is_heard(beat.saturating_mul(2), now)
    }
}
