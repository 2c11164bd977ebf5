//! How long a service usually takes to answer, to tell an impatient caller from a slow server.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_is_between_the_fast_and_the_slow_and_follows_a_change() {
        let usual = Usual::default();
        assert_eq!(usual.get(), None);
        let after = |answers: &mut dyn Iterator<Item = u64>| {
            answers.for_each(|millis| usual.learn(millis * 1_000_000));
            usual.get().unwrap().as_millis()
        };
        assert_eq!(after(&mut [5; 1].into_iter()), 5);
        // Nothing is written where nothing changes.
        assert_eq!(after(&mut [4, 6, 5, 3].into_iter().cycle().take(100)), 5);
        assert!((240..=300).contains(&after(&mut [300; 4].into_iter())));
        assert!((5..=10).contains(&after(&mut [5; 60].into_iter())));
        let mixed = after(&mut [1, 1, 1, 1, 1, 1, 1, 1, 1, 500].into_iter().cycle().take(1000));
        assert!((100..=300).contains(&mixed), "{mixed}");
    }

    proptest! {
        #[test]
        fn it_stays_between_the_least_and_the_most(
            answers in proptest::collection::vec(any::<u64>(), 1..50),
        ) {
            let usual = Usual::default();
            answers.iter().for_each(|took| usual.learn(*took));
            let usual = usual.get().unwrap().as_nanos() as u64;
            prop_assert!(usual >= (*answers.iter().min().unwrap()).max(1));
            prop_assert!(usual <= (*answers.iter().max().unwrap()).max(1));
        }
    }
}
