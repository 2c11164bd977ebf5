//! Phi accrual: how certain it is that a silent node is gone.

use crate::{
    Invalid,
    clock::{later, nanos},
};
use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// How silence becomes suspicion ([Hayashibara et al., 2004], with the parameters of [Pekko]).
///
/// *Rule:* heartbeats are assumed to arrive in normally distributed intervals, with the mean of the
/// last [`max_samples`](Self::max_samples) plus [`acceptable_pause`](Self::acceptable_pause). Phi
/// is −log₁₀ of the chance that one arrives even later than now: 1 is a chance of 10 %, 3 of 0.1 %,
/// 8 of 10⁻⁸. The interval in which a node was convicted is no sample.
///
/// ```
/// let phi = cinchona_policy::cluster::suspicion::Phi { threshold: 12.0, ..Default::default() };
/// assert_eq!(phi.suspect, 3.0);
/// ```
///
/// [Hayashibara et al., 2004]: https://doi.org/10.1109/RELDIS.2004.1353004
/// [Pekko]: https://pekko.apache.org/docs/pekko/current/typed/failure-detector.html
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Phi {
    /// The phi that convicts. Default 8 (Pekko's); `suspect` to 300.
    pub threshold: f64,
    /// The phi that suspects, and convicts where calls fail as well. Default 3; more than 0, up to
    /// `threshold`.
    pub suspect: f64,
    /// How many intervals enter the mean and the deviation. Default 200; 1 to 10,000.
    pub max_samples: usize,
    /// The lower bound of the standard deviation. Default 100 ms (Pekko's); 1 ms to 1 h.
    pub min_std_deviation: Duration,
    /// How long a node may be silent beyond the mean, for example while it is paused. Default 800
    /// ms, by which half of all crashes are detected within 2 s even with heartbeats each 500 ms;
    /// Pekko's is 3 s. 0 to 1 h.
    pub acceptable_pause: Duration,
    /// The estimate of the first interval, ±25 %. Default 500 ms; 1 ms to 1 h.
    pub first_estimate: Duration,
}

/// The heartbeats of one node.
#[derive(Clone, Debug)]
pub(super) struct Detector {
    settings: Phi,
    /// In nanoseconds, up to [`LONGEST`].
    intervals: VecDeque<u64>,
    /// Their sum, and that of their squares: exact, so that it may be kept up with each of them.
    sum: u128,
    squares: u128,
    /// Their mean and standard deviation in seconds.
    mean: f64,
    deviation: f64,
    last: Option<Instant>,
}

/// Thirteen days: of 10,000 such intervals the sums have room in 128 bits.
const LONGEST: u64 = 1 << 50;

// === impl Phi ===

impl Phi {
    /// Checks the ranges of all values.
    ///
    /// # Errors
    /// Names the field outside its range.
    #[doc(hidden)]
    pub fn checked(self) -> Result<Self, Invalid> {
        const LONGEST: Duration = Duration::from_secs(3600);
        let within = |field, value: Duration, least: Duration, allowed| {
            let fits = (least..=LONGEST).contains(&value);
            if fits { Ok(()) } else { Err(Invalid::new(field, format!("{value:?}"), allowed)) }
        };
        let ms = Duration::from_millis(1);
        if !(self.suspect > 0.0 && self.suspect <= self.threshold) {
            return Err(Invalid::new("suspect", self.suspect, "more than 0, up to threshold"));
        }
        if self.threshold > 300.0 {
            return Err(Invalid::new("threshold", self.threshold, "suspect to 300"));
        }
        if !(1..=10_000).contains(&self.max_samples) {
            return Err(Invalid::new("max_samples", self.max_samples, "1 to 10000"));
        }
        within("min_std_deviation", self.min_std_deviation, ms, "1ms to 1h")?;
        within("acceptable_pause", self.acceptable_pause, Duration::ZERO, "0s to 1h")?;
        within("first_estimate", self.first_estimate, ms, "1ms to 1h")?;
        Ok(self)
    }
}

impl Default for Phi {
    fn default() -> Self {
        Self {
            threshold: 8.0,
            suspect: 3.0,
            max_samples: 200,
            min_std_deviation: Duration::from_millis(100),
            acceptable_pause: Duration::from_millis(800),
            first_estimate: Duration::from_millis(500),
        }
    }
}

// === impl Detector ===

