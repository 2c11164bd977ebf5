//! Weights by reported utilization: gRFC A58, by the load reports (ORCA) of endpoints.

use crate::{Invalid, clock};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::time::Instant;

/// How `Picker::WeightedRoundRobin` computes weights from load
/// reports: the fields and defaults of gRFC A58.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Utilization {
    /// How long an endpoint must have been reporting before its weight is used; restarts with each
    /// connection, and with the first report after its weight has expired. Default 10 s; 0 for
    /// immediately.
    pub blackout_period: Duration,
    /// A weight expires when the last report is this old. Default 3 min; 0: it is never used.
    pub weight_expiration_period: Duration,
    /// How often the weights are updated. Default 1 s; at least 100 ms.
    pub weight_update_period: Duration,
    /// The weight of errors in the utilization: this times errors per query. Default 1; 0 (errors
    /// do not matter) or more.
    pub error_utilization_penalty: f64,
}

/// The reports of one endpoint, without a lock: an overwritten report is lost.
#[derive(Debug)]
pub struct Reported {
    settings: Utilization,
    began: Instant,
    /// Of the last report with a weight, as bits.
    weight: AtomicU64,
    /// Nanoseconds since `began` of that report; 0 before the first.
    last: AtomicU64,
    /// Likewise of the first since the connection or the expiry; 0 before that.
    first: AtomicU64,
}

/// The fields of `xds.data.orca.v3.OrcaLoadReport` for the weight.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    /// The share of the processors' time, 0 to 1, or more.
    pub cpu_utilization: f64,
    /// Queries per second.
    pub rps_fractional: f64,
    /// Errors per second.
    pub eps: f64,
    /// What the application says instead of `cpu_utilization`; 0 for nothing.
    pub application_utilization: f64,
}

/// No weight is above this times the mean, which bounds the rounds of a pick, or below that: as in
/// gRPC C-core (`static_stride_scheduler.cc`).
const MOST_OF_MEAN: f64 = 10.0;
const LEAST_OF_MEAN: f64 = 0.01;

/// The least `weight_update_period` of gRFC A58.
const LEAST_PERIOD: Duration = Duration::from_millis(100);

// === impl Utilization ===

impl Utilization {
    /// Checks the ranges of the settings.
    ///
    /// # Errors
    /// Names the field outside its range.
    #[doc(hidden)]
    pub fn checked(self) -> Result<Self, Invalid> {
        let Self { weight_update_period: period, error_utilization_penalty: penalty, .. } = self;
        if period < LEAST_PERIOD {
            let period = format!("{period:?}");
            return Err(Invalid::new("weight_update_period", period, "at least 100ms"));
        }
        if !(penalty.is_finite() && penalty >= 0.0) {
            return Err(Invalid::new("error_utilization_penalty", penalty, "0 or more, finite"));
        }
        Ok(self)
    }

    /// The weight from this report, if it gives one.
    #[inline]
    fn weight(&self, report: &Report) -> Option<f64> {
        let Report { cpu_utilization, rps_fractional: qps, eps, application_utilization } = *report;
        let is_known = application_utilization > 0.0;
        let utilization = if is_known { application_utilization } else { cpu_utilization };
        // Not `utilization <= 0.0`: it may be NaN.
        if !(utilization > 0.0 && qps > 0.0) {
            return None;
        }
        let penalty = eps.max(0.0) / qps * self.error_utilization_penalty;
        Some(qps / (utilization + penalty)).filter(|weight| weight.is_finite() && *weight > 0.0)
    }
}

impl Default for Utilization {
    fn default() -> Self {
        Self {
            blackout_period: Duration::from_secs(10),
            weight_expiration_period: Duration::from_secs(180),
            weight_update_period: Duration::from_secs(1),
            error_utilization_penalty: 1.0,
        }
    }
}

// === impl Reported ===

impl Reported {
    /// Before the first report.
    pub fn new(settings: Utilization, now: Instant) -> Self {
        let [weight, last, first] = [const { AtomicU64::new(0) }; 3];
        Self { settings, began: now, weight, last, first }
    }

    /// The endpoint has a new connection, maybe to another server, so the blackout restarts.
    #[inline]
    pub fn begins_anew(&self) {
        self.first.store(0, Ordering::Relaxed);
    }

    /// A report, of the end of a call; one that gives no weight is ignored.
    pub fn hear(&self, report: &Report, now: Instant) {
        let Some(weight) = self.settings.weight(report) else { return };
        let at = self.nanos(now).max(1);
        if self.first.load(Ordering::Relaxed) == 0 || self.has_expired(at) {
            self.first.store(at, Ordering::Relaxed);
        }
        self.weight.store(weight.to_bits(), Ordering::Relaxed);
        // A thread that sees this report also sees when the blackout began.
        self.last.store(at, Ordering::Release);
    }

    /// The weight, if valid: neither expired nor within the blackout.
    #[inline]
    pub fn weight(&self, now: Instant) -> Option<f64> {
        let at = self.nanos(now);
        if self.has_expired(at) {
            return None;
        }
        let blackout = self.settings.blackout_period;
        let first = self.first.load(Ordering::Relaxed);
        let is_proven = first != 0 && between(first, at) >= blackout;
        (is_proven || blackout.is_zero())
            .then(|| f64::from_bits(self.weight.load(Ordering::Relaxed)))
    }

    /// Whether there is no report, or the last is too old.
    #[inline]
    fn has_expired(&self, at: u64) -> bool {
        let last = self.last.load(Ordering::Acquire);
        last == 0 || between(last, at) >= self.settings.weight_expiration_period
    }

    #[inline]
    fn nanos(&self, now: Instant) -> u64 {
        clock::nanos(now.saturating_duration_since(self.began))
    }
}

fn between(before: u64, at: u64) -> Duration {
    Duration::from_nanos(at.saturating_sub(before))
}

/// The weights of endpoints relative to their mean, which endpoints without one get; `None` if
/// fewer than two have one (gRFC A58).
pub fn over_mean(weights: impl Iterator<Item = Option<f64>>) -> Option<Vec<f64>> {
    let weights: Vec<_> = weights.collect();
    let count = weights.iter().flatten().count();
    if count < 2 {
        return None;
    }
    // Divided first, so that the sum cannot overflow.
    let mean: f64 = weights.iter().flatten().map(|weight| weight / count as f64).sum();
    let over = |weight: f64| (weight / mean).clamp(LEAST_OF_MEAN, MOST_OF_MEAN);
    Some(weights.into_iter().map(|weight| weight.map_or(1.0, over)).collect())
}

#[cfg(test)]
mod tests;
