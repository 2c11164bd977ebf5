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