impl Detector {
    pub(super) fn new(settings: Phi) -> Self {
        let (intervals, last) = (VecDeque::new(), None);
        let (mean, deviation) = (0.0, 0.0);
        let mut own = Self { settings, intervals, sum: 0, squares: 0, mean, deviation, last };
        let quarter = settings.first_estimate / 4;
        own.measure(quarter.saturating_mul(3));
        own.measure(quarter.saturating_mul(5));
        own
    }

    /// A heartbeat arrived.
    pub(super) fn heartbeat(&mut self, now: Instant) {
        if let Some(last) = self.last
            && self.phi(now) < self.settings.threshold
        {
            self.measure(now.saturating_duration_since(last));
        }
        self.last = Some(now);
    }

    /// Takes an interval in, and the oldest out where there are too many.
    fn measure(&mut self, interval: Duration) {
        let interval = nanos(interval).min(LONGEST);
        self.intervals.push_back(interval);
        self.sum += u128::from(interval);
        self.squares += u128::from(interval).pow(2);
        while self.intervals.len() > self.settings.max_samples.max(1)
            && let Some(oldest) = self.intervals.pop_front()
        {
            self.sum -= u128::from(oldest);
            self.squares -= u128::from(oldest).pow(2);
        }
        let count = self.intervals.len() as u128;
        // Exact up to here: of large numbers that are alike, a difference in floats is noise.
        let spread = count * self.squares - self.sum.pow(2);
        let nanos = count as f64 * 1e9;
        (self.mean, self.deviation) = (self.sum as f64 / nanos, (spread as f64).sqrt() / nanos);
    }

    /// Phi: how improbable it is that the heartbeat is only late; 0 before the first one.
    pub(super) fn phi(&self, now: Instant) -> f64 {
        let Some(last) = self.last else { return 0.0 };
        let elapsed = now.saturating_duration_since(last).as_secs_f64();
        let deviation = self.deviation.max(self.settings.min_std_deviation.as_secs_f64());
        improbability(elapsed - self.mean - self.settings.acceptable_pause.as_secs_f64(), deviation)
    }

    /// This process did not run for so long, so the silence was not the node's.
    pub(super) fn forgive(&mut self, pause: Duration) {
        self.last = self.last.map(|last| later(last, pause));
    }

    /// The intervals between its heartbeats, oldest first; the first two are derived from the
    /// estimate.
    pub(super) fn history(&self) -> impl Iterator<Item = Duration> {
        self.intervals.iter().copied().map(Duration::from_nanos)
    }
}

