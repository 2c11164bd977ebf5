//! What a counter had counted when it was last read.

use crate::samples::{Key, Labels, Samples, key};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The counts of a source when it was last read.
#[derive(Debug, Default)]
pub(crate) struct Counted(Mutex<Counts>);

/// Counts by their labels.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts(BTreeMap<Key, (Labels, f64)>);

// === impl Counted ===

impl Counted {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As they were when they were last read.
    pub(crate) fn samples(&self) -> Samples {
        Samples(self.lock().0.values().cloned().collect())
    }
}

// === impl Counts ===

impl Counts {
    /// Adds those that are not 0.
    pub(crate) fn add(&mut self, other: &Self) {
        for (key, (labels, value)) in other.0.iter().filter(|(_, (_, value))| *value > 0.0) {
            let sum = self.0.entry(key.clone()).or_insert_with(|| (labels.clone(), 0.0));
            sum.1 += value;
        }
    }

    /// Takes what was read, where it has grown: others may have read later, and were faster.
    /// Returns by how much.
    pub(crate) fn raise(&mut self, samples: &Samples) -> Self {
        let (mut read, mut grown) = (Self::default(), Self::default());
        for (labels, value) in &samples.0 {
            let key = key(labels);
            let before = self.0.get(&key).map_or(0.0, |(_, before)| *before);
            grown.0.insert(key.clone(), (labels.clone(), value - before));
            read.0.insert(key, (labels.clone(), value.max(before)));
        }
        // Labels that have gone meanwhile go.
        *self = read;
        grown
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn samples(self) -> Samples {
        Samples(self.0.into_values().collect())
    }
}
