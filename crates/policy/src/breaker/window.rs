//! The outcomes of the latest calls: sliding windows by time and by count.
//!
//! A successful call is one addition in a cell of its thread. The window is evaluated when a call
//! fails: only that can raise a rate.

mod parts;
mod slices;

use crate::{
    shard,
    sync::{AtomicU64, Ordering},
};
use slices::{Slices, Sums, read};
use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// The window of the rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Window {
    /// The calls that ended within this time, to within 1/64 of it; 10 ms to 1 h.
    Time(Duration),
    /// The last calls, this many; 1 to 100,000. It takes 16 bytes for each failed or slow call
    /// among them.
    Count(u32),
}

/// The content of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) calls: u64,
    pub(crate) failed: u64,
    pub(crate) slow: u64,
}

/// A sliding window over calls.
#[derive(Debug)]
pub(crate) struct Sliding {
    shards: Box<[Shard]>,
    kind: Kind,
}

/// The sums of some threads, on their own cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard([AtomicU64; 4]);

#[derive(Debug)]
enum Kind {
    Time(Box<Slices>),
    Count { size: u64, bad: Mutex<Bad> },
}

/// The failed and slow calls among the latest. Only such calls take its lock.
#[derive(Debug, Default)]
struct Bad {
    /// The sums when the window was last cleared.
    base: u64,
    /// The number of each call, and its outcome.
    calls: VecDeque<(u64, u8)>,
    failed: u64,
    slow: u64,
}

const FAILED: u8 = 1;
const SLOW: u8 = 2;

// === impl Sliding ===

impl Sliding {
    pub(crate) fn new(window: Window) -> Self {
        let kind = match window {
            Window::Time(window) => Kind::Time(Box::new(Slices::new(window))),
            Window::Count(size) => Kind::Count { size: size.into(), bad: Mutex::default() },
        };
        Self { shards: (0..shard::COUNT).map(|_| Shard::default()).collect(), kind }
    }

    /// Counts a call that ended at `at` nanoseconds; returns the content of the window, if it
    /// failed or was slow.
    pub(crate) fn record(
        &self,
        failed: bool,
        slow: bool,
        at: impl FnOnce() -> u64,
    ) -> Option<Counts> {
        if let Kind::Time(slices) = &self.kind {
            slices.move_to(at(), || self.sums());
        }
        let what = u8::from(failed) * FAILED + u8::from(slow) * SLOW;
        let shard = &self.shards[shard::current()];
        shard.0[usize::from(what)].fetch_add(1, Ordering::Relaxed);
        (what != 0).then(|| self.counts(what))
    }

    /// The content of the window at `at` nanoseconds; changes nothing.
    pub(crate) fn read(&self, at: u64) -> Counts {
        match &self.kind {
            Kind::Time(slices) => {
                slices.move_to(at, || self.sums());
                self.counts(0)
            }
            Kind::Count { size, bad } => {
                let bad = bad.lock().unwrap_or_else(PoisonError::into_inner);
                let number = self.sums().iter().sum::<u64>().saturating_sub(bad.base);
                bad.read(number, *size)
            }
        }
    }

    /// Begins anew.
    pub(crate) fn clear(&self) {
        let sums = self.sums();
        match &self.kind {
            Kind::Time(slices) => slices.clear(sums),
            Kind::Count { bad, .. } => {
                let base = sums.iter().sum();
                *bad.lock().unwrap_or_else(PoisonError::into_inner) =
                    Bad { base, ..Bad::default() };
            }
        }
    }

    /// The content of the window, with a bad call that has just been added.
    fn counts(&self, what: u8) -> Counts {
        match &self.kind {
            Kind::Time(slices) => {
                let (sums, start) = (self.sums(), slices.start());
                // Concurrent counts may be visible in one and not in the other.
                let [ok, failed, slow, both] =
                    std::array::from_fn(|what| sums[what].saturating_sub(start[what]));
                let calls = ok + failed + slow + both;
                Counts { calls, failed: failed + both, slow: slow + both }
            }
            Kind::Count { size, bad } => {
                let mut bad = bad.lock().unwrap_or_else(PoisonError::into_inner);
                let number = self.sums().iter().sum::<u64>().saturating_sub(bad.base);
                bad.push(number, what, *size)
            }
        }
    }

