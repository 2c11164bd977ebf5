//! A limit that finds itself.

use cinchona_core::Invalid;
use std::time::Duration;

/// A limit on the calls in progress that follows what the service can do.
///
/// # Rule
///
/// A limit sheds only where calls wait for each other inside the service. That calls have become
/// slower does not say so: by Little's law more of them are in progress then, whatever the reason.
/// So it asks whether calls take longer *because* more are in progress, by two means:
///
/// * While the limit holds nobody back, by those that end: do the calls that found more in
///   progress take longer, by as much (a regression)? Do they pile up, so that fewer end than
///   begin? Then the limit becomes what the service did at `tolerance` times the baseline.
/// * While it holds somebody back, by trial: where calls take more than `tolerance` times the
///   baseline, the limit is lowered to 0.5 to 0.7. Where as many calls end as before, and
///   faster, there was a queue, and so on; where fewer end, and none faster, the service is as slow
///   by itself: the old limit holds again, and the baseline is what was measured.
///
/// The baseline is the usual latency (a geometric mean) of calls that do not wait. It follows
/// faster calls, and it is forgotten slowly while the limit is met, so that it is measured anew.
///
/// The limit grows by a quarter in each window in which it holds nobody back, up to `max`: in good
/// times there is none. While it does, and calls are fast, it grows by √limit, faster and
/// faster. Where more than half of the calls are given up before they are answered, it is halved.
/// And where it was met and nothing has ended for a second, it doubles: calls that last may hold
/// all places, and others would be quick.
///
/// It is compared with a fixed limit, TCP Vegas and Netflix's Gradient2 in [LIMITS.md].
///
/// [LIMITS.md]: https://github.com/cinchona-rs/cinchona/blob/main/crates/shed/LIMITS.md
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adaptive {
    /// The limit to begin with. Default 1000.
    pub initial: u32,
    /// It is at least this, 1 or more. Default 4.
    pub min: u32,
    /// And at most this. Default 1000.
    pub max: u32,
    /// How many times the baseline the latency may be, 1 to 10. Default 2.
    pub tolerance: f64,
    /// A window takes at least this long, 10 ms to 1 min. Default 100 ms.
    pub window: Duration,
    /// And has at least so many calls, unless it takes ten times as long. Default 30.
    pub samples: u32,
}

// === impl Adaptive ===

impl Adaptive {
    /// The same, if all values are within their ranges.
    ///
    /// # Errors
    /// With the field that is not.
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

    const MS: Duration = Duration::from_millis(1);

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
        assert!(with(|a| a.tolerance = f64::NAN).starts_with("adaptive.tolerance: NaN"));
        assert!(with(|a| a.window = MS).starts_with("adaptive.window: 1ms"));
    }
}
