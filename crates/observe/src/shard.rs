//! Counters with a shard per thread: the only writer of a number needs no locked instruction, and
//! two writers to one cache line would wait for each other.

mod slots;

pub(crate) use slots::{Count, Writer};
use slots::{OWN, Slots};
use std::sync::{OnceLock, atomic::AtomicU64};

const COUNT: usize = OWN + 1;

static SLOTS: Slots = Slots::new(AtomicU64::new(0));

thread_local! {
    static SLOT: Slot = Slot::take();
}

/// The shard of a thread, for its lifetime.
struct Slot(usize);

/// A value per thread, created when the thread first needs it.
#[derive(Debug)]
pub(crate) struct Sharded<T>([OnceLock<Box<Lines<T>>>; COUNT]);

/// One cache line each.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Lines<T>(T);

// === impl Slot ===

impl Slot {
    fn take() -> Self {
        Self(SLOTS.take())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        SLOTS.give_back(self.0);
    }
}

// === impl Sharded ===

impl<T: Default> Sharded<T> {
    /// The value of this thread.
    #[inline]
    pub(crate) fn own(&self) -> (&T, Writer) {
        // A thread that is exiting has given its shard back.
        let slot = SLOT.try_with(|slot| slot.0).unwrap_or(OWN);
        (&self.0[slot].get_or_init(Box::default).0, Writer::of(slot))
    }

    /// All values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> + Clone {
        self.0.iter().filter_map(|shard| Some(&shard.get()?.0))
    }
}

impl<T> Default for Sharded<T> {
    fn default() -> Self {
        Self([const { OnceLock::new() }; COUNT])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Barrier, thread};

    fn sum(sharded: &Sharded<Count>) -> u64 {
        sharded.iter().map(Count::get).sum()
    }

    #[test]
    fn no_count_is_lost_with_any_number_of_threads() {
        // More than have their own shard.
        let (sharded, all) = (Sharded::<Count>::default(), Barrier::new(100));
        thread::scope(|scope| {
            for _ in 0..100 {
                scope.spawn(|| {
                    all.wait();
                    for _ in 0..1_000 {
                        let (count, writer) = sharded.own();
                        count.add(1, writer);
                    }
                    all.wait();
                });
            }
        });
        assert_eq!(sum(&sharded), 100_000);
    }

    #[test]
    fn later_threads_continue_the_counts_of_earlier_ones() {
        let sharded = Sharded::<Count>::default();
        for _ in 0..200 {
            thread::scope(|scope| {
                scope.spawn(|| {
                    let (count, writer) = sharded.own();
                    count.add(1, writer);
                });
            });
        }
        assert_eq!(sum(&sharded), 200);
        assert!(sharded.iter().count() < COUNT, "shards are given back");
    }
}
