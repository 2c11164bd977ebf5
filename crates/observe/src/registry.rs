//! The registry of counts, and of the sources of other metrics.

use crate::{
    callback,
    known::Known,
    samples::Samples,
    series::Table,
    source::Source,
    sources::{Past, Sources},
};
use cinchona_core::Invalid;
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
    pub(crate) others: Mutex<Sources>,
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

    /// The metrics of layers and closures, and what has been counted by those that are gone.
    pub(crate) fn others(&self) -> (Vec<Source>, BTreeMap<String, Past>) {
        let mut others = lock(&self.others);
        (others.live().to_vec(), others.past())
    }

    /// Adds all of `new`, or nothing if one of them is refused.
    pub(crate) fn add(&self, new: Vec<Source>, owner: u64) -> Result<(), Invalid> {
        let all = lock(&self.others).live().to_vec();
        let is_replaced = |old: &&Source| {
            old.owners.has(owner) && new.iter().any(|source| source.has_the_labels_of(old))
        };
        self.read(all.iter().filter(is_replaced));
        let replaced = lock(&self.others).add(new, owner)?;
        drop(replaced);
        Ok(())
    }

    /// `owner` is gone.
    pub(crate) fn end(&self, owner: u64) {
        let all = lock(&self.others).live().to_vec();
        self.read(all.iter().filter(|source| source.owners.is_only(owner)));
        let gone = lock(&self.others).end(owner);
        drop(gone);
    }

    /// Reads the counters for the last time: what they have counted stays.
    fn read<'a>(&self, sources: impl Iterator<Item = &'a Source>) {
        for counter in sources.filter(|source| source.is_counter) {
            _ = self.ask(counter);
        }
    }

    /// The samples of a source; of a layer that is gone, what it had counted when it was last read.
    pub(crate) fn ask(&self, source: &Source) -> Option<Samples> {
        let ask = || {
            let mut samples = Samples::default();
            (source.ask)(&mut samples).then_some(samples)
        };
        let Some(samples) = callback::call("the function of a metric", ask)? else {
            let gone = lock(&self.others).forget(source);
            drop(gone);
            return source.is_counter.then(|| source.counted.samples());
        };
        if source.is_counter {
            lock(&self.others).saw(source, &samples);
        }
        Some(samples)
    }

    /// The description of a registered metric: the application's, or its own.
    pub(crate) fn help(&self, name: &str, own: &'static str) -> &'static str {
        lock(&self.help).get(name).copied().unwrap_or(own)
    }
}
