//! A limit that finds itself: by the gradient of the latency against its baseline.

use cinchona_core::Invalid;
use std::time::Duration;

/// A limit on the calls in progress that follows what the service can do.
///
/// # Rule
///
/// At the end of each window, `limit · gradient + √limit`, smoothed, becomes the new limit, where
/// `gradient = tolerance · baseline / p90`, 0.5 to 1 (Envoy's adaptive concurrency filter;
/// Netflix's Gradient2). So the limit grows while the latency is near its baseline, and shrinks
/// as soon as calls begin to wait for each other inside the service.
///
/// * It does not grow while less than half of it is used.
/// * It does not shrink while the throughput grows: then more calls do mean more work done.
/// * The baseline is the p90 of windows in which the limit was not reached. While it is reached
///   without end, after every 50 windows the limit is halved for a moment, until that makes calls
///   no faster, to measure the baseline again: so neither is a service that has become slower for
///   good starved, nor does overload pass for normal.
///
/// Every value of a field is valid that [`checked`](Self::checked) lets pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adaptive {
    /// The limit to begin with. Default 20.
    pub initial: u32,
    /// It is at least this, 1 or more. Default 4.
    pub min: u32,
    /// And at most this. Default 1000.
    pub max: u32,
    /// How many times the baseline the p90 may be, 1 to 10. Default 1.5.
    pub tolerance: f64,
    /// The weight of a new limit against the one before, above 0 to 1. Default 0.3.
    pub smoothing: f64,
    /// A window takes at least this long, 10 ms to 1 min. Default 100 ms.
    pub window: Duration,
    /// And has at least so many calls, unless it takes ten times as long. Default 30.
    pub samples: u32,
}

/// What was seen in a window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) p90: Duration,
    pub(crate) calls: u64,
    pub(crate) took: Duration,
    /// The most calls that were in progress at once.
    pub(crate) most: u32,
}

/// What is known from the windows so far.
#[derive(Clone, Debug)]
pub(crate) struct Finder {
    settings: Adaptive,
    limit: f64,
    /// In seconds; 0 before the first window.
    baseline: f64,
    throughput: f64,
    saturated: u32,
    probe: Probe,
}

/// How far a measurement of the baseline is: at which limit, and what the p90 was at twice that.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Probe {
    None,
    /// The calls that end in this window may have begun before it.
    Settling(u32, f64),
    Measuring(u32, f64),
}

/// How many windows at the limit it takes to measure the baseline again.
const PROBE_AFTER: u32 = 50;
/// Calls are faster at half the limit if their p90 falls below this share of what it was.
const FASTER: f64 = 0.8;
/// How fast the baseline follows where the limit does not matter.
const DRIFT: f64 = 0.1;

// === impl Adaptive ===

impl Adaptive {
    /// The same, if all values are within their ranges.
    ///
    /// # Errors
    /// With the field that is not.
    pub fn checked(self) -> Result<Self, Invalid> {
        let Self { initial, min, max, tolerance, smoothing, window, .. } = self;
        if min == 0 || min > max {
            return Err(Invalid::new("adaptive.min", min, "1 to adaptive.max"));
        }
        if !(min..=max).contains(&initial) {
            return Err(Invalid::new("adaptive.initial", initial, "adaptive.min to adaptive.max"));
        }
        if !(1.0..=10.0).contains(&tolerance) {
            return Err(Invalid::new("adaptive.tolerance", tolerance, "1 to 10"));
        }
        if !(smoothing > 0.0 && smoothing <= 1.0) {
            return Err(Invalid::new("adaptive.smoothing", smoothing, "above 0 to 1"));
        }
        if !(Duration::from_millis(10)..=Duration::from_secs(60)).contains(&window) {
            return Err(Invalid::new("adaptive.window", format!("{window:?}"), "10ms to 1min"));
        }
        Ok(self)
    }
}

impl Default for Adaptive {
    fn default() -> Self {
        Self {
            initial: 20,
            min: 4,
            max: 1000,
            tolerance: 1.5,
            smoothing: 0.3,
            window: Duration::from_millis(100),
            samples: 30,
        }
    }
}

// === impl Finder ===

impl Finder {
    pub(crate) fn new(settings: Adaptive) -> Self {
        Self {
            settings,
            limit: settings.initial.into(),
            baseline: 0.0,
            throughput: 0.0,
            saturated: 0,
            probe: Probe::None,
        }
    }

    /// The limit from now on.
    pub(crate) fn update(&mut self, seen: Seen) -> u32 {
        let p90 = seen.p90.as_secs_f64().max(1e-6);
        let throughput = seen.calls as f64 / seen.took.as_secs_f64().max(1e-6);
        match self.probe {
            Probe::Settling(limit, before) => {
                self.probe = Probe::Measuring(limit, before);
                return limit;
            }
            Probe::Measuring(limit, before) if p90 < FASTER * before => {
                return self.probe_below(limit, p90);
            }
            Probe::Measuring(..) => {
                self.baseline = p90;
                self.probe = Probe::None;
                return self.applied();
            }
            Probe::None => {}
        }
        let is_saturated = f64::from(seen.most) >= self.limit.floor();
        if self.baseline == 0.0 || p90 < self.baseline {
            self.baseline = p90;
        } else if !is_saturated {
            self.baseline += (p90 - self.baseline) * DRIFT;
        }
        self.saturated = if is_saturated { self.saturated.saturating_add(1) } else { 0 };
        self.follow(p90, throughput, seen.most);
        self.throughput = throughput;
        if self.saturated >= PROBE_AFTER {
            self.saturated = 0;
            return self.probe_below(self.applied(), p90);
        }
        self.applied()
    }

