//! All that is counted, and what asks for the rest.

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
    /// What those of others are, by name.
    pub(crate) help: Mutex<BTreeMap<String, &'static str>>,
}

/// What is counted of the calls to one target.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) target: Box<str>,
    pub(crate) methods: Arc<Table>,
}

/// Nothing that holds a lock here can panic, or waits.
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

    /// What a metric that was registered is.
    pub(crate) fn help(&self, of: &Source) -> &'static str {
        lock(&self.help).get(&of.name).copied().unwrap_or(of.help)
    }
}
