//! Latencies: a lock-free quantile that follows the traffic.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

/// A quantile of the latencies that are recorded, without a lock.
///
/// They are counted in buckets that are an eighth of an octave wide, so the quantile is at most
/// 12.5 % too high; older ones weigh half as much after every 5000 more.
#[derive(Debug)]
pub struct Latency {
    quantile: f64,
    buckets: Box<[AtomicU32]>,
    recorded: AtomicU64,
    /// How many values there are while the quantile is not known.
    first: AtomicU64,
    /// The quantile in microseconds; zero while there are too few values.
    current: AtomicU64,
}

const BUCKETS: usize = 40 * 8;
const HALF_LIFE: u64 = 5000;
/// How often the quantile is recomputed.
const REFRESH: u64 = 100;
/// A thread records so many calls, and then one of so many.
const FIRST: u64 = 1000;
const SAMPLE: u32 = 8;

// === impl Latency ===

impl Latency {
    /// Follows this quantile, in 0 to 1; a value outside is clamped, and NaN is 1, the slowest.
    pub fn new(quantile: f64) -> Self {
        let quantile = if quantile.is_nan() { 1.0 } else { quantile.clamp(0.0, 1.0) };
        let buckets = (0..BUCKETS).map(|_| AtomicU32::new(0)).collect();
        let [recorded, first, current] = [const { AtomicU64::new(0) }; 3];
        Self { quantile, buckets, recorded, first, current }
    }

    /// Counts one more.
    pub fn record(&self, latency: Duration) {
        self.record_as(latency, 1);
    }

    /// How many calls this thread's next one represents: itself, if it is among the first thousand;
    /// then one in eight represents all eight of them, and the others none (0), which need not be
    /// recorded. So threads seldom contend.
    pub fn weight() -> u32 {
        thread_local! {
            static CALLS: Cell<u64> = const { Cell::new(0) };
        }
        let calls = CALLS.try_with(|calls| calls.replace(calls.get() + 1)).unwrap_or(0);
        if calls < FIRST {
            return 1;
        }
        // By the golden ratio: so methods that alternate are not sampled alternately.
        let is_due = (calls as u32).wrapping_mul(0x9e37_79b9) <= u32::MAX / SAMPLE;
        if is_due { SAMPLE } else { 0 }
    }

    /// Counts one that represents so many.
    pub fn record_as(&self, latency: Duration, weight: u32) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(micros)].fetch_add(weight, Ordering::Relaxed);
        let before = self.recorded.fetch_add(weight.into(), Ordering::Relaxed);
        let passes = |every: u64| before / every != (before + u64::from(weight)) / every;
        if passes(HALF_LIFE) {
            for bucket in &self.buckets {
                let half = |count| Some(count / 2);
                _ = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, half);
            }
        }
        // It is first known of as many values, whatever they represent.
        let is_due = match self.current.load(Ordering::Relaxed) {
            0 => self.first.fetch_add(1, Ordering::Relaxed) + 1 >= REFRESH,
            _ => passes(REFRESH),
        };
        if is_due {
            self.current.store(self.work_out(), Ordering::Relaxed);
        }
    }

    /// The quantile, once at least 100 latencies are recorded.
    pub fn current(&self) -> Option<Duration> {
        let micros = self.current.load(Ordering::Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros))
    }

    /// The quantile since the last call of this, and how many values it covers; resets them.
    pub fn take(&self) -> Option<(Duration, u64)> {
        let take = |bucket: &AtomicU32| u64::from(bucket.swap(0, Ordering::Relaxed));
        let counts: Vec<u64> = self.buckets.iter().map(take).collect();
        self.current.store(0, Ordering::Relaxed);
        self.first.store(0, Ordering::Relaxed);
        let count = counts.iter().sum();
        (count > 0).then(|| (Duration::from_micros(self.quantile_of(&counts)), count))
    }

    fn work_out(&self) -> u64 {
        let counts: Vec<u64> =
            self.buckets.iter().map(|count| count.load(Ordering::Relaxed).into()).collect();
        self.quantile_of(&counts)
    }

    fn quantile_of(&self, counts: &[u64]) -> u64 {
        let wanted = (counts.iter().sum::<u64>() as f64 * self.quantile).ceil() as u64;
        // At least one, or the lowest quantile would be that of an empty bucket.
        let wanted = wanted.max(1);
        let mut seen = 0;
        let reached = |count: &u64| {
            seen += count;
            seen >= wanted
        };
        counts.iter().position(reached).map_or(0, upper_end)
    }
}

