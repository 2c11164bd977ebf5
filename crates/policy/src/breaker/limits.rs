//! The conditions under which a circuit changes its state.

/// A run of failures: those since the last success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// So many failures open the circuit,
    pub(crate) failures: u32,
    /// once the run has lasted this many milliseconds. After [`PATIENCE`] times that, half as many
    /// do.
    pub(crate) lasting: u64,
}

/// The conditions of a change of state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) run: Option<Run>,
    /// The most probes in flight.
    pub(crate) probes: u32,
    /// How many successes close it.
    pub(crate) successes: u32,
    /// After this many milliseconds one more probe is admitted.
    pub(crate) patience: u64,
}

/// Longer runs of failures are counted as this.
pub(crate) const MOST_FAILURES: u32 = (1 << 16) - 1;
/// After this multiple of the minimum duration, half of the failures suffice.
pub(crate) const PATIENCE: u64 = 4;
/// The limit of the packed state.
const MOST_SECONDS: u64 = (1 << 30) - 1;

// === impl Run ===

impl Run {
    /// Whether so many failures, the first so many milliseconds ago, are an outage.
    #[inline]
    pub(crate) const fn is_enough(self, failures: u32, lasted: u64) -> bool {
        if failures >= self.failures {
            return lasted >= self.lasting;
        }
        let is_long = self.lasting > 0 && lasted >= self.lasting.saturating_mul(PATIENCE);
        is_long && failures >= self.failures.div_ceil(2)
    }
}

// === impl Limits ===

impl Limits {
    /// When one more probe is admitted, in seconds, if the last one was at `now`.
    #[inline]
    pub(crate) fn one_more(&self, now: u64) -> u64 {
        now.saturating_add(self.patience).div_ceil(1000).min(MOST_SECONDS)
    }
}
