//! The measurements behind the adaptive limit.

use super::{
    adaptive::Adaptive,
    gradient::{Finder, Group, Seen},
};
use crate::clock::{FOR_EVER, nanos};
use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// The calls of the current window, and the limit found in those before.
pub(crate) struct Measured {
    began: Instant,
    /// The earliest end of the window, in nanoseconds since `began`.
    ends: AtomicU64,
    /// Calls that began with fewer than this in flight are counted separately.
    split: AtomicU32,
    few: Tally,
    many: Tally,
    /// Calls that were abandoned before they were answered.
    lost: AtomicU32,
    /// Whether the limit was reached.
    met: AtomicBool,
    found: Mutex<(Finder, Instant)>,
    settings: Adaptive,
}

/// A count of calls (from bit [`CALLS`] on), the sum of the numbers in flight at their beginnings
/// (from bit [`AMONG`] on), and the sum of their latencies, both as logarithms, in sixteenths of an
/// octave. So a call costs one addition, and one that takes an hour does not outweigh the rest.
#[derive(Default)]
struct Tally(AtomicU64);

/// About a microsecond: the unit of a duration in nanoseconds, of which at least one is counted.
const MICROS: u32 = 10;
const CALLS: u32 = 49;
const AMONG: u32 = 25;
/// A window ends at this many calls in any case: more do not fit.
const MOST: u64 = 1 << 14;
/// The longest duration of a window with too few calls, in windows.
const LONGEST: u64 = 10;

// === impl Measured ===

impl Measured {
    pub(crate) fn new(settings: Adaptive, now: Instant) -> Self {
        Self {
            began: now,
            ends: AtomicU64::new(nanos(settings.window)),
            split: AtomicU32::new(16),
            few: Tally::default(),
            many: Tally::default(),
            lost: AtomicU32::new(0),
            met: AtomicBool::new(false),
            found: Mutex::new((Finder::new(settings), now)),
            settings,
        }
    }

    /// Records a call that has ended: its latency, if it was answered, the number in flight when it
    /// began, and when it ended. Returns the new limit at the end of a window.
    pub(crate) fn record(
        &self,
        took: Option<Duration>,
        among: u32,
        in_progress: u32,
        now: Instant,
    ) -> Option<u32> {
        let tally = if among < self.split.load(Ordering::Relaxed) { &self.few } else { &self.many };
        let calls = match took {
            Some(took) => tally.add(took, among),
            None => u64::from(self.lost.fetch_add(1, Ordering::Relaxed)),
        };
        let (at, ends) = (self.at(now), self.ends.load(Ordering::Relaxed));
        if calls < MOST && (at < ends || (at < self.latest(ends) && self.has_few())) {
            return None;
        }
        self.end(in_progress, now)
    }

    fn has_few(&self) -> bool {
        let lost = u64::from(self.lost.load(Ordering::Relaxed));
        self.few.calls() + self.many.calls() + lost < self.settings.samples.into()
    }

    /// Records that the limit was reached; returns the new limit if no call has ended for too long.
    pub(crate) fn is_met(&self, now: Instant) -> Option<u32> {
        if !self.met.load(Ordering::Relaxed) {
            self.met.store(true, Ordering::Relaxed);
        }
        // Any call that ends after that ends the window.
        let stalled = self.latest(self.ends.load(Ordering::Relaxed)).saturating_add(self.window());
        if self.at(now) < stalled {
            return None;
        }
        let mut found = self.found.try_lock().ok()?;
        self.ends.store(self.at(now).saturating_add(self.window()), Ordering::Relaxed);
        found.1 = now;
        Some(found.0.stalled())
    }

    fn end(&self, in_progress: u32, now: Instant) -> Option<u32> {
        let mut found = self.found.try_lock().ok()?;
        let (finder, since) = &mut *found;
        let took = now.saturating_duration_since(*since);
        let (few, many) = (self.few.take(), self.many.take());
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if few.calls + many.calls == 0 && lost == 0 {
            return None; // Another has just ended it.
        }
        let met = self.met.swap(false, Ordering::Relaxed);
        let seen = Seen { few, many, lost, took, in_progress, met };
        let limit = finder.update(&seen);
        // The new limit affects the calls that begin after that.
        let window = seen.nanos().clamp(self.window(), LONGEST * self.window());
        self.ends.store(self.at(now).saturating_add(window), Ordering::Relaxed);
        // Between the calls that have ended and those that will.
        let split = (seen.among() * f64::from(in_progress.max(1))).sqrt();
        self.split.store(split as u32 + 1, Ordering::Relaxed);
        *since = now;
        Some(limit)
    }

    fn at(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.began))
    }

    fn window(&self) -> u64 {
        nanos(self.settings.window)
    }

    fn latest(&self, ends: u64) -> u64 {
        ends.saturating_add((LONGEST - 1) * self.window())
    }
}

