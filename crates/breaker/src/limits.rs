//! What makes a circuit change its state.

/// A run of failures: those since the last success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// So many open the circuit,
    pub(crate) failures: u32,
    /// once the run has lasted so many milliseconds. After [`PATIENCE`] times that, half as many
    /// do.
    pub(crate) lasting: u64,
}

/// What makes a state change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) run: Option<Run>,
    /// So many probes may be under way.
    pub(crate) probes: u32,
    /// So many that succeed close it.
    pub(crate) successes: u32,
    /// After so many milliseconds one more probe is let through.
    pub(crate) patience: u64,
}

/// Runs of failures that are longer than this are counted alike.
pub(crate) const MOST_FAILURES: u32 = (1 << 16) - 1;
/// How many times as long as a run of failures must last it lasts until half of them suffice.
pub(crate) const PATIENCE: u64 = 4;
/// What the state has room for.
const MOST_SECONDS: u64 = (1 << 30) - 1;

// === impl Run ===

impl Run {
    /// Whether so many failures, the first so many milliseconds ago, are an outage.
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
    /// When one more probe is let through, in seconds, where the last one was at `now`.
    pub(crate) fn one_more(&self, now: u64) -> u64 {
        now.saturating_add(self.patience).div_ceil(1000).min(MOST_SECONDS)
    }
}
