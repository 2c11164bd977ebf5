//! The registry of counts, and of the sources of other metrics.

use crate::{known::Known, series::Table, source::Source};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) known: Arc<Known>,
    /// By target.
    pub(crate) clients: Mutex<Vec<Arc<Client>>>,
    pub(crate) server: OnceLock<Arc<Table>>,
    pub(crate) others: Mutex<Vec<Source>>,
    /// The descriptions of registered metrics, by name.
    pub(crate) help: Mutex<BTreeMap<String, &'static str>>,
}

/// The counts of the calls to one target.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) target: Box<str>,
    pub(crate) methods: Arc<Table>,
}

/// Code that holds a lock here cannot panic, and does not wait.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Registry ===

impl Registry {
    pub(crate) fn clients(&self) -> Vec<Arc<Client>> {
        lock(&self.clients).clone()
    }

    pub(crate) fn served(&self) -> Option<&Table> {
        self.server.get().map(|table| &**table)
    }

    pub(crate) fn others(&self) -> Vec<Source> {
        lock(&self.others).clone()
    }

    pub(crate) fn forget(&self, gone: &Source) {
        lock(&self.others).retain(|other| !other.is_same(gone));
    }

    /// The description of a registered metric.
    pub(crate) fn help(&self, of: &Source) -> &'static str {
        lock(&self.help).get(&of.name).copied().unwrap_or(of.help)
    }
}
