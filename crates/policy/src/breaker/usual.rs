//! The usual response time of a service, which distinguishes an impatient caller from a slow
//! server.

use crate::sync::{AtomicU64, Ordering};
use std::time::Duration;

/// The usual time to the head of a response, in nanoseconds; 0 while unknown.
///
/// Rule: an answer that took more than 5/4 of it moves it half the way, one that took less than
/// half of it an eighth of the way; any other does not, so that threads which share it write
/// seldom. Of fast and slow answers it comes closer to the slow ones: a caller with time for only
/// the fast ones has too little.
#[derive(Debug, Default)]
pub struct Usual(AtomicU64);

// === impl Usual ===

impl Usual {
    /// It, once an answer has been timed.
    #[inline]
    pub fn get(&self) -> Option<Duration> {
        let usual = self.0.load(Ordering::Relaxed);
        (usual > 0).then(|| Duration::from_nanos(usual))
    }

    /// An answer took so many nanoseconds. Of concurrent calls some may be lost.
    #[inline]
    pub fn learn(&self, took: u64) {
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
