//! The latency of calls, by sampling.

use cinchona_plumbing::{Latency, clock::nanos};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// How long the calls of a method take.
#[derive(Debug)]
pub(super) struct Times {
    latency: Latency,
    slowest: Arc<Slowest>,
}

/// The most nanoseconds that the fastest calls of any method have taken: with more time left, no
/// call is hopeless.
#[derive(Debug, Default)]
pub(super) struct Slowest(AtomicU64);

/// A call whose time is recorded, and how many it represents. Boxed, as it is rare.
#[derive(Debug)]
pub(super) struct Sample(Box<(Arc<Times>, u32)>);

// === impl Slowest ===

impl Slowest {
    /// Whether a call with so much time left may be hopeless.
    pub(super) fn exceeds(&self, left: Duration) -> bool {
        nanos(left) < self.0.load(Ordering::Relaxed)
    }
}

// === impl Times ===

impl Times {
    pub(super) fn new(slowest: Arc<Slowest>) -> Self {
        Self { latency: Latency::new(0.01), slowest }
    }

    /// What the fastest hundredth of the calls takes, if it is known.
    pub(super) fn fastest(&self) -> Option<Duration> {
        self.latency.current()
    }
}

// === impl Sample ===

impl Sample {
    /// `None` if another call represents this one.
    pub(super) fn of(times: &Arc<Times>, weight: u32) -> Option<Self> {
        (weight > 0).then(|| Self(Box::new((times.clone(), weight))))
    }

    pub(super) fn record(self, took: Duration) {
        let (times, weight) = *self.0;
        let Times { latency, slowest } = &*times;
        latency.record_as(took, weight);
        if let Some(fastest) = latency.current().filter(|fastest| !slowest.exceeds(*fastest)) {
            slowest.0.fetch_max(nanos(fastest), Ordering::Relaxed);
        }
    }
}
