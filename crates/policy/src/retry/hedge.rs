//! Hedging: the same request several times in parallel, and the first good answer wins.

use super::{
    budget::{Budget, SharedBudget},
    codes::Codes,
};
use crate::{Code, Invalid, Latency};
use std::time::Duration;
use tokio::time::Instant;

/// How many attempts a call makes in parallel, and when they begin (gRFC A6, hedging).
///
/// The default: at most 2, the second after 1 s or as soon as the first has failed with
/// `UNAVAILABLE`. Only for methods that may be executed more than once.
///
/// ```
/// use cinchona_policy::retry::HedgePolicy;
/// use std::time::Duration;
///
/// let hedge = HedgePolicy::default().with_delay(Duration::from_millis(50));
/// // Or: whatever delay costs 2 % more requests.
/// let hedge = hedge.with_extra_load(0.02)?;
/// assert!(hedge.with_extra_load(2.0).is_err());
/// # Ok::<_, cinchona_policy::Invalid>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct HedgePolicy {
    pub(super) max_attempts: u32,
    /// Between an attempt and the next, unless there is an extra load.
    delay: Duration,
    /// The codes after which the other attempts continue.
    pub(super) codes: Codes,
    /// The share of all calls that is hedged, after a delay that is learned.
    extra_load: Option<f64>,
}

const MOST_ATTEMPTS: u32 = 100;

/// What calls have shown of a policy with an extra load: the latency that sets its delay, and the
/// budget that limits its cost.
///
/// A layer has one for each such policy: those who use equal policies learn apart.
#[derive(Debug)]
pub struct AdaptiveDelay {
    pub(super) latency: Latency,
    pub(super) budget: SharedBudget,
}

// === impl HedgePolicy ===

impl HedgePolicy {
    /// Makes at most this many attempts, the first included; less than 2 disables hedging, and more
    /// than 100 are 100 (a service config has at most 5, gRFC A6). Default 2.
    #[must_use]
    pub fn with_max_attempts(self, max_attempts: u32) -> Self {
        Self { max_attempts: max_attempts.min(MOST_ATTEMPTS), ..self }
    }

    /// Begins an attempt this long after the one before; zero begins all of them together. Default
    /// 1 s.
    #[must_use]
    pub fn with_delay(self, delay: Duration) -> Self {
        Self { delay, extra_load: None, ..self }
    }

    /// Lets the other attempts continue after one of these codes; any other ends the call. Default
    /// `UNAVAILABLE`.
    #[must_use]
    pub fn with_non_fatal_codes(self, codes: impl IntoIterator<Item = impl Into<i32>>) -> Self {
        Self { codes: codes.into_iter().collect(), ..self }
    }

    /// Sets the delay automatically: to the latency that a share of `extra_load` of all calls
    /// exceeds, so that about this share is hedged, and never more.
    ///
    /// Nothing is hedged before 100 calls have been answered. Each layer learns for itself, and for
    /// each of its policies.
    ///
    /// # Errors
    /// When `extra_load` is not above 0 and at most 1.
    pub fn with_extra_load(self, extra_load: f64) -> Result<Self, Invalid> {
        if !(extra_load > 0.0 && extra_load <= 1.0) {
            return Err(Invalid::new("extra_load", extra_load, "above 0 and at most 1"));
        }
        Ok(Self { extra_load: Some(extra_load), ..self })
    }

    /// Whether the delay is learned, for an extra load.
    #[doc(hidden)]
    pub const fn is_adaptive(&self) -> bool {
        self.extra_load.is_some()
    }

    /// Whether a second attempt would have begun beside one that took this long, and ended with
    /// this code, after what `adaptive` has learned.
    #[doc(hidden)]
    pub fn would_begin(
        &self,
        code: Code,
        took: Duration,
        adaptive: Option<&AdaptiveDelay>,
    ) -> bool {
        self.codes.contains(code) || self.is_due_after(took, adaptive)
    }

    /// Whether a second attempt begins while the first takes this long.
    fn is_due_after(&self, took: Duration, adaptive: Option<&AdaptiveDelay>) -> bool {
        self.max_attempts > 1 && self.delay(adaptive).is_some_and(|delay| delay < took)
    }

    /// The delay between an attempt and the next; `None` while it is not learned.
    pub(super) fn delay(&self, adaptive: Option<&AdaptiveDelay>) -> Option<Duration> {
        match self.extra_load {
            Some(_) => adaptive?.latency.current(),
            None => Some(self.delay),
        }
    }
}

