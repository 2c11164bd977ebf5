//! How far the end has come, and which tasks it wakes.

use crate::sync::{AtomicU8, Mutex, MutexGuard, Ordering};
use futures_util::task::AtomicWaker;
use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, atomic::AtomicUsize},
};
use tokio::sync::{Notify, futures::OwnedNotified};

/// What is done about what has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Serving = 0,
    /// Nothing new begins.
    Draining = 1,
    /// Calls are answered with `UNAVAILABLE`.
    Over = 2,
    /// Connections fail.
    Cut = 3,
}

/// What everything of a server looks at.
#[derive(Debug)]
pub(crate) struct Shared {
    phase: AtomicU8,
    /// Calls that wait for something; those of one thread share one, so that threads do not meet.
    waiting: [Shard; SHARDS],
    connections: Mutex<Connections>,
}

/// Whole cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    draining: Arc<Notify>,
    over: Arc<Notify>,
    cut: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Connections {
    next: u64,
    open: HashMap<u64, Arc<AtomicWaker>>,
}

/// A connection as long as it is open: whose task is woken when it is cut.
#[derive(Debug)]
pub(crate) struct Open {
    shared: Arc<Shared>,
    id: u64,
    pub(crate) task: Arc<AtomicWaker>,
}

const SHARDS: usize = 16;

thread_local! {
    static SHARD: usize = {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS
    };
}

// === impl Shared ===

impl Shared {
    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Serving,
            1 => Phase::Draining,
            2 => Phase::Over,
            _ => Phase::Cut,
        }
    }

    /// Goes on to `phase`, and never back.
    pub(crate) fn advance(&self, phase: Phase) {
        if self.phase.fetch_max(phase as u8, Ordering::AcqRel) >= phase as u8 {
            return;
        }
        for shard in &self.waiting {
            let told = [Phase::Draining, Phase::Over, Phase::Cut];
            for told in told.into_iter().filter(|told| *told <= phase) {
                shard.of(told).notify_waiters();
            }
        }
        if phase == Phase::Cut {
            // Woken outside the lock, which is taken by a connection that ends.
            let open: Vec<_> = self.lock().open.values().cloned().collect();
            open.iter().for_each(|task| task.wake());
        }
    }

    /// Ends when the phase does; look at [`phase`](Self::phase) once it was polled.
    pub(crate) fn wait(&self, phase: Phase) -> OwnedNotified {
        // A thread that is ending has no number any more.
        let shard = SHARD.try_with(|shard| *shard).unwrap_or(0);
        self.waiting[shard].of(phase).clone().notified_owned()
    }

    /// Waits until that phase.
    pub(crate) async fn reached(self: Arc<Self>, phase: Phase) {
        // Made before the look: it is told of all that comes after.
        let told = self.wait(phase);
        if self.phase() < phase {
            told.await;
        }
    }

    pub(crate) fn open(self: &Arc<Self>) -> Open {
        let task = Arc::new(AtomicWaker::new());
        let mut connections = self.lock();
        let id = connections.next;
        connections.next += 1;
        connections.open.insert(id, task.clone());
        drop(connections);
        Open { shared: self.clone(), id, task }
    }

    pub(crate) fn connections(&self) -> usize {
        self.lock().open.len()
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Shared {
    fn default() -> Self {
        let waiting = std::array::from_fn(|_| Shard::default());
        Self { phase: AtomicU8::new(0), waiting, connections: Mutex::default() }
    }
}

// === impl Shard ===

impl Shard {
    fn of(&self, phase: Phase) -> &Arc<Notify> {
        match phase {
            Phase::Serving | Phase::Draining => &self.draining,
            Phase::Over => &self.over,
            Phase::Cut => &self.cut,
        }
    }
}

// === impl Open ===

impl Open {
    /// Whether the connection was cut; the task that asks is woken when it is.
    pub(crate) fn is_cut(&self) -> bool {
        self.shared.phase() == Phase::Cut
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.lock().open.remove(&self.id);
    }
}
