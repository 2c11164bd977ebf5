//! A histogram of fixed buckets, in the shard of one thread: recording takes two additions.

use crate::shard::{Count, Writer};

/// The bounds of buckets, and an index by which a bucket is found in a few steps.
#[derive(Debug)]
pub(crate) struct Bounds {
    bounds: &'static [u64],
    /// For each number of significant bits, the first bucket that a value of so many can be in.
    first: [u8; u64::BITS as usize + 1],
}

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

// === impl Bounds ===

impl Bounds {
    /// Of buckets with these bounds, which ascend.
    pub(crate) const fn of(bounds: &'static [u64]) -> Self {
        let mut first = [0; u64::BITS as usize + 1];
        let (mut bits, mut at) = (0, 0);
        while bits < first.len() {
            let least = if bits == 0 { 0 } else { 1 << (bits - 1) };
            while at < bounds.len() && bounds[at] < least {
                at += 1;
            }
            first[bits] = at as u8;
            bits += 1;
        }
        Self { bounds, first }
    }

    /// The first bucket whose bound is not below `grains`: bounds are inclusive.
    #[inline]
    fn find(&self, grains: u64) -> usize {
        let mut at = usize::from(self.first[(u64::BITS - grains.leading_zeros()) as usize]);
        while self.bounds.get(at).is_some_and(|bound| *bound < grains) {
            at += 1;
        }
        at
    }
}

// === impl Histogram ===

impl<const N: usize> Histogram<N> {
    /// Adds `grains` to their bucket.
    #[inline]
    pub(crate) fn record(&self, of: &Bounds, grains: u64, writer: Writer) {
        debug_assert_eq!(of.bounds.len() + 1, N, "a bucket for each bound, and one more");
        if let Some(bucket) = self.buckets.get(of.find(grains)) {
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
    use crate::{
        names::{FEW, LATENCY, SIZE},
        series,
        shard::Sharded,
    };
    use proptest::prelude::*;

    fn recorded(values: &[u64]) -> Snapshot {
        let sharded = Sharded::<Histogram<6>>::default();
        let (histogram, writer) = sharded.own();
        values.iter().for_each(|value| histogram.record(&series::FEW, *value, writer));
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

        #[test]
        fn the_index_finds_what_a_search_finds(bits in 0..=64_u32, any in any::<u64>()) {
            let near = |bound: u64| [bound.saturating_sub(1), bound, bound + 1];
            let near = [LATENCY, SIZE].concat().into_iter().flat_map(near);
            let any = any.checked_shr(64 - bits).unwrap_or(0);
            for value in near.chain([any, u64::MAX]) {
                for bounds in [LATENCY, SIZE, FEW] {
                    let searched = bounds.partition_point(|bound| *bound < value);
                    prop_assert_eq!(Bounds::of(bounds).find(value), searched, "{}", value);
                }
            }
        }
    }
}
