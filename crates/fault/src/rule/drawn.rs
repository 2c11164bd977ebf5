//! The random choices of a rule that hits.

use super::{Action, Wait};
use cinchona_plumbing::clock::times;
use std::time::Duration;

/// The longest delay that is drawn: a normal distribution is unbounded.
const LONGEST: Duration = Duration::from_secs(8760 * 3600);

// === impl Wait ===

impl Wait {
    pub(crate) fn drawn(self, draw: impl Fn(&str) -> f64) -> Duration {
        // Box-Muller; the first must not be 0.
        let normal = || {
            let (one, other) = (1.0 - draw("delay"), draw("delay too"));
            (-2.0 * one.ln()).sqrt() * (std::f64::consts::TAU * other).cos()
        };
        let seconds = match self {
            Self::Fixed(delay) => return delay,
            Self::Uniform(from, to) => {
                return from.saturating_add(times(to.saturating_sub(from), draw("delay")));
            }
            Self::Normal { mean, deviation } => {
                mean.as_secs_f64() + deviation.as_secs_f64() * normal()
            }
            Self::LogNormal { p50, p99 } => {
                // The standard normal's 99th percentile.
                let sigma = (p99.as_secs_f64() / p50.as_secs_f64()).ln() / 2.326_347_874_040_841;
                p50.as_secs_f64() * (sigma * normal()).exp()
            }
        };
        Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(LONGEST).min(LONGEST)
    }
}

// === impl Action ===

impl Action {
    /// With one code instead of a mix.
    pub(crate) fn drawn(&self, draw: impl Fn(&str) -> f64) -> Self {
        let Self::Status { codes, message, details } = self else { return self.clone() };
        let total: u64 = codes.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut left = if codes.len() > 1 { draw("code") * total as f64 } else { 0.0 };
        let drawn = codes.iter().find(|(_, weight)| {
            left -= f64::from(*weight);
            left < 0.0
        });
        let codes = drawn.or(codes.last()).copied().into_iter().collect();
        Self::Status { codes, message: message.clone(), details: details.clone() }
    }
}
