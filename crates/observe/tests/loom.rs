//! Every interleaving of two or three threads, by a model checker, over the sources themselves.
#![allow(missing_docs, dead_code, unreachable_pub)]

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
}

#[path = "../src/shard/slots.rs"]
mod slots;

use loom::{model::Builder, sync::Arc, thread};
use slots::{Count, OWN, Slots, Writer};
use sync::AtomicU64;

/// All interleavings with at most so many preemptions.
fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(check);
}

/// The last two shards and the shared one, with their counts.
struct Shards {
    slots: Slots,
    counts: [Count; 3],
}

impl Shards {
    fn new() -> Arc<Self> {
        let slots = Slots::new(AtomicU64::new(u64::MAX >> 2));
        Arc::new(Self { slots, counts: Default::default() })
    }

    /// A thread that counts and exits.
    fn count(&self) -> usize {
        let slot = self.slots.take();
        self.counts[slot + 2 - OWN].add(1, Writer::of(slot));
        self.slots.give_back(slot);
        slot
    }

    fn sum(&self) -> u64 {
        self.counts.iter().map(Count::get).sum()
    }
}

#[test]
fn a_shard_that_a_thread_has_left_keeps_its_count_for_the_next() {
    model(|| {
        let shards = Shards::new();
        let threads = [(); 2].map(|()| {
            let shards = shards.clone();
            thread::spawn(move || shards.count())
        });
        shards.count();
        threads.into_iter().for_each(|thread| _ = thread.join().expect("it ends"));
        assert_eq!(shards.sum(), 3);
    });
}

#[test]
fn two_threads_never_have_the_same_shard_except_the_shared_one() {
    model(|| {
        let shards = Shards::new();
        let threads = [(); 2].map(|()| {
            let shards = shards.clone();
            thread::spawn(move || shards.slots.take())
        });
        let own = shards.slots.take();
        let [first, second] = threads.map(|thread| thread.join().expect("it ends"));
        let mut all = [own, first, second];
        all.sort_unstable();
        assert_eq!(all, [OWN - 2, OWN - 1, OWN]);
    });
}
