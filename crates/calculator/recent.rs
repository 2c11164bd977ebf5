//! A summary of the latest calls: their number, their latencies, and how many failed.

use hdrhistogram::Histogram;
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// The calls of the last 30 s.
#[derive(Debug)]
pub(crate) struct Recent {
    began: Instant,
    slices: Mutex<VecDeque<Slice>>,
}

/// A summary of the calls of the last 10 s; the rates are those of the last second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Summary {
    pub(crate) calls: u64,
    pub(crate) failed: u64,
    /// The number of calls with 1, 2, 3 and more attempts.
    pub(crate) attempts: [u64; 4],
    pub(crate) per_second: f64,
    /// In milliseconds; no numbers where there were no calls.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// The calls that ended within [`SLICE`].
#[derive(Debug)]
struct Slice {
    number: u64,
    /// In microseconds.
    took: Histogram<u64>,
    failed: u64,
    attempts: [u64; 4],
}

const SLICE: Duration = Duration::from_millis(500);
/// How many are kept, and how many of them a [`Summary`] is of.
const KEPT: u64 = 60;
const SUMMED: u64 = 20;
/// How many make a second.
const SECOND: u64 = 2;

/// Up to how long a call takes that is in a row of the heat map, and what the row is called.
const ROWS: [(u64, &str); 7] = [
    (1_000, "1 ms"),
    (3_000, "3 ms"),
    (10_000, "10 ms"),
    (30_000, "30 ms"),
    (100_000, "100 ms"),
    (1_000_000, "1 s"),
    (u64::MAX, "more"),
];

/// Nothing that holds a lock here can panic, or waits.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Recent ===

impl Recent {
    pub(crate) fn new(now: Instant) -> Self {
        Self { began: now, slices: Mutex::default() }
    }

    /// Counts a call that has ended.
    pub(crate) fn record(&self, now: Instant, took: Duration, failed: bool, attempts: usize) {
        let number = self.number(now);
        let mut slices = lock(&self.slices);
        if slices.back().is_none_or(|last| last.number < number) {
            while slices.front().is_some_and(|first| first.number + KEPT <= number) {
                slices.pop_front();
            }
            let Ok(took) = Histogram::new(2) else { return };
            slices.push_back(Slice { number, took, failed: 0, attempts: [0; 4] });
        }
        let Some(slice) = slices.back_mut() else { return };
        // It grows with the value; one that it cannot grow to is left out.
        _ = slice.took.record(took.as_micros() as u64);
        slice.failed += u64::from(failed);
        slice.attempts[attempts.clamp(1, 4) - 1] += 1;
    }

    pub(crate) fn summary(&self, now: Instant) -> Summary {
        let current = self.number(now);
        let slices = lock(&self.slices);
        let mut summary = Summary::default();
        let mut took: Option<Histogram<u64>> = None;
        for slice in slices.iter().filter(|slice| slice.number + SUMMED > current) {
            let calls = slice.took.len();
            summary.calls += calls;
            summary.failed += slice.failed;
            summary.attempts = std::array::from_fn(|n| summary.attempts[n] + slice.attempts[n]);
            // The current slice is not full yet.
            if (current.saturating_sub(SECOND)..current).contains(&slice.number) {
                summary.per_second += calls as f64;
            }
            match &mut took {
                // A histogram that cannot grow has fewer values, and no wrong ones.
                Some(all) => drop(all.add(&slice.took)),
                None => took = Some(slice.took.clone()),
            }
        }
        let millis = |quantile| match &took {
            Some(took) => took.value_at_quantile(quantile) as f64 / 1e3,
            None => f64::NAN,
        };
        (summary.p50, summary.p99) = (millis(0.5), millis(0.99));
        summary
    }

    /// The latencies of the calls, by half seconds of the last 30 s.
    pub(crate) fn heat(&self, now: Instant) -> Vec<(String, Vec<f64>)> {
        let current = self.number(now);
        let slices = lock(&self.slices);
        let mut rows = ROWS.map(|(_, label)| (label.to_owned(), vec![0.0; KEPT as usize]));
        for slice in slices.iter().filter(|slice| slice.number + KEPT > current) {
            // A reader may see an older time than the writers.
            let at = (slice.number + KEPT - 1 - current).min(KEPT - 1) as usize;
            for value in slice.took.iter_recorded() {
                let micros = value.value_iterated_to();
                let row = ROWS.iter().position(|(most, _)| micros <= *most).unwrap_or(0);
                rows[row].1[at] += value.count_since_last_iteration() as f64;
            }
        }
        rows.into()
    }

    fn number(&self, now: Instant) -> u64 {
        (now.saturating_duration_since(self.began).as_millis() / SLICE.as_millis()) as u64
    }
}

// === impl Summary ===

impl Summary {
    /// The share that failed, in percent.
    pub(crate) fn failures(&self) -> f64 {
        100.0 * self.failed as f64 / self.calls.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn a_summary_is_of_ten_seconds_and_its_rate_of_the_last_one() {
        let recent = Recent::new(Instant::now());
        for n in 0..100 {
            recent.record(Instant::now(), (n + 1) * MS, n % 10 == 0, 1 + n as usize / 50);
            advance(10 * MS).await;
        }
        let summary = recent.summary(Instant::now());
        assert_eq!((summary.calls, summary.failed, summary.per_second), (100, 10, 100.0));
        assert_eq!((summary.failures(), summary.attempts), (10.0, [50, 50, 0, 0]));
        assert!((50.0..51.0).contains(&summary.p50) && (99.0..100.0).contains(&summary.p99));
        advance(3000 * MS).await;
        let summary = recent.summary(Instant::now());
        assert_eq!((summary.calls, summary.per_second), (100, 0.0));
        advance(8000 * MS).await;
        let empty = recent.summary(Instant::now());
        assert!(empty.calls == 0 && empty.failures() == 0.0 && empty.p99.is_nan());
    }

    #[tokio::test(start_paused = true)]
    async fn the_heat_has_a_row_for_each_latency_and_the_latest_column_last() {
        let recent = Recent::new(Instant::now());
        recent.record(Instant::now(), MS / 2, false, 1);
        advance(1000 * MS).await;
        (0..3).for_each(|_| recent.record(Instant::now(), 5000 * MS, true, 4));
        let heat = recent.heat(Instant::now());
        assert_eq!(heat.len(), ROWS.len());
        assert_eq!((heat[0].1[57], heat[6].1[59]), (1.0, 3.0));
        let all: f64 = heat.iter().flat_map(|(_, cells)| cells).sum();
        assert_eq!(all, 4.0);
        advance(60_000 * MS).await;
        assert!(
            recent.heat(Instant::now()).iter().all(|(_, cells)| cells.iter().all(|n| *n == 0.0))
        );
    }
}