fn bucket(micros: u64) -> usize {
    let micros = micros.max(8);
    let octave = 63 - micros.leading_zeros();
    let eighth = (micros >> (octave - 3)) & 7;
    (((octave - 3) * 8) as usize + eighth as usize).min(BUCKETS - 1)
}

const fn upper_end(bucket: usize) -> u64 {
    let (octave, eighth) = (bucket / 8, bucket as u64 % 8);
    (8 + eighth + 1) << octave
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn taken_values_are_removed() {
        let latency = Latency::new(0.9);
        assert_eq!(latency.take(), None);
        (1..=100).for_each(|millis| latency.record(Duration::from_millis(millis)));
        let (quantile, count) = latency.take().unwrap();
        assert!((90.0..=101.3).contains(&(quantile.as_secs_f64() * 1e3)), "{quantile:?}");
        assert_eq!((count, latency.take(), latency.current()), (100, None, None));
    }

    #[test]
    fn the_quantile_is_known_after_a_hundred_and_follows() {
        let latency = Latency::new(0.98);
        let record = |n: u64, millis| {
            (0..n).for_each(|_| latency.record(Duration::from_millis(millis)));
        };
        record(99, 10);
        assert_eq!(latency.current(), None);
        record(1, 10);
        let current = latency.current().unwrap();
        assert!((10.0..11.3).contains(&(current.as_secs_f64() * 1e3)), "{current:?}");
        // One in fifty is slow: just what the quantile leaves out.
        for _ in 0..200 {
            record(99, 10);
            record(1, 200);
        }
        assert!(latency.current().unwrap() < Duration::from_millis(12));
        record(20_000, 40);
        assert!(latency.current().unwrap() > Duration::from_millis(39));
    }

    #[test]
    fn one_in_eight_represents_all_after_the_first_thousand_of_a_thread() {
        let latency = Latency::new(0.5);
        for n in 0..10_100 {
            match Latency::weight() {
                0 => assert!(n >= 1000),
                weight => latency.record_as(Duration::from_millis(10), weight),
            }
        }
        let (quantile, count) = latency.take().unwrap();
        assert!((10.0..11.3).contains(&(quantile.as_secs_f64() * 1e3)), "{quantile:?}");
        // All of them, halved twice on the way.
        assert!((3_500..=4_200).contains(&count), "{count}");
    }

    #[test]
    fn a_quantile_outside_its_range_is_the_end_that_is_nearer() {
        let of = |quantile| {
            let latency = Latency::new(quantile);
            (1..=100).for_each(|millis| latency.record(Duration::from_millis(millis)));
            latency.record(Duration::MAX);
            latency.take().unwrap().0
        };
        for least in [0.0, -1.0, f64::NEG_INFINITY, f64::MIN_POSITIVE] {
            assert!(of(least) < Duration::from_micros(1130), "{least}: {:?}", of(least));
        }
        for most in [1.0, 1e308, f64::INFINITY, f64::NAN] {
            assert_eq!(of(most), of(1.0), "{most}");
        }
    }

    proptest! {
        #[test]
        fn a_bucket_ends_at_most_an_eighth_above_what_it_holds(micros in 8u64..1 << 40) {
            let end = upper_end(bucket(micros));
            prop_assert!(micros < end && end as f64 <= micros as f64 * 1.1251 + 1.0);
        }
    }

    #[test]
    fn samples_represent_as_many_calls_as_there_are() {
        let weights: Vec<u32> = (0..9000).map(|_| Latency::weight()).collect();
        assert!(weights[..1000].iter().all(|weight| *weight == 1));
        assert!(weights[1000..].iter().all(|weight| [0, SAMPLE].contains(weight)));
        let all: u32 = weights.iter().sum();
        assert!(all.abs_diff(9000) <= 16, "{all}");
    }

    #[test]
    fn the_quantile_is_known_after_a_hundred_samples_whatever_they_represent() {
        for weight in [|_| 1, |_| SAMPLE, |n| if n % 3 == 0 { SAMPLE } else { 1 }] {
            let latency = Latency::new(0.01);
            let record = |n| latency.record_as(Duration::from_millis(10), weight(n));
            (0..99).for_each(record);
            assert_eq!(latency.current(), None);
            record(99);
            assert!(latency.current().is_some());
        }
    }

    #[test]
    fn a_known_quantile_follows_calls_not_samples() {
        let latency = Latency::new(0.01);
        (0..150).for_each(|_| latency.record(Duration::from_millis(50)));
        let slow = latency.current().unwrap();
        (0..REFRESH / u64::from(SAMPLE) + 1)
            .for_each(|_| latency.record_as(Duration::from_millis(5), SAMPLE));
        assert!(latency.current().unwrap() < slow / 5);
    }
}
