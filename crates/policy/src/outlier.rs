//! Outlier detection, gRFC A50: an endpoint that fails more than the others is ejected for a
//! limited time.

mod ejections;

pub use ejections::{Ejections, Method};

use crate::{Code, Evidence, Invalid, Rng, clock::later};
use rand::RngExt;
use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};
use tokio::time::Instant;

/// When an endpoint is ejected, and for how long: gRPC's fields and defaults, and consecutive
/// failures beside them.
#[derive(Clone, Debug, PartialEq)]
pub struct OutlierDetection {
    /// How often the endpoints are compared. Default 10 s; more than 0, and in effect at least
    /// 1 ms.
    pub interval: Duration,
    /// An ejection lasts this long times the number of ejections not yet decayed. Default 30 s.
    pub base_ejection_time: Duration,
    /// But at most this long, or `base_ejection_time` where that is longer. Default 300 s.
    pub max_ejection_time: Duration,
    /// Ejection stops once this share of all is ejected, in percent, 0 to 100. Default 10, which of
    /// a few endpoints still allows one.
    pub max_ejection_percent: u32,
    /// Ejects those whose success rate is far below the mean. Default: off.
    pub success_rate: Option<SuccessRate>,
    /// Ejects those that fail more than a share of their calls. Default: off.
    pub failure_percentage: Option<FailurePercentage>,
    /// Ejects an endpoint immediately after so many failures in a row that are evidence against it
    /// ([`Evidence`]): refusals by the application are not. Default: off, as in gRPC.
    pub consecutive_failures: Option<u32>,
}

/// The success-rate algorithm: below the mean by so many standard deviations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuccessRate {
    /// The number of standard deviations, times 1000. Default 1900.
    pub stdev_factor: u32,
    /// In how many percent of the cases an outlier is ejected, 0 to 100. Default 100.
    pub enforcement_percentage: u32,
    /// With fewer endpoints that have enough calls, none is ejected. Default 5.
    pub minimum_hosts: u32,
    /// How many calls in an interval are enough. Default 100.
    pub request_volume: u32,
}

/// The failure-percentage algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailurePercentage {
    /// A higher failure percentage is too high, 0 to 100. Default 85.
    pub threshold: u32,
    /// In how many percent of the cases an outlier is ejected, 0 to 100. Default 100.
    pub enforcement_percentage: u32,
    /// With fewer endpoints that have enough calls, none is ejected. Default 5.
    pub minimum_hosts: u32,
    /// How many calls in an interval are enough. Default 50.
    pub request_volume: u32,
}

/// The counts of one endpoint, without a lock.
#[derive(Debug, Default)]
pub struct Tally {
    succeeded: AtomicU64,
    failed: AtomicU64,
    /// The counts at the last sweep, which alone writes them.
    swept: [AtomicU64; 2],
    in_a_row: AtomicU32,
}

/// Whether an endpoint is ejected; maintained by the sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ejection {
    /// When it was ejected, if it is.
    pub since: Option<Instant>,
    /// The method of its last ejection.
    by: Option<Method>,
    multiplier: u32,
}

/// An endpoint as the sweep sees it.
#[derive(Clone, Copy, Debug)]
struct Volume {
    index: usize,
    succeeded: u64,
    total: u64,
}

// === impl OutlierDetection ===

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_percent: 10,
            success_rate: None,
            failure_percentage: None,
            consecutive_failures: None,
        }
    }
}

impl OutlierDetection {
    /// Checks the ranges of the settings.
    ///
    /// # Errors
    /// Names the field outside its range.
    pub fn checked(self) -> Result<Self, Invalid> {
        let rate = self.success_rate.map_or(0, |rate| rate.enforcement_percentage);
        let failure = self.failure_percentage.unwrap_or_default();
        for (field, percent) in [
            ("max_ejection_percent", self.max_ejection_percent),
            ("success_rate.enforcement_percentage", rate),
            ("failure_percentage.threshold", failure.threshold),
            ("failure_percentage.enforcement_percentage", failure.enforcement_percentage),
        ] {
            if percent > 100 {
                return Err(Invalid::new(field, percent, "0 to 100"));
            }
        }
        if self.interval.is_zero() {
            return Err(Invalid::new("interval", "0s", "more than 0"));
        }
        if self.consecutive_failures == Some(0) {
            return Err(Invalid::new("consecutive_failures", 0, "at least 1"));
        }
        Ok(self)
    }

    /// Compares the endpoints, and ejects and readmits (A50, the steps in their order).
    #[doc(hidden)]
    pub fn sweep(
        &self,
        tallies: &[&Tally],
        ejections: &mut [Ejection],
        counts: &mut Ejections,
        now: Instant,
        rng: &Rng,
    ) {
        let volumes: Vec<Volume> =
            tallies.iter().enumerate().map(|(index, tally)| tally.take(index)).collect();
        if let Some(rate) = self.success_rate {
            let considered = enough(&volumes, rate.request_volume, rate.minimum_hosts);
            let least = rate.least(&considered);
            let outliers = considered.iter().filter(|volume| volume.rate() < least);
            let spares = || rng.draw().random_range(0..100) >= rate.enforcement_percentage;
            for outlier in outliers {
                let found = (outlier.index, Method::SuccessRate);
                self.eject(found, spares, ejections, counts, now);
            }
        }
        if let Some(failure) = self.failure_percentage {
            let considered = enough(&volumes, failure.request_volume, failure.minimum_hosts);
            let most = u64::from(failure.threshold);
            let outliers = considered
                .iter()
                .filter(|volume| 100 * (volume.total - volume.succeeded) > most * volume.total);
            let spares = || rng.draw().random_range(0..100) >= failure.enforcement_percentage;
            for outlier in outliers {
                let found = (outlier.index, Method::FailurePercentage);
                self.eject(found, spares, ejections, counts, now);
            }
        }
        for ejection in ejections {
            self.readmit(ejection, now);
        }
    }

