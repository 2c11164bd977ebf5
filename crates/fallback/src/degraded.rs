//! The methods that are currently given second answers; a change is logged once.

use crate::answer::Source;
use std::{
    collections::HashSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};
use tonic::Code;

/// The paths of the methods whose last eligible call was not answered by the service itself.
#[derive(Debug, Default)]
pub(crate) struct Degraded {
    /// How many there are, so that no lock is taken while there are none.
    many: AtomicUsize,
    paths: Mutex<HashSet<Box<str>>>,
}

// === impl Degraded ===

impl Degraded {
    /// A call failed with `failed` and was given a second answer.
    pub(crate) fn enter(&self, path: &str, source: Source, failed: Code) {
        let (degraded, age) = (source.name(), source.age());
        let code = cinchona_plumbing::code::name(failed);
        tracing::debug!(rpc.method = path, degraded, age, code, "gave a second answer");
        if self.change(|paths| !paths.contains(path) && paths.insert(path.into())) {
            tracing::info!(rpc.method = path, degraded, age, code, "live answers fail: degraded");
        }
    }

    /// The service itself has answered.
    pub(crate) fn leave(&self, path: &str) {
        if self.many.load(Ordering::Relaxed) > 0 && self.change(|paths| paths.remove(path)) {
            tracing::info!(rpc.method = path, "live answers again: recovered");
        }
    }

    fn change(&self, change: impl FnOnce(&mut HashSet<Box<str>>) -> bool) -> bool {
        let mut paths = self.lock();
        let changed = change(&mut paths);
        self.many.store(paths.len(), Ordering::Relaxed);
        changed
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Box<str>>> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
