//! The latency of calls, by sampling.

use cinchona_plumbing::Latency;
use std::{sync::Arc, time::Duration};

/// A call whose time is recorded, and how many it represents.
#[derive(Debug)]
pub(super) struct Sample {
    latency: Arc<Latency>,
    weight: u32,
}

// === impl Sample ===

impl Sample {
    /// `None` if another call represents this one.
    pub(super) fn of(latency: &Arc<Latency>, weight: u32) -> Option<Self> {
        (weight > 0).then(|| Self { latency: latency.clone(), weight })
    }

    pub(super) fn record(self, took: Duration) {
        self.latency.record_as(took, self.weight);
    }
}