/// −log₁₀ of the chance that a normally distributed value exceeds the mean by `over`: the logistic
/// approximation that Pekko uses (Bowling et al., 2009). The chance is off by less than 0.00014, so
/// that far out phi is too high: it reaches 8 at 5.2 deviations and not at 5.6.
fn improbability(over: f64, deviation: f64) -> f64 {
    let y = over / deviation;
    let log = y * (1.5976 + 0.070566 * y * y);
    // e^-log / (1 + e^-log); far out, 1 + e^-log is 1 and only the exponent counts.
    if log > 30.0 { log * std::f64::consts::LOG10_E } else { (1.0 + log.exp()).log10() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    fn beating(settings: Phi, interval: Duration, beats: u32) -> (Detector, Instant) {
        let mut detector = Detector::new(settings);
        let mut now = Instant::now();
        detector.heartbeat(now);
        for _ in 0..beats {
            now += interval;
            detector.heartbeat(now);
        }
        (detector, now)
    }

    #[test]
    fn phi_is_the_logarithm_of_the_chance_under_a_normal_distribution() {
        // One-sided tail probabilities of the normal distribution.
        for (y, chance) in [(0.0, 0.5), (1.0, 0.158_655), (2.0, 0.022_750), (3.0, 0.001_350)] {
            let phi = improbability(y * 0.1, 0.1);
            assert!((phi + f64::log10(chance)).abs() < 0.05, "{y}: {phi}");
        }
        // In the far tail it is as early as Pekko's: 8 at 5.2 deviations instead of 5.6.
        assert!(improbability(5.1, 1.0) < 8.0 && improbability(5.3, 1.0) > 8.0);
    }

    #[test]
    fn far_out_phi_is_the_exponent_alone_and_never_infinite() {
        // y · (1.5976 + 0.070566 · y²) · log₁₀ e, by hand.
        for (y, phi) in [(6.0, 10.7826), (10.0, 37.585), (1000.0, 30_647_128.0)] {
            let found = improbability(y, 1.0);
            assert!((found / phi - 1.0).abs() < 1e-4, "{y}: {found}");
        }
    }

    #[test]
    fn a_silence_that_has_just_convicted_a_node_is_no_sample() {
        let (detector, last) = beating(Phi::default(), 200 * MS, 50);
        let now = last + 1500 * MS;
        for (threshold, samples) in [(detector.phi(now), 52), (detector.phi(now + MS), 53)] {
            let settings = Phi { threshold, ..Phi::default() };
            let mut detector = Detector { settings, ..detector.clone() };
            detector.heartbeat(now);
            assert_eq!(detector.history().count(), samples, "{threshold}");
        }
    }

    #[test]
    fn a_silent_node_is_convicted_a_pause_after_its_heartbeat_was_due() {
        for (interval, least, most) in [(200, 1400, 1700), (500, 1700, 2000)] {
            let (detector, last) = beating(Phi::default(), interval * MS, 250);
            let when = (0..4000).find(|&ms| detector.phi(last + ms * MS) >= 8.0);
            assert!(when.is_some_and(|ms| (least..most).contains(&ms)), "{interval}: {when:?}");
        }
    }

    #[test]
    fn a_node_that_was_not_heard_yet_is_not_suspected() {
        let detector = Detector::new(Phi::default());
        assert_eq!(detector.phi(Instant::now() + 3600 * 1000 * MS), 0.0);
    }

    #[test]
    fn the_silence_that_convicted_a_node_is_no_sample() {
        let (mut detector, last) = beating(Phi::default(), 200 * MS, 50);
        let before: Vec<_> = detector.history().collect();
        detector.heartbeat(last + 60_000 * MS);
        assert_eq!(detector.history().collect::<Vec<_>>(), before);
    }

    #[test]
    fn old_intervals_are_forgotten() {
        let settings = Phi { max_samples: 10, ..Phi::default() };
        let (detector, _) = beating(settings, 200 * MS, 50);
        assert_eq!(detector.history().count(), 10);
    }

    #[test]
    fn a_setting_outside_its_range_is_refused() {
        let refused = |phi: Phi| phi.checked().map_err(|invalid| invalid.field()).unwrap_err();
        assert_eq!(refused(Phi { suspect: 9.0, ..Phi::default() }), "suspect");
        assert_eq!(refused(Phi { suspect: 0.0, ..Phi::default() }), "suspect");
        assert_eq!(refused(Phi { threshold: f64::NAN, ..Phi::default() }), "suspect");
        assert_eq!(refused(Phi { threshold: 301.0, ..Phi::default() }), "threshold");
        assert_eq!(refused(Phi { max_samples: 0, ..Phi::default() }), "max_samples");
        let none = Duration::ZERO;
        assert_eq!(refused(Phi { min_std_deviation: none, ..Phi::default() }), "min_std_deviation");
        assert_eq!(refused(Phi { first_estimate: none, ..Phi::default() }), "first_estimate");
        assert!(Phi::default().checked().is_ok());
        assert!(Phi { threshold: 300.0, ..Phi::default() }.checked().is_ok());
    }

    proptest! {
        #[test]
        fn mean_and_deviation_are_those_of_the_last_intervals(
            intervals in prop::collection::vec(
                prop_oneof![1u64..1_000_000_000, any::<u64>()], 1..50),
            max_samples in 1usize..20,
        ) {
            let mut detector = Detector::new(Phi { max_samples, ..Phi::default() });
            intervals.into_iter().for_each(|one| detector.measure(Duration::from_nanos(one)));
            let kept: Vec<f64> = detector.history().map(|one| one.as_secs_f64()).collect();
            let mean = kept.iter().sum::<f64>() / kept.len() as f64;
            let squares = kept.iter().map(|one| (one - mean).powi(2)).sum::<f64>();
            let deviation = (squares / kept.len() as f64).sqrt();
            let is_near = |own: f64, other: f64| (own - other).abs() <= 1e-9 * (1.0 + mean);
            prop_assert!(is_near(detector.mean, mean), "{} {mean}", detector.mean);
            prop_assert!(is_near(detector.deviation, deviation), "{}", detector.deviation);
        }

        #[test]
        fn phi_never_falls_while_a_node_is_silent(
            intervals in prop::collection::vec(1u32..2000, 1..50), more in 1u32..10_000,
        ) {
            let mut detector = Detector::new(Phi::default());
            let mut now = Instant::now();
            for interval in intervals {
                now += interval * MS;
                detector.heartbeat(now);
            }
            let (early, late) = (detector.phi(now), detector.phi(now + more * MS));
            prop_assert!(early.is_finite() && late.is_finite() && 0.0 <= early && early <= late);
        }
    }
}
