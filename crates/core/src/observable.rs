//! The metrics of a layer, as plain data for dashboards and exporters.

use std::{any::Any, fmt, sync::Weak};

/// The metrics of a layer, for dashboards and exporters.
///
/// *Why:* a counter with only a method has to be wired to each dashboard by hand. Here each layer
/// declares its names, units and help once, and an exporter (`cinchona_observe::Metrics::register`)
/// takes any layer.
///
/// *Rule:* a layer declares all its metrics, each by one instrument. The names are unique, and the
/// same for all clones; so is the kind of each.
///
/// ```
/// use cinchona_core::{Instrument, Observable};
/// use std::sync::{Arc, atomic::{AtomicU64, Ordering::Relaxed}};
///
/// #[derive(Clone, Default)]
/// struct Doors(Arc<[AtomicU64; 2]>);
///
/// impl Observable for Doors {
///     const INSTRUMENTS: &'static [Instrument<Self>] = &[Instrument::counters(
///         "house.door.opened",
///         "{time}",
///         "How often a door was opened.",
///         |doors, add| {
///             for (door, opened) in ["front", "back"].iter().zip(&*doors.0) {
///                 add(&[("door", door)], opened.load(Relaxed) as f64);
///             }
///         },
///     )];
/// }
///
/// let doors = Doors::default();
/// doors.0[1].fetch_add(3, Relaxed);
/// let mut seen = Vec::new();
/// Doors::INSTRUMENTS[0].read(&doors, &mut |labels, value| {
///     seen.push((labels[0].1.to_owned(), value));
/// });
/// assert_eq!(seen, [("front".to_owned(), 0.0), ("back".to_owned(), 3.0)]);
/// ```
///
/// *What it does not do:* it has no histograms; those of calls are gRPC's own, and
/// `cinchona-observe` measures them.
pub trait Observable: Clone + Send + Sync + 'static {
    /// All its metrics.
    const INSTRUMENTS: &'static [Instrument<Self>];

    /// Finds the layer on demand; `None` once it is gone.
    ///
    /// By default it keeps a clone. A type that runs until its last clone is dropped must not be
    /// kept here, or its registration would keep it running.
    fn finder(&self) -> impl Fn() -> Option<Self> + Send + Sync + use<Self> + 'static {
        let own = self.clone();
        move || Some(own.clone())
    }

    /// What it shares with its clones, as an address: two registrations of one identity are shown
    /// once, and not added up. `None` by default: then each registration is one of its own.
    ///
    /// Implement it for what several servers or clients may have in common, by the [`Arc`] of its
    /// counters.
    ///
    /// [`Arc`]: std::sync::Arc
    fn identity(&self) -> Option<Weak<dyn Any + Send + Sync>> {
        None
    }
}

/// A metric of a `T`: its name, its description, and how it is read. It has one sample, or one for
/// each set of labels.
pub struct Instrument<T> {
    name: &'static str,
    unit: &'static str,
    help: &'static str,
    is_counter: bool,
    read: Read<T>,
}

/// Takes the labels of a sample, names and values, and the sample.
type Add<'a> = &'a mut dyn FnMut(&[(&str, &str)], f64);

enum Read<T> {
    One(fn(&T) -> f64),
    Each(fn(&T, Add<'_>)),
}

// === impl Instrument ===

impl<T> Instrument<T> {
    /// A number that only grows. `name` is as in OpenTelemetry, in lower case and with dots; `unit`
    /// is in UCUM's code (`s`, `By`, `{call}`), and empty without one; `help` is a sentence.
    pub const fn counter(
        name: &'static str,
        unit: &'static str,
        help: &'static str,
        read: fn(&T) -> f64,
    ) -> Self {
        Self { name, unit, help, is_counter: true, read: Read::One(read) }
    }

    /// A number that rises and falls; otherwise as [`counter`](Self::counter).
    pub const fn gauge(
        name: &'static str,
        unit: &'static str,
        help: &'static str,
        read: fn(&T) -> f64,
    ) -> Self {
        Self { name, unit, help, is_counter: false, read: Read::One(read) }
    }

    /// As [`counter`](Self::counter), with labels: `read` adds each sample.
    pub const fn counters(
        name: &'static str,
        unit: &'static str,
        help: &'static str,
        read: fn(&T, Add<'_>),
    ) -> Self {
        Self { name, unit, help, is_counter: true, read: Read::Each(read) }
    }

    /// As [`gauge`](Self::gauge), with labels: `read` adds each sample; none if there is nothing to
    /// measure.
    pub const fn gauges(
        name: &'static str,
        unit: &'static str,
        help: &'static str,
        read: fn(&T, Add<'_>),
    ) -> Self {
        Self { name, unit, help, is_counter: false, read: Read::Each(read) }
    }

    /// Such as `cinchona.shed.turned_away`.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// In UCUM's code; empty without one.
    pub const fn unit(&self) -> &'static str {
        self.unit
    }

    /// Its description, in a sentence.
    pub const fn help(&self) -> &'static str {
        self.help
    }

    /// Whether it only grows.
    pub const fn is_counter(&self) -> bool {
        self.is_counter
    }

    /// Adds each of its current samples, with the names and values of its labels.
    pub fn read(&self, of: &T, add: Add<'_>) {
        match self.read {
            Read::One(read) => add(&[], read(of)),
            Read::Each(read) => read(of, add),
        }
    }
}

impl<T> fmt::Debug for Instrument<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, unit, is_counter, .. } = self;
        f.debug_struct("Instrument")
            .field("name", name)
            .field("unit", unit)
            .field("is_counter", is_counter)
            .finish_non_exhaustive()
    }
}
