//! The expected latency of an endpoint: peak EWMA (Finagle, linkerd).

mod slowest;

use crate::{
    clock,
    sync::{AtomicU64, AtomicUsize, Ordering},
};
use slowest::Slowest;
use std::time::Duration;
use tokio::time::Instant;

/// The load of one endpoint, without a lock: an overwritten update costs one sample.
#[derive(Debug)]
pub struct Load {
    began: Instant,
    in_flight: AtomicUsize,
    /// Nanoseconds since `began` of the last sample; 0 before the first.
    at: AtomicU64,
    /// The average as of then, in nanoseconds, as bits.
    average: AtomicU64,
    slowest: Slowest,
}

/// The decay of the average: a sample counts 1/e after this long.
const DECAY: Duration = Duration::from_secs(10);

/// The least cost of a failure, so that failing fast attracts no calls (linkerd's load biaser).
pub const FAILURE: Duration = Duration::from_secs(5);

/// The cost of an endpoint without samples, while it has a call: so it gets one.
const UNKNOWN: f64 = 1e15;

// === impl Load ===

impl Load {
    /// Of an endpoint without calls.
    #[inline]
    pub fn new(now: Instant) -> Self {
        Self {
            began: now,
            in_flight: AtomicUsize::new(0),
            at: AtomicU64::new(0),
            average: AtomicU64::new(0),
            slowest: Slowest::default(),
        }
    }

    /// A call begins.
    #[inline]
    pub fn begins(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// A call has ended.
    #[inline]
    pub fn ends(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// The calls that have not ended.
    #[inline]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// A call took this long: a peak counts immediately, faster calls lower the average slowly.
    #[inline]
    pub fn record(&self, took: Duration, now: Instant) {
        let sample = took.as_nanos() as f64;
        let (at, average) = self.read();
        let at_now = self.nanos(now);
        let average = if at == 0 || sample > average {
            sample
        } else {
            let kept = decayed(at_now.saturating_sub(at));
            average.mul_add(kept, sample * (1.0 - kept))
        };
        self.average.store(average.to_bits(), Ordering::Relaxed);
        self.at.store(at_now.max(1), Ordering::Relaxed);
    }

    /// A good answer took this long.
    #[inline]
    pub fn record_good(&self, took: Duration, now: Instant) {
        self.slowest.record(clock::nanos(took), self.nanos(now));
    }

    /// The slowest recent good answer, if any: a call of any method may take that long.
    #[inline]
    pub fn usual(&self) -> Option<Duration> {
        self.slowest.get().map(Duration::from_nanos)
    }

    /// The cost of one more call.
    #[inline]
    pub fn cost(&self, now: Instant) -> f64 {
        let calls = self.in_flight() as f64;
        let (at, average) = self.read();
        if at == 0 {
            return if calls > 0.0 { UNKNOWN * calls } else { 0.0 };
        }
        // The average decays, so an avoided endpoint is tried again in time.
        let since = self.nanos(now).saturating_sub(at);
        average * decayed(since) * (calls + 1.0)
    }

    /// Whether there was a sample.
    #[inline]
    pub fn is_known(&self) -> bool {
        self.read().0 != 0
    }

    /// The average as of the last sample.
    #[inline]
    pub fn average(&self) -> Duration {
        Duration::from_nanos(self.read().1 as u64)
    }

    #[inline]
    fn nanos(&self, now: Instant) -> u64 {
        clock::nanos(now.saturating_duration_since(self.began))
    }

    #[inline]
    fn read(&self) -> (u64, f64) {
        let at = self.at.load(Ordering::Relaxed);
        (at, f64::from_bits(self.average.load(Ordering::Relaxed)))
    }
}

fn decayed(nanos: u64) -> f64 {
    (-(nanos as f64) / DECAY.as_nanos() as f64).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn a_peak_counts_immediately_and_decays() {
        let now = Instant::now();
        let load = Load::new(now);
        load.record(MS, now + MS);
        load.record(1000 * MS, now + 2 * MS);
        assert!((load.cost(now + 2 * MS) - 1e9).abs() < 1e6);
        let later = now + 10_002 * MS;
        assert!((load.cost(later) - 1e9 / std::f64::consts::E).abs() < 1e6);
        load.record(MS, later);
        assert!(load.cost(later) < 0.4 * 1e9);
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_without_samples_gets_one_call() {
        let now = Instant::now();
        let (known, fresh) = (Load::new(now), Load::new(now));
        known.record(100 * MS, now + MS);
        assert!(fresh.cost(now + MS) < known.cost(now + MS));
        fresh.begins();
        assert!(fresh.cost(now + MS) > known.cost(now + MS));
        fresh.ends();
        assert_eq!(fresh.in_flight(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_in_flight_count() {
        let now = Instant::now();
        let load = Load::new(now);
        load.record(MS, now + MS);
        load.begins();
        load.begins();
        assert!((load.cost(now + MS) - 3e6).abs() < 1e4);
    }

    #[tokio::test(start_paused = true)]
    async fn after_ten_seconds_the_average_is_old_by_1_in_e_and_new_by_the_rest() {
        let now = Instant::now();
        let load = Load::new(now);
        assert!(!load.is_known());
        load.record(1000 * MS, now + MS);
        assert_eq!((load.is_known(), load.average()), (true, 1000 * MS));
        load.record(100 * MS, now + 10_001 * MS);
        let kept = 1.0 / std::f64::consts::E;
        let expected = 1000.0 * kept + 100.0 * (1.0 - kept);
        assert!((load.average().as_secs_f64() * 1e3 - expected).abs() < 0.01, "{expected}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_cost_without_samples_grows_with_each_call() {
        let now = Instant::now();
        let load = Load::new(now);
        load.begins();
        let of_one = load.cost(now);
        load.begins();
        assert!((load.cost(now) - 2.0 * of_one).abs() < of_one / 1e9);
    }

    #[test]
    fn the_slowest_good_answer_of_this_half_minute_and_the_one_before_counts() {
        let began = Instant::now();
        let load = Load::new(began);
        assert_eq!(load.usual(), None);
        load.record_good(30 * MS, began + 29_000 * MS);
        load.record_good(10 * MS, began + 30_000 * MS);
        load.record_good(20 * MS, began + 59_000 * MS);
        assert_eq!(load.usual(), Some(30 * MS));
        load.record_good(5 * MS, began + 60_000 * MS);
        assert_eq!(load.usual(), Some(20 * MS));
    }
}