impl Default for HedgePolicy {
    fn default() -> Self {
        let codes = [Code::Unavailable].into_iter().collect();
        Self { max_attempts: 2, delay: Duration::from_secs(1), codes, extra_load: None }
    }
}

// === impl AdaptiveDelay ===

impl AdaptiveDelay {
    /// One that has learned nothing yet; `None` for a policy without an extra load.
    pub fn of(policy: &HedgePolicy, now: Instant) -> Option<Self> {
        let extra_load = policy.extra_load?;
        // Never more than the share: so no tokens by time. The share was checked when it was set.
        let budget = Budget::new(extra_load, 10).and_then(|budget| budget.with_per_second(0.0));
        let budget = SharedBudget::new(budget.ok(), now);
        Some(Self { latency: Latency::new(1.0 - extra_load), budget })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_setting_leaves_the_others_as_they_are() {
        let hedge = HedgePolicy::default().with_max_attempts(5).with_delay(7 * MS);
        let hedge = hedge.with_non_fatal_codes([Code::Internal]);
        assert_eq!((hedge.max_attempts, hedge.delay(None)), (5, Some(7 * MS)));
        assert!(hedge.codes.contains(Code::Internal) && !hedge.codes.contains(Code::Unavailable));
        let hedge = hedge.with_extra_load(0.5).unwrap();
        assert_eq!(hedge.max_attempts, 5);
        assert!(hedge.codes.contains(Code::Internal));
        assert_eq!(hedge.with_max_attempts(1000).max_attempts, 100);
    }

    #[test]
    fn of_a_delay_and_a_share_the_one_set_last_counts() {
        let hedge = HedgePolicy::default().with_delay(7 * MS).with_extra_load(0.5).unwrap();
        let adaptive = AdaptiveDelay::of(&hedge, Instant::now());
        assert_eq!(hedge.delay(adaptive.as_ref()), None, "nothing has been answered");
        assert!(!hedge.is_due_after(Duration::MAX, adaptive.as_ref()));
        let hedge = hedge.with_delay(7 * MS);
        assert_eq!(hedge.delay(adaptive.as_ref()), Some(7 * MS));
        assert!(AdaptiveDelay::of(&hedge, Instant::now()).is_none());
    }

    #[test]
    fn a_share_of_all_calls_is_above_none_and_at_most_all() {
        for share in [f64::MIN_POSITIVE, 1.0] {
            assert!(HedgePolicy::default().with_extra_load(share).is_ok(), "{share}");
        }
        for share in [0.0, -0.1, 1.000_001, 2.0, f64::NAN, f64::INFINITY] {
            let refused = HedgePolicy::default().with_extra_load(share).unwrap_err();
            assert_eq!(refused.field(), "extra_load");
        }
    }

    #[test]
    fn a_share_of_a_quarter_hedges_what_takes_longer_than_three_of_four_calls() {
        let hedge = HedgePolicy::default().with_extra_load(0.25).unwrap();
        let adaptive = AdaptiveDelay::of(&hedge, Instant::now()).unwrap();
        for call in 0..100 {
            adaptive.latency.record(if call % 5 < 4 { 10 * MS } else { 1000 * MS });
        }
        let delay = hedge.delay(Some(&adaptive)).unwrap();
        assert!((10 * MS..12 * MS).contains(&delay), "{delay:?}");
    }

    #[test]
    fn another_attempt_is_due_once_the_first_takes_longer_than_the_delay() {
        let hedge = HedgePolicy::default().with_delay(7 * MS);
        assert_eq!([6, 7, 8].map(|ms| hedge.is_due_after(ms * MS, None)), [false, false, true]);
        let hedge = hedge.with_max_attempts(1);
        assert!(!hedge.is_due_after(8 * MS, None), "there is no other");
    }

    #[test]
    fn policies_are_equal_by_what_was_set_and_what_was_learned_is_elsewhere() {
        let by_load = |share| HedgePolicy::default().with_extra_load(share).unwrap();
        assert_eq!(by_load(0.5), by_load(0.5));
        assert_ne!(by_load(0.5), by_load(0.25));
        assert_ne!(by_load(0.5), HedgePolicy::default());
        assert_eq!(by_load(0.5).with_delay(Duration::from_secs(1)), HedgePolicy::default());
    }
}
