//! State that is written often is sharded by thread, as threads that write to one cache line wait
//! for each other.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

pub(crate) const COUNT: usize = 8;

thread_local! {
    static NUMBER: usize = {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        THREADS.fetch_add(1, Ordering::Relaxed)
    };
}

/// The number of this thread: they are numbered from 0, as they ask.
#[inline]
pub fn thread_number() -> usize {
    // A thread that is exiting may have no number any more.
    NUMBER.try_with(|number| *number).unwrap_or(0)
}

/// The number of this thread's shard, below [`COUNT`].
#[inline]
pub(crate) fn current() -> usize {
    thread_number() % COUNT
}

/// A shared value with a reference count per shard.
#[derive(Debug)]
pub struct Shared<T>([Arc<Counted<T>>; COUNT]);

/// A reference counted on the cache line of the thread that took it.
#[derive(Debug)]
pub struct Ref<T>(Arc<Counted<T>>);

/// The reference count is in the same cache line.
#[derive(Debug)]
#[repr(align(128))]
struct Counted<T>(T);

// === impl Shared ===

impl<T: Clone> Shared<T> {
    /// All are clones of `value`.
    pub fn new(value: T) -> Self {
        Self(std::array::from_fn(|_| Arc::new(Counted(value.clone()))))
    }

    /// The value.
    #[inline]
    pub fn get(&self) -> &T {
        &self.0[0].0
    }

    /// A reference on the cache line of this thread.
    #[inline]
    pub fn take(&self) -> Ref<T> {
        Ref(self.0[current()].clone())
    }
}

impl<T> Deref for Ref<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0.0
    }
}
