//! Saturating arithmetic on clocks, so that `Duration::MAX` means without limit; and one reading of
//! the clock for all layers that pass a request on.

use std::{cell::Cell, time::Duration};
use tokio::time::Instant;

/// The practical infinity: 30 years, which every clock and timer can add to its time.
pub const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

thread_local! {
    /// When the request that this thread is passing on arrived at the outermost layer.
    static PASSING: Cell<Option<Instant>> = const { Cell::new(None) };
    /// What [`read`] has read since [`forget`].
    static READ: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// While the guard lives, a request is passed on from layer to layer: tower's `call` does not
/// block, and in a service that does the calls that it makes meanwhile begin too early.
#[derive(Debug)]
#[must_use = "it lasts until the request was handed on"]
pub struct Passing {
    now: Instant,
    is_outermost: bool,
}

/// When the request that this thread is passing on arrived, else now.
#[inline]
pub fn now() -> Instant {
    PASSING.get().unwrap_or_else(Instant::now)
}

/// Now, for those as well who ask for the [`last_read`] in the same poll.
#[inline]
pub fn read() -> Instant {
    let now = Instant::now();
    READ.set(Some(now));
    now
}

/// What this thread has [`read`] since it was to [`forget`] it.
#[inline]
pub fn last_read() -> Option<Instant> {
    READ.get()
}

/// From here on an earlier reading is too old.
#[inline]
pub fn forget() {
    READ.set(None);
}

/// `wait` from `now`, and at most [`FOR_EVER`] from it.
///
/// ```
/// use cinchona_policy::clock::{FOR_EVER, later};
/// use std::time::Duration;
/// use tokio::time::Instant;
///
/// let now = Instant::now();
/// assert_eq!(later(now, Duration::from_secs(1)) - now, Duration::from_secs(1));
/// assert_eq!(later(now, Duration::MAX) - now, FOR_EVER);
/// ```
#[inline]
pub fn later(now: Instant, wait: Duration) -> Instant {
    // If not even that can be added, `now` is practically infinite.
    now.checked_add(wait.min(FOR_EVER)).unwrap_or(now)
}

/// The period of a repeating timer: `each`, at least 1 ms, which is the resolution of tokio's
/// timers (so none spins), and at most [`FOR_EVER`].
#[inline]
pub fn period(each: Duration) -> Duration {
    each.clamp(Duration::from_millis(1), FOR_EVER)
}

/// `duration` times `factor`: zero if the factor is below 0 or NaN, and at most `Duration::MAX`.
#[inline]
pub fn times(duration: Duration, factor: f64) -> Duration {
    let seconds = duration.as_secs_f64() * factor;
    // Zero times infinity is NaN.
    if seconds.is_nan() || seconds <= 0.0 {
        return Duration::ZERO;
    }
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// `duration` in nanoseconds; on overflow (584 years) `u64::MAX`.
#[inline]
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// `duration` in whole milliseconds; on overflow `u64::MAX`.
#[inline]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

// === impl Passing ===

impl Passing {
    /// Begins when a layer is called. The outermost reads the clock; those that it calls without a
    /// wait in between reuse the reading.
    #[inline]
    pub fn begin() -> Self {
        if let Some(now) = PASSING.get() {
            return Self { now, is_outermost: false };
        }
        let now = Instant::now();
        PASSING.set(Some(now));
        Self { now, is_outermost: true }
    }

    /// When the request arrived.
    pub const fn now(&self) -> Instant {
        self.now
    }
}

impl Drop for Passing {
    #[inline]
    fn drop(&mut self) {
        if self.is_outermost {
            PASSING.set(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_instant_is_never_moved_back_nor_by_more_than_for_ever(waits: [Duration; 3]) {
            let mut now = Instant::now();
            for wait in waits {
                let then = later(now, wait);
                prop_assert_eq!(then - now, wait.min(FOR_EVER));
                now = then;
            }
        }

        #[test]
        fn a_product_never_overflows(duration: Duration, factor: f64) {
            let product = times(duration, factor);
            if factor.is_nan() || factor <= 0.0 {
                prop_assert_eq!(product, Duration::ZERO);
            } else if factor <= 1.0 {
                // A double has 53 bits.
                prop_assert!(product.as_secs_f64() <= duration.as_secs_f64());
            }
        }
    }

    #[test]
    fn the_ends_of_the_range_stay_in_it() {
        let forms = [f64::NAN, -1.0, 0.0, f64::MIN_POSITIVE, 1.0, 1e308, f64::MAX, f64::INFINITY];
        assert!(forms.iter().all(|factor| times(Duration::ZERO, *factor).is_zero()));
        let longest = forms.map(|factor| times(Duration::MAX, factor) == Duration::MAX);
        assert_eq!(longest, [false, false, false, false, true, true, true, true]);
        assert_eq!((nanos(Duration::MAX), millis(Duration::MAX)), (u64::MAX, u64::MAX));
    }

    #[test]
    fn a_timer_repeats_after_a_millisecond_at_the_soonest_and_within_thirty_years() {
        let year = Duration::from_secs(8766 * 3600);
        assert!(FOR_EVER > year * 299 / 10 && FOR_EVER < year * 301 / 10);
        let [millisecond, second] = [1, 1000].map(Duration::from_millis);
        for (each, expected) in [
            (Duration::ZERO, millisecond),
            (millisecond, millisecond),
            (second, second),
            (Duration::MAX, FOR_EVER),
        ] {
            assert_eq!(period(each), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn layers_that_pass_a_request_on_share_one_time_and_later_ones_do_not() {
        let outer = Passing::begin();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(Passing::begin().now(), outer.now());
        assert_eq!(Passing::begin().now(), outer.now(), "the inner one has ended nothing");
        let began = outer.now();
        drop(outer);
        assert_eq!(Passing::begin().now() - began, Duration::from_secs(1));
        std::panic::catch_unwind(|| {
            let _passing = Passing::begin();
            panic!("by a service");
        })
        .unwrap_err();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(Passing::begin().now() - began, Duration::from_secs(2));
    }
}