    fn sums(&self) -> Sums {
        self.shards
            .iter()
            .map(|shard| read(&shard.0))
            .fold([0; 4], |sums, more| std::array::from_fn(|what| sums[what] + more[what]))
    }
}

// === impl Bad ===

impl Bad {
    fn push(&mut self, number: u64, what: u8, size: u64) -> Counts {
        self.calls.push_back((number, what));
        self.add(what, 1);
        while let Some(&(first, what)) = self.calls.front()
            && first + size <= number
        {
            self.calls.pop_front();
            self.add(what, -1);
        }
        Counts { calls: number.min(size), failed: self.failed, slow: self.slow }
    }

    /// The same, after so many calls: those that have left the window since are still in the list.
    fn read(&self, number: u64, size: u64) -> Counts {
        let inside = || self.calls.iter().filter(|(call, _)| call + size > number);
        let count = |bit: u8| inside().filter(|(_, what)| what & bit != 0).count() as u64;
        Counts { calls: number.min(size), failed: count(FAILED), slow: count(SLOW) }
    }

    fn add(&mut self, what: u8, sign: i64) {
        let add = |sum: u64, is: bool| sum.saturating_add_signed(if is { sign } else { 0 });
        self.failed = add(self.failed, what & FAILED != 0);
        self.slow = add(self.slow, what & SLOW != 0);
    }
}

#[cfg(test)]
mod tests {
    use super::{parts::SLICES, *};
    use proptest::prelude::*;

    /// All calls, evaluated from the first each time.
    #[derive(Default)]
    struct Naive(Vec<(u64, bool, bool)>);

    impl Naive {
        fn counts(&self, window: Window, at: u64) -> Counts {
            let is_in = |index: usize, ended: u64| match window {
                Window::Count(size) => index + size as usize >= self.0.len(),
                Window::Time(time) => {
                    let slice = time.as_nanos() as u64 / SLICES;
                    at / slice - ended / slice < SLICES
                }
            };
            let inside: Vec<_> =
                self.0.iter().enumerate().filter(|(index, call)| is_in(*index, call.0)).collect();
            let count = |is: fn(&(u64, bool, bool)) -> bool| {
                inside.iter().filter(|(_, call)| is(call)).count() as u64
            };
            Counts {
                calls: inside.len() as u64,
                failed: count(|call| call.1),
                slow: count(|call| call.2),
            }
        }
    }

    fn agrees(window: Window, calls: Vec<(u64, bool, bool, bool)>) {
        let (sliding, mut naive, mut at) = (Sliding::new(window), Naive::default(), 0);
        for (pause, failed, slow, clear) in calls {
            at += pause;
            if clear && pause % 8 == 0 {
                sliding.clear();
                naive.0.clear();
            }
            naive.0.push((at, failed, slow));
            if let Some(counts) = sliding.record(failed, slow, || at) {
                assert_eq!(counts, naive.counts(window, at), "at {at}");
            } else {
                assert!(!failed && !slow);
            }
            assert_eq!(sliding.read(at), naive.counts(window, at), "read at {at}");
        }
    }

    fn calls(longest: u64) -> impl Strategy<Value = Vec<(u64, bool, bool, bool)>> {
        let pause = prop_oneof![4 => 0..longest / 50, 1 => 0..longest, 1 => Just(0)];
        proptest::collection::vec((pause, any::<bool>(), any::<bool>(), any::<bool>()), 0..300)
    }

    proptest! {
        #[test]
        fn a_window_of_time_equals_the_naive_one(calls in calls(30_000_000)) {
            agrees(Window::Time(Duration::from_millis(10)), calls);
        }

        #[test]
        fn a_window_of_count_equals_the_naive_one(size in 1..100u32, calls in calls(1000)) {
            agrees(Window::Count(size), calls);
        }
    }

    #[test]
    fn no_call_is_lost_between_threads() {
        for window in [Window::Time(Duration::from_secs(1)), Window::Count(100_000)] {
            let sliding = Sliding::new(window);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for at in 0..1000 {
                            sliding.record(at % 2 == 0, false, || at);
                        }
                    });
                }
            });
            let counts = sliding.record(true, true, || 1000);
            assert_eq!(counts, Some(Counts { calls: 4001, failed: 2001, slow: 1 }), "{window:?}");
        }
    }
}
