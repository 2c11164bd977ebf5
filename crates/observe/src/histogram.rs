//! A histogram of fixed buckets: recording takes two atomic additions.

use crate::names::Instrument;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug)]
pub(crate) struct Histogram {
    bounds: &'static [u64],
    /// One for each bound, and one for what is above them all.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// What a histogram held when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// How many were at most as large as each bound, and how many there are.
    pub(crate) cumulative: Vec<u64>,
    pub(crate) sum: u64,
}

// === impl Histogram ===

impl Histogram {
    pub(crate) fn new(of: &Instrument) -> Self {
        let buckets = (0..=of.bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds: of.bounds, buckets, sum: AtomicU64::new(0) }
    }

    /// Adds `grains` to the first bucket that is not below it: bounds are inclusive.
    pub(crate) fn record(&self, grains: u64) {
        let at = self.bounds.partition_point(|bound| *bound < grains);
        self.buckets[at].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(grains, Ordering::Relaxed);
    }

    /// The count is that of the buckets, so the two agree while others record.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut count = 0;
        let cumulative = self.buckets.iter().map(|bucket| {
            count += bucket.load(Ordering::Relaxed);
            count
        });
        Snapshot { cumulative: cumulative.collect(), sum: self.sum.load(Ordering::Relaxed) }
    }
}

// === impl Snapshot ===

impl Snapshot {
    pub(crate) fn count(&self) -> u64 {
        self.cumulative.last().copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::CALL_RETRIES;
    use proptest::prelude::*;

    #[test]
    fn a_bound_belongs_to_the_bucket_that_it_ends() {
        let histogram = Histogram::new(&CALL_RETRIES);
        for value in [0, 1, 2, 5, 6, 1000] {
            histogram.record(value);
        }
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.cumulative, [2, 3, 3, 3, 4, 6]);
        assert_eq!((snapshot.count(), snapshot.sum), (6, 1014));
    }

    proptest! {
        #[test]
        fn every_value_is_in_all_buckets_from_its_own_on(value in 0..10_u64) {
            let histogram = Histogram::new(&CALL_RETRIES);
            histogram.record(value);
            let found = histogram.snapshot().cumulative;
            for (bound, count) in CALL_RETRIES.bounds.iter().zip(found) {
                prop_assert_eq!(count, u64::from(value <= *bound));
            }
        }
    }
}