// === impl Tally ===

impl Tally {
    /// Counts a call; returns the count.
    fn add(&self, took: Duration, among: u32) -> u64 {
        let took = nanos(took.min(FOR_EVER)) >> MICROS;
        let call = 1 << CALLS | sixteenths(among.into()) << AMONG | sixteenths(took);
        (self.0.fetch_add(call, Ordering::Relaxed) + call) >> CALLS
    }

    fn calls(&self) -> u64 {
        self.0.load(Ordering::Relaxed) >> CALLS
    }

    fn take(&self) -> Group {
        let taken = self.0.swap(0, Ordering::Relaxed);
        let mean = |sum: u64, calls: u64| sum as f64 / 16.0 / calls.max(1) as f64;
        let calls = taken >> CALLS;
        let among = taken >> AMONG & ((1 << (CALLS - AMONG)) - 1);
        let took = taken & ((1 << AMONG) - 1);
        Group { calls, latency: mean(took, calls), among: mean(among, calls) }
    }
}

/// The binary logarithm, in sixteenths; that of 0 is 0.
const fn sixteenths(value: u64) -> u64 {
    let value = if value == 0 { 16 } else { value << 4 };
    let octave = value.ilog2() as u64 - 4;
    octave * 16 + (value >> octave & 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    /// log2 of the latency of most calls here, in units of 1024 ns.
    const USUAL: u64 = 10;

    /// What takes 2^`octave` units.
    fn taking(octave: u64) -> Duration {
        Duration::from_nanos(1024 << octave)
    }

    /// Windows of 100 ms and at least 30 calls, from now on.
    fn measured() -> (Measured, Instant) {
        let now = Instant::now();
        let settings = Adaptive { initial: 100, ..Adaptive::default() };
        (Measured::new(settings, now), now)
    }

    /// Calls that end at one time; the limit that was found at one of them, if any.
    fn record(measured: &Measured, calls: u32, now: Instant) -> Option<u32> {
        let call = || measured.record(Some(taking(USUAL)), 8, 8, now);
        (0..calls).fold(None, |found, _| call().or(found))
    }

    #[test]
    fn the_logarithm_is_in_sixteenths_of_an_octave_with_straight_lines_between_octaves() {
        let known = [(0, 0), (1, 0), (2, 16), (3, 24), (4, 32), (5, 36), (6, 40), (1024, 160)];
        for (value, expected) in known {
            assert_eq!(sixteenths(value), expected, "{value}");
        }
        for value in 1..100_000u64 {
            // A straight line is at most 0.0861 below the curve.
            let below = (value as f64).log2() - sixteenths(value) as f64 / 16.0;
            assert!((0.0..0.0862 + 1.0 / 16.0).contains(&below), "{value}: {below}");
            assert!(sixteenths(value) <= sixteenths(value + 1));
        }
    }

    #[test]
    fn a_tally_has_the_number_of_its_calls_and_the_means_of_their_logarithms() {
        let tally = Tally::default();
        assert_eq!(tally.add(taking(10), 4), 1);
        assert_eq!((tally.add(taking(13), 32), tally.calls()), (2, 2));
        let Group { calls, latency, among } = tally.take();
        assert_eq!((calls, latency, among), (2, 11.5, 3.5));
        let Group { calls, latency, among } = tally.take();
        assert_eq!((calls, latency, among), (0, 0.0, 0.0), "it was emptied");
    }

    #[test]
    fn a_tally_has_room_for_the_longest_calls_of_a_window_among_the_most_others() {
        let tally = Tally::default();
        (0..MOST).for_each(|_| _ = tally.add(Duration::MAX, u32::MAX));
        let Group { calls, latency, among } = tally.take();
        let longest = (FOR_EVER.as_nanos() as f64 / 1024.0).log2();
        assert_eq!(calls, MOST);
        assert!(
            (longest - latency).abs() < 0.15 && (32.0 - among).abs() < 0.15,
            "{latency}, {among}"
        );
    }

    #[test]
    fn a_window_ends_with_the_first_call_after_its_time_if_it_has_enough_of_them() {
        let (measured, began) = measured();
        assert_eq!(record(&measured, 29, began + 50 * MS), None);
        assert_eq!(record(&measured, 1, began + 99 * MS), None);
        assert_eq!(record(&measured, 1, began + 100 * MS), Some(125));
        // The next one begins there.
        assert_eq!(record(&measured, 60, began + 199 * MS), None);
        assert_eq!(record(&measured, 1, began + 200 * MS), Some(156));
    }

    #[test]
    fn a_window_with_too_few_calls_waits_for_more_for_ten_times_as_long() {
        let (measured, began) = measured();
        assert_eq!(record(&measured, 29, began + 100 * MS), None);
        assert_eq!(record(&measured, 1, began + 101 * MS), Some(125), "it has 30 now");
        let (measured, began) = self::measured();
        assert_eq!(record(&measured, 2, began + 999 * MS), None);
        assert_eq!(record(&measured, 1, began + 1000 * MS), Some(125));
    }

    #[test]
    fn calls_of_both_halves_and_abandoned_ones_count_among_those_of_a_window() {
        let (measured, began) = measured();
        let at = began + 100 * MS;
        let record = |took, among| measured.record(took, among, 8, at);
        for _ in 0..13 {
            assert_eq!(record(Some(taking(USUAL)), 8), None);
            assert_eq!(record(Some(taking(USUAL)), 16), None);
        }
        assert_eq!(record(Some(taking(USUAL)), 15), None);
        let counts = (measured.few.calls(), measured.many.calls());
        assert_eq!(counts, (14, 13), "those with fewer than 16 in flight are few at first");
        (0..2).for_each(|_| assert_eq!(record(None, 8), None));
        assert_eq!(record(Some(taking(USUAL)), 8), Some(125), "two are no sign");
        assert_eq!((measured.few.calls(), measured.many.calls()), (0, 0), "each window anew");
        assert_eq!(measured.lost.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_window_ends_at_the_most_calls_that_fit_whatever_its_time() {
        for among in [8, 16] {
            let (measured, began) = measured();
            let record = || measured.record(Some(taking(USUAL)), among, 8, began + MS);
            (1..MOST).for_each(|_| assert_eq!(record(), None));
            assert_eq!(record(), Some(125));
        }
        let (measured, began) = measured();
        let lost = || measured.record(None, 8, 8, began + MS);
        (0..MOST).for_each(|_| assert_eq!(lost(), None));
        assert_eq!(lost(), Some(4), "half of the 8 in flight");
    }

    #[test]
    fn a_window_is_as_long_as_its_calls_and_at_most_ten_times_the_shortest() {
        // 2^18 units are 268 ms; what is longer than a second is not waited for.
        for (octave, length) in [(10, 100), (18, 268), (22, 1000), (40, 1000)] {
            let (measured, began) = measured();
            let at = began + 100 * MS;
            (0..29).for_each(|_| _ = measured.record(Some(taking(octave)), 8, 8, at));
            assert!(measured.record(Some(taking(octave)), 8, 8, at).is_some());
            assert_eq!(record(&measured, 40, at + (length - 1) * MS), None, "{octave}");
            assert!(record(&measured, 1, at + (length + 1) * MS).is_some(), "{octave}");
        }
    }

    #[test]
    fn the_next_window_is_split_between_the_numbers_in_flight_of_this_one_and_of_its_end() {
        // Calls that began among 16; √(16 · 64) is 32.
        for (in_progress, split) in [(64, 33), (16, 17), (0, 5)] {
            let (measured, began) = measured();
            let record = || measured.record(Some(taking(USUAL)), 16, in_progress, began + 100 * MS);
            assert!((0..30).fold(None, |found, _| record().or(found)).is_some());
            assert_eq!(measured.split.load(Ordering::Relaxed), split, "{in_progress}");
        }
    }

    #[test]
    fn a_limit_is_reached_in_the_windows_in_which_a_call_found_it_so() {
        let (measured, began) = measured();
        assert_eq!(measured.is_met(began), None);
        assert_eq!(record(&measured, 30, began + 100 * MS), Some(110), "√100 more");
        assert_eq!(record(&measured, 30, began + 200 * MS), Some(137), "a quarter more");
    }

    #[test]
    fn a_limit_at_which_no_call_ends_for_a_second_after_the_window_is_doubled() {
        let (measured, began) = measured();
        assert_eq!(measured.is_met(began + 1099 * MS), None);
        assert_eq!(measured.is_met(began + 1100 * MS), Some(200));
        // And again after as long.
        assert_eq!(measured.is_met(began + 2199 * MS), None);
        assert_eq!(measured.is_met(began + 2200 * MS), Some(400));
    }

    #[test]
    fn a_window_that_another_call_has_just_ended_has_no_result() {
        let (measured, began) = measured();
        assert_eq!(measured.end(8, began + 100 * MS), None);
        measured.lost.store(1, Ordering::Relaxed);
        assert_eq!(measured.end(8, began + 100 * MS), Some(4), "all were abandoned");
        _ = measured.few.add(taking(USUAL), 8);
        assert_eq!(measured.end(8, began + 200 * MS), Some(5));
        _ = measured.many.add(taking(USUAL), 8);
        assert_eq!(measured.end(8, began + 300 * MS), Some(6));
    }
}