    /// Ejects one more, unless it is ejected, there are enough, or it is spared; returns whether it
    /// did.
    #[doc(hidden)]
    pub fn eject(
        &self,
        (index, by): (usize, Method),
        spares: impl Fn() -> bool,
        ejections: &mut [Ejection],
        counts: &mut Ejections,
        now: Instant,
    ) -> bool {
        let ejected = ejections.iter().filter(|ejection| ejection.since.is_some()).count();
        let most = ejections.len() * self.max_ejection_percent as usize;
        let Some(own) = ejections.get_mut(index).filter(|own| own.since.is_none()) else {
            return false;
        };
        let counts = counts.of(by);
        if 100 * ejected >= most {
            counts.overflow += 1;
            return false;
        }
        if spares() {
            counts.spared += 1;
            return false;
        }
        counts.ejected += 1;
        *own = Ejection {
            since: Some(now),
            by: Some(by),
            multiplier: own.multiplier.saturating_add(1),
        };
        true
    }

    /// The method of its ejection, and the least remaining time.
    #[doc(hidden)]
    pub fn left(&self, ejection: &Ejection, now: Instant) -> Option<(Method, Duration)> {
        let until = later(ejection.since?, self.time(ejection));
        Some((ejection.by?, until.saturating_duration_since(now)))
    }

    fn time(&self, ejection: &Ejection) -> Duration {
        let longest = self.base_ejection_time.max(self.max_ejection_time);
        self.base_ejection_time.saturating_mul(ejection.multiplier).min(longest)
    }

    fn readmit(&self, ejection: &mut Ejection, now: Instant) {
        let Some(since) = ejection.since else {
            ejection.multiplier = ejection.multiplier.saturating_sub(1);
            return;
        };
        if now > later(since, self.time(ejection)) {
            ejection.since = None;
        }
    }
}

fn enough(volumes: &[Volume], request_volume: u32, minimum_hosts: u32) -> Vec<Volume> {
    let has_enough = |volume: &&Volume| volume.total >= u64::from(request_volume).max(1);
    let considered: Vec<Volume> = volumes.iter().filter(has_enough).copied().collect();
    if considered.len() < minimum_hosts as usize { Vec::new() } else { considered }
}

// === impl SuccessRate ===

impl SuccessRate {
    /// The success rate below which an endpoint is an outlier.
    fn least(&self, considered: &[Volume]) -> f64 {
        let count = considered.len() as f64;
        let mean = considered.iter().map(Volume::rate).sum::<f64>() / count;
        let variance = considered.iter().map(|volume| (volume.rate() - mean).powi(2)).sum::<f64>();
        mean - (variance / count).sqrt() * f64::from(self.stdev_factor) / 1000.0
    }
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self {
            stdev_factor: 1900,
            enforcement_percentage: 100,
            minimum_hosts: 5,
            request_volume: 100,
        }
    }
}

// === impl FailurePercentage ===

impl Default for FailurePercentage {
    fn default() -> Self {
        Self { threshold: 85, enforcement_percentage: 100, minimum_hosts: 5, request_volume: 50 }
    }
}

// === impl Tally ===

impl Tally {
    /// Counts a call; returns how many failures there are in a row.
    ///
    /// For A50's two algorithms, every code but OK is a failure. Of failures in a row, only
    /// evidence against the endpoint counts.
    #[inline]
    pub fn count(&self, evidence: Evidence) -> u32 {
        match evidence {
            Evidence::Good(Code::Ok) => self.succeeded.fetch_add(1, Ordering::Relaxed),
            Evidence::Nothing(None) => return 0,
            _ => self.failed.fetch_add(1, Ordering::Relaxed),
        };
        match evidence {
            Evidence::Bad(_) => self.in_a_row.fetch_add(1, Ordering::Relaxed) + 1,
            // Usually it is 0 already, and nothing is written.
            Evidence::Good(_) if self.in_a_row.load(Ordering::Relaxed) != 0 => {
                self.in_a_row.store(0, Ordering::Relaxed);
                0
            }
            Evidence::Good(_) | Evidence::Nothing(_) => 0,
        }
    }

    /// Failures before an ejection do not count after it.
    #[inline]
    pub fn begin_anew(&self) {
        self.in_a_row.store(0, Ordering::Relaxed);
    }

    fn take(&self, index: usize) -> Volume {
        let (succeeded, failed) = self.read();
        let [before, failed_before] = &self.swept;
        let succeeded = succeeded - before.swap(succeeded, Ordering::Relaxed);
        let failed = failed - failed_before.swap(failed, Ordering::Relaxed);
        Volume { index, succeeded, total: succeeded + failed }
    }

    /// How many calls have ever succeeded, and failed.
    #[inline]
    pub fn read(&self) -> (u64, u64) {
        (self.succeeded.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}

// === impl Volume ===

impl Volume {
    fn rate(&self) -> f64 {
        self.succeeded as f64 / self.total as f64
    }
}

#[cfg(test)]
mod tests;
