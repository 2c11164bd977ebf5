//! Metrics counted elsewhere: in a layer, or by a closure.

use crate::{
    Samples,
    counts::Counted,
    names,
    samples::{Labels, distinct, is_label, is_same_name, key},
};
use cinchona_core::{Instrument, Invalid, Observable};
use std::{
    any::Any,
    fmt,
    sync::{Arc, Weak},
};

/// A metric that is counted elsewhere.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) help: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) is_counter: bool,
    /// The labels of its registration; `None` if a closure sets all labels.
    pub(crate) labels: Option<Labels>,
    pub(crate) ask: Arc<Ask>,
    /// That of the layer, if it says one.
    pub(crate) identity: Option<Weak<dyn Any + Send + Sync>>,
    pub(crate) owners: Owners,
    /// What it had counted when it was last read.
    pub(crate) counted: Arc<Counted>,
}

/// Who has registered a metric.
#[derive(Clone, Debug, Default)]
pub(crate) struct Owners(Vec<u64>);

const ONE_KIND: &str = "a counter or a gauge, not both";
const ONE_UNIT: &str = "one unit";

/// Adds the current samples; `false` once there will never be any again.
type Ask = dyn Fn(&mut Samples) -> bool + Send + Sync;

/// The metrics of a layer.
pub(crate) fn of<T: Observable>(of: &T, labels: &[(&str, &str)]) -> Result<Vec<Source>, Invalid> {
    let labels = checked(labels)?;
    let find = Arc::new(of.finder());
    let source = |instrument: &'static Instrument<T>| {
        let (find, beside) = (find.clone(), labels.clone());
        let ask = move |samples: &mut Samples| {
            let Some(found) = find() else { return false };
            instrument.read(&found, &mut |own, value| samples.add(&joined(&beside, own), value));
            true
        };
        let source = Source::new(instrument.name(), instrument.is_counter(), Arc::new(ask));
        let (help, unit) = (instrument.help(), instrument.unit());
        let identity = of.identity();
        Source { help, unit, labels: Some(labels.clone()), identity, ..source }.checked()
    };
    T::INSTRUMENTS.iter().map(source).collect()
}

/// The labels of a sample in addition to those of its layer's registration.
fn joined<'a>(beside: &'a Labels, own: &'a [(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let is_own = |name: &str| own.iter().any(|(other, _)| is_same_name(other, name));
    let beside = beside.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    beside.filter(|(name, _)| !is_own(name)).chain(own.iter().copied()).collect()
}

fn checked(labels: &[(&str, &str)]) -> Result<Labels, Invalid> {
    if let Some((label, _)) = labels.iter().find(|(name, _)| !is_label(name)) {
        return Err(Invalid::new("label", label, "a letter, then letters, digits, `.` or `_`"));
    }
    let is_again =
        |n: &usize| labels[..*n].iter().any(|(name, _)| is_same_name(name, labels[*n].0));
    match (0..labels.len()).find(is_again) {
        Some(n) => Err(Invalid::new("label", labels[n].0, "a name that no other label has")),
        None => Ok(distinct(labels)),
    }
}

// === impl Source ===

impl Source {
    /// One sample.
    pub(crate) fn one(
        name: &str,
        is_counter: bool,
        labels: &[(&str, &str)],
        value: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> Result<Self, Invalid> {
        let labels = checked(labels)?;
        let own = labels.clone();
        let ask = move |samples: &mut Samples| {
            samples.0.push((own.clone(), value()));
            true
        };
        Self { labels: Some(labels), ..Self::new(name, is_counter, Arc::new(ask)) }.checked()
    }

    /// All samples that `ask` adds.
    pub(crate) fn each(
        name: &str,
        is_counter: bool,
        ask: impl Fn(&mut Samples) + Send + Sync + 'static,
    ) -> Result<Self, Invalid> {
        let ask = move |samples: &mut Samples| {
            ask(samples);
            true
        };
        Self::new(name, is_counter, Arc::new(ask)).checked()
    }

    fn new(name: &str, is_counter: bool, ask: Arc<Ask>) -> Self {
        Self {
            name: name.to_owned(),
            help: "",
            unit: "",
            is_counter,
            labels: None,
            ask,
            identity: None,
            owners: Owners::default(),
            counted: Arc::default(),
        }
    }

    fn checked(self) -> Result<Self, Invalid> {
        let name = self.name.as_str();
        if !is_label(name) {
            return Err(Invalid::new("metric", name, "a letter, then letters, digits, `.` or `_`"));
        }
        let is_taken = |own: &names::Instrument| {
            is_same_name(own.name, name) || own.prometheus() == self.prometheus()
        };
        if names::ALL.iter().any(is_taken) {
            return Err(Invalid::new("metric", name, "a name that gRPC has not taken"));
        }
        Ok(self)
    }

    /// Whether both can coexist, or this one takes the place of the other.
    pub(crate) fn fits(&self, other: &Self, is_replaced: bool) -> Result<(), Invalid> {
        let refused = |rule| Err(Invalid::new("metric", &self.name, rule));
        let is_one = other.prometheus() == self.prometheus();
        if (is_one || other.name == self.name) && other.is_counter != self.is_counter {
            return refused(ONE_KIND);
        }
        if is_one && other.name != self.name {
            return refused("a name that differs from others in more than dots and underscores");
        }
        if other.name == self.name && other.unit != self.unit && !is_replaced {
            return refused(ONE_UNIT);
        }
        Ok(())
    }

    /// Whether it can be one with what has been counted under a name.
    pub(crate) fn continues(&self, name: &str, unit: &str) -> Result<(), Invalid> {
        let refused = |rule| Err(Invalid::new("metric", &self.name, rule));
        match name == self.name {
            true if !self.is_counter => refused(ONE_KIND),
            true if unit != self.unit => refused(ONE_UNIT),
            _ => Ok(()),
        }
    }

    pub(crate) fn has_the_labels_of(&self, other: &Self) -> bool {
        let labels = |source: &Self| source.labels.as_ref().map(key);
        other.name == self.name && labels(self) == labels(other)
    }

    /// Whether it is the same layer as another, registered with the same labels.
    pub(crate) fn is_again(&self, other: &Self) -> bool {
        let identities = self.identity.as_ref().zip(other.identity.as_ref());
        identities.is_some_and(|(own, other)| Weak::ptr_eq(own, other))
            && self.has_the_labels_of(other)
    }

    /// Whether it is of the same registration, and not a replacement.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.ask, &other.ask)
    }

    /// Its name in Prometheus.
    fn prometheus(&self) -> String {
        names::prometheus(&self.name, self.unit, self.is_counter)
    }
}

// === impl Owners ===

impl Owners {
    pub(crate) fn add(&mut self, owner: u64) {
        if !self.has(owner) {
            self.0.push(owner);
        }
    }

    pub(crate) fn remove(&mut self, owner: u64) {
        self.0.retain(|other| *other != owner);
    }

    pub(crate) fn has(&self, owner: u64) -> bool {
        self.0.contains(&owner)
    }

    pub(crate) fn is_only(&self, owner: u64) -> bool {
        self.0 == [owner]
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one that has registered first.
    pub(crate) fn first(&self) -> u64 {
        self.0.first().copied().unwrap_or_default()
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("name", &self.name).finish_non_exhaustive()
    }
}