    fn follow(&mut self, p90: f64, throughput: f64, most: u32) {
        let gradient = (self.settings.tolerance * self.baseline / p90).clamp(0.5, 1.0);
        let wanted = self.limit * gradient + self.limit.sqrt();
        let is_unused = wanted > self.limit && f64::from(most) < self.limit / 2.0;
        let is_of_use = wanted < self.limit && throughput > 1.1 * self.throughput;
        if !is_unused && !is_of_use {
            self.limit += (wanted - self.limit) * self.settings.smoothing;
            let (min, max) = (self.settings.min.into(), self.settings.max.into());
            self.limit = self.limit.clamp(min, max);
        }
    }

    fn applied(&self) -> u32 {
        self.limit as u32
    }

    /// Measures at half of `limit`, where the p90 is this, unless that is as low as can be.
    fn probe_below(&mut self, limit: u32, p90: f64) -> u32 {
        if limit == self.settings.min {
            self.baseline = p90;
            self.probe = Probe::None;
            return self.applied();
        }
        let half = (limit / 2).max(self.settings.min);
        self.probe = Probe::Settling(half, p90);
        half
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    /// A service of so many workers, each of which takes `work` for a call, where there are always
    /// more calls than are let in.
    fn overloaded(limit: u32, workers: u32, work: Duration) -> Seen {
        let busy = f64::from(limit.min(workers));
        let took = work.mul_f64((f64::from(limit) / f64::from(workers)).max(1.0));
        let calls = (busy / work.as_secs_f64() * 0.1) as u64;
        Seen { p90: took, calls, took: 100 * MS, most: limit }
    }

    fn windows(finder: &mut Finder, count: u32, workers: u32, work: Duration) -> u32 {
        let mut limit = finder.settings.initial.min(finder.limit as u32).max(1);
        for _ in 0..count {
            limit = finder.update(overloaded(limit, workers, work));
        }
        limit
    }

    #[test]
    fn under_overload_it_finds_what_the_service_can_do() {
        for workers in [4, 8, 50, 200] {
            for initial in [4, 20, 1000] {
                let mut finder = Finder::new(Adaptive { initial, ..Adaptive::default() });
                windows(&mut finder, 1000, workers, 20 * MS);
                let limit = finder.limit;
                let workers = f64::from(workers);
                assert!((workers..4.0 * workers).contains(&limit), "{limit} of {workers}");
            }
        }
    }

    #[test]
    fn a_service_that_has_become_slower_for_good_is_not_starved() {
        let mut finder = Finder::new(Adaptive::default());
        windows(&mut finder, 300, 50, 20 * MS);
        windows(&mut finder, 600, 50, 100 * MS);
        assert!((50.0..180.0).contains(&finder.limit), "{}", finder.limit);
    }

    #[test]
    fn it_does_not_grow_where_it_is_not_used() {
        let mut finder = Finder::new(Adaptive::default());
        for _ in 0..100 {
            finder.update(Seen { p90: 20 * MS, calls: 50, took: 100 * MS, most: 5 });
        }
        assert_eq!(finder.applied(), 20);
    }

    #[test]
    fn it_does_not_shrink_while_more_calls_mean_more_work_done() {
        let mut finder = Finder::new(Adaptive::default());
        finder.update(Seen { p90: 20 * MS, calls: 100, took: 100 * MS, most: 20 });
        let before = finder.applied();
        finder.update(Seen { p90: 60 * MS, calls: 200, took: 100 * MS, most: 20 });
        assert_eq!(finder.applied(), before);
        finder.update(Seen { p90: 60 * MS, calls: 200, took: 100 * MS, most: 20 });
        assert!(finder.applied() < before);
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        let with = |change: fn(&mut Adaptive)| {
            let mut settings = Adaptive::default();
            change(&mut settings);
            settings.checked().unwrap_err().to_string()
        };
        assert!(with(|a| a.min = 0).starts_with("adaptive.min: 0"));
        assert!(with(|a| a.initial = 2000).starts_with("adaptive.initial: 2000"));
        assert!(with(|a| a.tolerance = 0.5).starts_with("adaptive.tolerance: 0.5"));
        assert!(with(|a| a.smoothing = 0.0).starts_with("adaptive.smoothing: 0"));
        assert!(with(|a| a.window = MS).starts_with("adaptive.window: 1ms"));
    }

    proptest! {
        #[test]
        fn it_never_leaves_its_range(
            seen in proptest::collection::vec((0..10_000_000u64, 0..10_000u64, 0..2000u32), 1..200)
        ) {
            let mut finder = Finder::new(Adaptive { min: 5, max: 50, ..Adaptive::default() });
            for (micros, calls, most) in seen {
                let p90 = Duration::from_micros(micros);
                let limit = finder.update(Seen { p90, calls, took: 100 * MS, most });
                prop_assert!((5..=50).contains(&limit), "{limit}");
            }
        }
    }
}
