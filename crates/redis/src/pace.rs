//! When the next attempt to connect may begin.

use cinchona_core::Rng;
use rand::RngExt;
use std::time::Duration;
use tokio::time::Instant;

/// When the next attempt to connect may begin.
pub(crate) struct Pace {
    next: Instant,
    pause: Duration,
}

/// The longest wait after a failed attempt before the next one, the first ones being shorter; and
/// the wait beside an attempt that hangs.
pub(crate) const SLOWEST: Duration = Duration::from_millis(250);
const FASTEST: Duration = Duration::from_millis(10);

// === impl Pace ===

impl Pace {
    /// The first attempt begins immediately.
    pub(crate) fn new() -> Self {
        Self { next: Instant::now(), pause: Duration::ZERO }
    }

    pub(crate) const fn next(&self) -> Instant {
        self.next
    }

    /// The next attempt begins now.
    pub(crate) fn step(&mut self, rng: &Rng) {
        self.pause = (self.pause * 2).clamp(FASTEST, SLOWEST);
        // Jitter: many clients that lose one server do not reconnect together.
        self.next = Instant::now() + self.pause.mul_f64(rng.draw().random_range(0.5..=1.0));
    }

    /// After a connection that has lasted the next attempt begins immediately.
    pub(crate) const fn rest(&mut self) {
        self.pause = Duration::ZERO;
    }
}
