//! The adaptive limit.

use crate::Invalid;
use std::time::Duration;

/// A limit on the calls in flight that adapts to the capacity of the service.
///
/// # Rule
///
/// The limit sheds only where calls queue inside the service. Higher latency alone does not show
/// that: by Little's law it raises the number in flight, whatever its cause. So the limit tests
/// whether calls take longer *because* more are in flight, in two ways:
///
/// * While the limit refuses no calls, from those that end: does the latency of calls rise with the
///   number in flight, proportionally (a regression)? Do calls pile up, so that fewer end than
///   begin? Then the limit is set to the throughput of the service times `tolerance` times the
///   baseline.
/// * While it refuses calls, by trial: where calls take more than `tolerance` times the baseline,
///   the limit is lowered to 0.5 to 0.7 of itself. If as many calls end as before, and faster,
///   there was a queue, and the next trial follows; if fewer end, and none faster, the service
///   itself is that slow: the old limit is restored, and the measured latency becomes the baseline.
///
/// The baseline is the usual latency (a geometric mean) of calls that do not queue. It follows
/// faster calls, and decays slowly while the limit is reached, so that it is measured again.
///
/// The limit grows by a quarter in each window in which it refuses no calls, up to `max`: under
/// normal load there is none. While it refuses calls and they are fast, it grows by √limit, with
/// increasing speed. If more than half of the calls are abandoned before they are answered, it is
/// halved. If it was reached and no call has ended for a second, it doubles: long calls may hold
/// all places while others would be fast.
///
/// It is compared with a fixed limit, TCP Vegas and Netflix's Gradient2 in [LIMITS.md].
///
/// [LIMITS.md]: https://github.com/cinchona-rs/cinchona/blob/main/crates/shed/LIMITS.md
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adaptive {
    /// The initial limit. Default 1000.
    pub initial: u32,
    /// The lower bound of the limit, 1 or more. Default 4.
    pub min: u32,
    /// The upper bound of the limit. Default 1000.
    pub max: u32,
    /// The tolerated latency as a multiple of the baseline, 1 to 10. Default 2.
    pub tolerance: f64,
    /// The shortest window, 10 ms to 1 min. Default 100 ms.
    pub window: Duration,
    /// The fewest calls of a window, unless it takes ten times as long. Default 30.
    pub samples: u32,
}

// === impl Adaptive ===

impl Adaptive {
    /// Checks the ranges of all values.
    ///
    /// # Errors
    /// Names the field outside its range.
    pub fn checked(self) -> Result<Self, Invalid> {
        let Self { initial, min, max, tolerance, window, .. } = self;
        if min == 0 || min > max {
            return Err(Invalid::new("adaptive.min", min, "1 to adaptive.max"));
        }
        if !(min..=max).contains(&initial) {
            return Err(Invalid::new("adaptive.initial", initial, "adaptive.min to adaptive.max"));
        }
        if !(1.0..=10.0).contains(&tolerance) {
            return Err(Invalid::new("adaptive.tolerance", tolerance, "1 to 10"));
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
            initial: 1000,
            min: 4,
            max: 1000,
            tolerance: 2.0,
            window: Duration::from_millis(100),
            samples: 30,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::concurrency::Limit;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_value_out_of_range_is_refused() {
        let with = |change: fn(&mut Adaptive)| {
            let mut settings = Adaptive::default();
            change(&mut settings);
            settings.checked().unwrap_err().to_string()
        };
        assert!(with(|a| a.min = 0).starts_with("adaptive.min: 0"));
        assert!(with(|a| a.initial = 2000).starts_with("adaptive.initial: 2000"));
        assert!(with(|a| a.tolerance = 0.5).starts_with("adaptive.tolerance: 0.5"));
        assert!(with(|a| a.tolerance = f64::NAN).starts_with("adaptive.tolerance: NaN"));
        assert!(with(|a| a.window = MS).starts_with("adaptive.window: 1ms"));
    }

    #[test]
    fn a_limit_is_taken_as_it_is_and_begins_with_its_number_but_none_is_refused() {
        let adaptive = Adaptive { min: 7, max: 7, initial: 7, ..Adaptive::default() };
        for (limit, initial) in [(Limit::Fixed(5), 5), (Limit::Adaptive(adaptive), 7)] {
            assert_eq!((limit.checked(), limit.initial()), (Ok(limit), initial));
        }
        assert_eq!(Limit::Fixed(0).checked().unwrap_err().field(), "limit");
        for (min, max) in [(0, 7), (8, 7)] {
            let refused = Limit::Adaptive(Adaptive { min, max, ..adaptive }).checked();
            assert_eq!(refused.unwrap_err().field(), "adaptive.min");
        }
    }
}
