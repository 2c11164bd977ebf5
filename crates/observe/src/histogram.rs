//! A histogram of fixed buckets, in the shard of one thread: recording takes two additions.

use crate::shard::{Count, Writer};

/// `N` is the number of buckets: one for each bound, and one for what is above them all.
#[derive(Debug)]
pub(crate) struct Histogram<const N: usize> {
    buckets: [Count; N],
    sum: Count,
}

/// The sum of histograms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// How many were in each bucket.
    pub(crate) buckets: Vec<u64>,
    pub(crate) sum: u64,
}

// === impl Histogram ===

impl<const N: usize> Histogram<N> {
    /// Adds `grains` to the first bucket of `of` that is not below it: bounds are inclusive.
    #[inline]
    pub(crate) fn record(&self, of: &[u64], grains: u64, writer: Writer) {
        debug_assert_eq!(of.len() + 1, N, "a bucket for each bound, and one more");
        let is_below = |bound: &u64| *bound < grains;
        let at = if N > 16 {
            of.partition_point(is_below)
        } else {
            // Most messages are small, and most calls take few retries.
            of.iter().take_while(|bound| is_below(bound)).count()
        };
        if let Some(bucket) = self.buckets.get(at) {
            bucket.add(1, writer);
        }
        self.sum.add(grains, writer);
    }
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| Count::default()), sum: Count::default() }
    }
}

// === impl Snapshot ===

impl Snapshot {
    /// Adds the values of another thread.
    pub(crate) fn add<const N: usize>(&mut self, histogram: &Histogram<N>) {
        self.buckets.resize(N, 0);
        for (sum, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *sum += bucket.get();
        }
        self.sum = self.sum.wrapping_add(histogram.sum.get());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{names::FEW, shard::Sharded};
    use proptest::prelude::*;

    fn recorded(values: &[u64]) -> Snapshot {
        let sharded = Sharded::<Histogram<6>>::default();
        let (histogram, writer) = sharded.own();
        values.iter().for_each(|value| histogram.record(FEW, *value, writer));
        let mut snapshot = Snapshot::default();
        snapshot.add(histogram);
        snapshot
    }

    #[test]
    fn a_bound_belongs_to_the_bucket_that_it_ends() {
        let snapshot = recorded(&[0, 1, 2, 5, 6, 1000]);
        assert_eq!((&*snapshot.buckets, snapshot.sum), (&[2, 1, 0, 0, 1, 2][..], 1014));
    }

    proptest! {
        #[test]
        fn every_value_is_in_the_first_bucket_whose_bound_it_does_not_exceed(value in 0..10_u64) {
            let found = recorded(&[value]).buckets;
            let first = FEW.iter().position(|bound| value <= *bound).unwrap_or(FEW.len());
            let expected = (0..found.len()).map(|at| u64::from(at == first));
            prop_assert_eq!(found.clone(), expected.collect::<Vec<_>>());
        }
    }
}
