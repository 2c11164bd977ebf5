//! How long a service usually takes to answer, to tell an impatient caller from a slow server.

use crate::sync::{AtomicU64, Ordering};
use std::time::Duration;

/// How long the head of a response usually takes, in nanoseconds; 0 while nobody knows.
///
/// Rule: an answer that took more than 5/4 of it moves it half the way, one that took less than
/// half of it an eighth of the way; any other does not, so that threads which share it write
/// seldom. Of fast and slow answers it comes closer to the slow ones: a caller with time for the
/// fast ones only has too little.
#[derive(Debug, Default)]
pub(crate) struct Usual(AtomicU64);

// === impl Usual ===

impl Usual {
    pub(crate) fn get(&self) -> Option<Duration> {
        let usual = self.0.load(Ordering::Relaxed);
        (usual > 0).then(|| Duration::from_nanos(usual))
    }

    /// An answer took so many nanoseconds. Threads that say so at once may miss each other's.
    pub(crate) fn learn(&self, took: u64) {
        let (took, usual) = (took.max(1), self.0.load(Ordering::Relaxed));
        let learned = if usual == 0 {
            took
        } else if took > usual.saturating_add(usual / 4) {
            usual + (took - usual).div_ceil(2)
        } else if took < usual / 2 {
            usual - (usual - took) / 8
        } else {
            return;
        };
        self.0.store(learned, Ordering::Relaxed);
    }
}
