//! How long calls take, as some of them show.

use cinchona_plumbing::Latency;
use std::{sync::Arc, time::Duration};

/// A call whose time is recorded, and for how many it stands.
#[derive(Debug)]
pub(super) struct Sample {
    latency: Arc<Latency>,
    weight: u32,
}

// === impl Sample ===

impl Sample {
    /// Nothing where another call stands for this one.
    #[inline]
    pub(super) fn of(latency: &Arc<Latency>) -> Option<Self> {
        let weight = latency.weight();
        (weight > 0).then(|| Self { latency: latency.clone(), weight })
    }

    pub(super) fn record(self, took: Duration) {
        self.latency.record_as(took, self.weight);
    }
}
