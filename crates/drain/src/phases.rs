//! The phase of the shutdown, and the tasks that it wakes.

use crate::sync::{AtomicU8, Mutex, MutexGuard, Ordering};
use cinchona_plumbing::thread_number;
use futures_util::task::AtomicWaker;
use std::{
    collections::HashMap,
    sync::{Arc, PoisonError},
};
use tokio::sync::{Notify, futures::OwnedNotified};

/// The phase of a shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Serving = 0,
    /// No new call begins.
    Draining = 1,
    /// Calls are answered with `UNAVAILABLE`.
    Over = 2,
    /// Connections fail.
    Cut = 3,
}

/// The state shared by all connections and calls of a server.
#[derive(Debug)]
pub(crate) struct Shared {
    phase: AtomicU8,
    /// Waiting calls; those of one thread share a shard, so that threads do not contend.
    waiting: [Shard; SHARDS],
    connections: Mutex<Connections>,
}

/// One cache line each.
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

/// An open connection, whose task is woken when it is cut.
#[derive(Debug)]
pub(crate) struct Open {
    shared: Arc<Shared>,
    id: u64,
    pub(crate) task: Arc<AtomicWaker>,
}

const SHARDS: usize = 16;

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

    /// Advances to `phase`, never back.
    pub(crate) fn advance(&self, phase: Phase) {
        if self.phase.fetch_max(phase as u8, Ordering::AcqRel) >= phase as u8 {
            return;
        }
        for shard in &self.waiting {
            let phases = [Phase::Draining, Phase::Over, Phase::Cut];
            for reached in phases.into_iter().filter(|reached| *reached <= phase) {
                shard.of(reached).notify_waiters();
            }
        }
        if phase == Phase::Cut {
            // Woken outside the lock, which a closing connection takes.
            let open: Vec<_> = self.lock().open.values().cloned().collect();
            open.iter().for_each(|task| task.wake());
        }
    }

    /// Completes when the phase begins; read [`phase`](Self::phase) after polling it.
    pub(crate) fn wait(&self, phase: Phase) -> OwnedNotified {
        self.waiting[thread_number() % SHARDS].of(phase).clone().notified_owned()
    }

    /// Waits until that phase.
    pub(crate) async fn reached(self: Arc<Self>, phase: Phase) {
        // Created before the check, so that no later notification is missed.
        let reached = self.wait(phase);
        if self.phase() < phase {
            reached.await;
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
    /// Whether the connection was cut; otherwise the polling task is woken when it is.
    pub(crate) fn is_cut(&self) -> bool {
        self.shared.phase() == Phase::Cut
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.lock().open.remove(&self.id);
    }
}
