//! Which metrics are registered, by whom, and what has been counted by those that are gone.

use crate::{
    counts::{Counted, Counts},
    samples::{Labels, Samples},
    source::Source,
};
use cinchona_core::Invalid;
use std::{
    any::Any,
    collections::BTreeMap,
    sync::{Arc, Weak},
};

/// The metrics of layers and closures.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    live: Vec<Source>,
    ended: Vec<Ended>,
    /// By name.
    past: BTreeMap<String, Past>,
}

/// A counter without an owner, whose layer is elsewhere still: registered again, it counts on.
#[derive(Debug)]
struct Ended {
    name: String,
    labels: Option<Labels>,
    identity: Weak<dyn Any + Send + Sync>,
    counted: Arc<Counted>,
}

/// What has been counted by layers that are gone.
#[derive(Clone, Debug)]
pub(crate) struct Past {
    pub(crate) help: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) counts: Counts,
}

/// The application, as an owner; it never ends.
pub(crate) const APPLICATION: u64 = 0;

// === impl Sources ===

impl Sources {
    /// All that have an owner.
    pub(crate) fn live(&self) -> &[Source] {
        &self.live
    }

    /// What has been counted by those that are gone.
    pub(crate) fn past(&mut self) -> BTreeMap<String, Past> {
        self.settle();
        let mut past = self.past.clone();
        for Ended { name, counted, .. } in &self.ended {
            if let Some(past) = past.get_mut(name) {
                past.counts.add(&counted.lock());
            }
        }
        past.retain(|_, past| !past.counts.is_empty());
        past
    }

    /// Adds all of `new` for `owner`, or nothing if one of them is refused. Returns those that they
    /// replace, which are dropped without the lock.
    pub(crate) fn add(&mut self, new: Vec<Source>, owner: u64) -> Result<Vec<Source>, Invalid> {
        new.iter().try_for_each(|source| self.fits(source, owner))?;
        let mut replaced = Vec::new();
        for mut source in new {
            if let Some(known) = self.live.iter_mut().find(|other| source.is_again(other)) {
                known.owners.add(owner);
                continue;
            }
            let before =
                |other: &Source| other.owners.has(owner) && source.has_the_labels_of(other);
            if let Some(at) = self.live.iter().position(before) {
                // Where nothing says that it is another layer, it is the same, set differently.
                let is_other = source.identity.is_some() && self.live[at].identity.is_some();
                replaced.extend(self.leave(at, owner, is_other));
            }
            if let Some(at) = self.ended.iter().position(|ended| ended.is(&source)) {
                source.counted = self.ended.swap_remove(at).counted;
            }
            source.owners.add(owner);
            self.live.push(source);
        }
        Ok(replaced)
    }

    fn fits(&self, source: &Source, owner: u64) -> Result<(), Invalid> {
        let is_replaced =
            |other: &Source| other.owners.is_only(owner) && source.has_the_labels_of(other);
        self.live.iter().try_for_each(|other| source.fits(other, is_replaced(other)))?;
        self.past.iter().try_for_each(|(name, past)| source.continues(name, past.unit))
    }

    /// `owner` is gone. Returns what nobody else owns, which is dropped without the lock.
    pub(crate) fn end(&mut self, owner: u64) -> Vec<Source> {
        let mut gone = Vec::new();
        while let Some(at) = self.live.iter().position(|source| source.owners.has(owner)) {
            gone.extend(self.leave(at, owner, true));
        }
        gone
    }

    /// The layer itself is gone.
    pub(crate) fn forget(&mut self, gone: &Source) -> Option<Source> {
        let at = self.live.iter().position(|source| source.is_same(gone))?;
        Some(self.retire(at, true))
    }

    /// A counter was read.
    pub(crate) fn saw(&mut self, source: &Source, samples: &Samples) {
        let grown = source.counted.lock().raise(samples);
        let is_its = |other: &Arc<Counted>| Arc::ptr_eq(other, &source.counted);
        let is_kept = self.live.iter().any(|other| is_its(&other.counted))
            || self.ended.iter().any(|ended| is_its(&ended.counted));
        // It has counted on after its owner had gone.
        if let (false, Some(past)) = (is_kept, self.past.get_mut(&source.name)) {
            past.counts.add(&grown);
        }
    }

    fn leave(&mut self, at: usize, owner: u64, counts: bool) -> Option<Source> {
        let owners = &mut self.live[at].owners;
        owners.remove(owner);
        owners.is_empty().then(|| self.retire(at, counts))
    }

    /// Removes a source, of which the counts stay if they are wanted.
    fn retire(&mut self, at: usize, counts: bool) -> Source {
        let source = self.live.remove(at);
        if source.is_counter && counts {
            let Source { name, help, unit, labels, identity, counted, .. } = source.clone();
            let new = || Past { help, unit, counts: Counts::default() };
            let past = self.past.entry(name.clone()).or_insert_with(new);
            match identity.filter(|layer| layer.strong_count() > 0) {
                Some(identity) => self.ended.push(Ended { name, labels, identity, counted }),
                None => past.counts.add(&counted.lock()),
            }
        }
        source
    }

    /// What can not be registered again is a part of the past.
    fn settle(&mut self) {
        let past = &mut self.past;
        self.ended.retain(|Ended { name, identity, counted, .. }| {
            let is_there = identity.strong_count() > 0;
            if let (false, Some(past)) = (is_there, past.get_mut(name)) {
                past.counts.add(&counted.lock());
            }
            is_there
        });
    }
}

// === impl Ended ===

impl Ended {
    fn is(&self, source: &Source) -> bool {
        let is_its = |identity| Weak::ptr_eq(identity, &self.identity);
        self.name == source.name
            && self.labels == source.labels
            && source.identity.as_ref().is_some_and(is_its)
    }
}
