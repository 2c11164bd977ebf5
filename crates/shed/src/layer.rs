//! Shedding on a server.

use crate::{
    Criticality, Limit, Queue, Shed,
    places::{Limits, Places},
    service::Around,
    shared::Shared,
};
use cinchona_core::{Invalid, Methods, Rng, Switch};
use cinchona_plumbing::Count;
use std::{
    any::Any,
    sync::{Arc, Weak},
    time::Duration,
};
use tower_layer::Layer;

/// Applies [`Shed`] to a server.
///
/// # How it prevents starvation
///
/// Long calls must not take the places of short ones:
///
/// * A *stream* (a method of any kind but unary) is admitted like any call, and gives its place
///   back immediately: it counts in a separate limit ([`with_streams`]) until
///   its response has ended. Not at its head: a handler may wait for an event, or for messages of
///   its client, before it begins its response.
/// * A *unary* call gives its place back when its response begins: tonic has produced all of it by
///   then, and a caller that does not read holds nothing.
/// * A call takes its place when its *request is complete*. One that is still arriving holds none,
///   and has a time limit ([`with_arrival`]). If a method is known not to
///   stream requests, the service is not called before that; up to 4 MiB of a request are buffered,
///   and a larger one takes its place then.
/// * A call of an unknown method (no descriptor set was read, see [`Methods::known_kinds`]) is
///   treated as unary with a request without a time limit. So a stream gives its place back at its
///   head, and does not count after that.
/// * A method can have its own limit by name ([`with_limit_of`]), which its
///   calls hold until their responses have ended, or none ([`with_exempt`]).
///
/// Arrival is visible only on tonic's own bodies, which its server produces.
///
/// [`with_arrival`]: ShedSettings::with_arrival
/// [`with_exempt`]: ShedSettings::with_exempt
/// [`with_limit_of`]: ShedSettings::with_limit_of
/// [`with_streams`]: ShedSettings::with_streams
#[derive(Clone, Debug)]
pub struct ShedLayer {
    shared: Arc<Shared>,
}

/// The settings of a [`ShedLayer`]. By default the limit is the default [`Adaptive`] one.
///
/// [`Adaptive`]: crate::Adaptive
#[derive(Clone, Debug, PartialEq)]
pub struct ShedSettings {
    limits: Limits,
    queue: Queue,
    arrival: Duration,
    pushback: Duration,
    methods: Option<Methods>,
    switch: Option<Switch>,
    rng: Option<Rng>,
}

/// What a [`ShedLayer`] has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShedCounters {
    /// Calls that were refused.
    pub shed: u64,
    /// The same by criticality.
    by_criticality: [u64; Criticality::ALL.len()],
    /// Requests that did not arrive in time.
    pub late: u64,
    /// Calls in flight: requests that are complete and not answered yet. Those of
    /// [`with_limit_of`](ShedSettings::with_limit_of) count until their responses have ended. In
    /// shadow, without those beyond the limit.
    pub in_progress: u32,
    /// Calls that wait for a place.
    pub waiting: u32,
    /// Streams in flight.
    pub streams: u32,
    /// The current limit on calls in flight, for methods without their own.
    pub limit: u32,
}

/// How long a request may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(30);

// === impl ShedSettings ===

impl ShedSettings {
    /// Limits the calls in flight.
    ///
    /// # Errors
    /// When the limit is 0, or a setting of an adaptive one is outside its range.
    pub fn new(limit: Limit) -> Result<Self, Invalid> {
        Ok(Self { limits: Limits::new(limit.checked()?), ..Self::default() })
    }

    /// Sets how calls wait.
    #[must_use]
    pub fn with_queue(self, queue: Queue) -> Self {
        Self { queue, ..self }
    }

    /// Limits the streams in flight: calls of methods that are known to stream either way. Default
    /// 10,000; at least 1.
    ///
    /// # Errors
    /// When `limit` is 0.
    pub fn with_streams(mut self, limit: u32) -> Result<Self, Invalid> {
        self.limits.set_streams(limit)?;
        Ok(self)
    }

    /// Gives `method` of `service`, or all its methods if `method` is empty, its own limit, with
    /// a queue of its own. Its calls hold it until their responses have ended.
    ///
    /// # Errors
    /// When the name was given before, `service` is empty, or the limit is invalid.
    pub fn with_limit_of(
        mut self,
        service: &str,
        method: &str,
        limit: Limit,
    ) -> Result<Self, Invalid> {
        self.limits.name(service, method, Some(limit.checked()?))?;
        Ok(self)
    }

    /// Exempts the calls of `method` of `service`, or of all its methods, from limits and counts.
    ///
    /// # Errors
    /// When the name was given before, or `service` is empty.
    pub fn with_exempt(mut self, service: &str, method: &str) -> Result<Self, Invalid> {
        self.limits.name(service, method, None)?;
        Ok(self)
    }

    /// How long a request may take to arrive, from its headers to its end, if its method is known
    /// not to stream requests; then its call ends with `DEADLINE_EXCEEDED`. It holds no place
    /// meanwhile. Default 30 s; `Duration::MAX` for no limit.
    #[must_use]
    pub fn with_arrival(self, limit: Duration) -> Self {
        Self { arrival: limit, ..self }
    }

    /// Reads from `methods` what each method streams. Default: all descriptor sets that this
    /// process has read before the layer is applied ([`Methods::known_kinds`]).
    #[must_use]
    pub fn with_methods(self, methods: Methods) -> Self {
        Self { methods: Some(methods), ..self }
    }

    /// Sets the pushback of refused calls: half to one and a half times this, so that clients do
    /// not return together. Default 100 ms; up to 1 h.
    ///
    /// # Errors
    /// When it is longer.
    pub fn with_pushback(self, pushback: Duration) -> Result<Self, Invalid> {
        if pushback > Duration::from_secs(3600) {
            return Err(Invalid::new("pushback", format!("{pushback:?}"), "0s to 1h"));
        }
        Ok(Self { pushback, ..self })
    }

    /// Sets the switch that decides whether calls are refused, only counted, or passed through.
    #[must_use]
    pub fn with_switch(self, switch: Switch) -> Self {
        Self { switch: Some(switch), ..self }
    }

    /// Draws the pushback from `rng`.
    #[must_use]
    pub fn with_rng(self, rng: Rng) -> Self {
        Self { rng: Some(rng), ..self }
    }

    /// A layer with these settings, and its own places and counters.
    #[must_use]
    pub fn layer(&self) -> ShedLayer {
        let shared = Shared {
            places: Places::new(&self.limits, |_| self.queue),
            pushback: self.pushback,
            arrival: self.arrival,
            methods: self.methods.clone(),
            switch: self.switch.clone().unwrap_or_default(),
            rng: self.rng.clone().unwrap_or_default(),
            late: Count::default(),
        };
        ShedLayer { shared: Arc::new(shared) }
    }
}

impl Default for ShedSettings {
    fn default() -> Self {
        Self {
            limits: Limits::new(Limit::default()),
            queue: Queue::default(),
            arrival: ARRIVAL,
            pushback: Duration::from_millis(100),
            methods: None,
            switch: None,
            rng: None,
        }
    }
}

// === impl ShedLayer ===

impl ShedLayer {
    #[cfg(test)]
    pub(crate) fn references(&self) -> usize {
        Arc::strong_count(&self.shared)
    }

    /// The layer of [`ShedSettings::new`].
    ///
    /// # Errors
    /// As there.
    pub fn new(limit: Limit) -> Result<Self, Invalid> {
        Ok(ShedSettings::new(limit)?.layer())
    }

    /// What it counts with, as an address.
    pub(crate) fn counted(&self) -> Weak<dyn Any + Send + Sync> {
        let counted: Weak<Shared> = Arc::downgrade(&self.shared);
        counted
    }

    /// What it has counted.
    pub fn counters(&self) -> ShedCounters {
        let Shared { places, late, .. } = &*self.shared;
        let by_criticality = Criticality::ALL.map(|class| places.common.shed(class));
        ShedCounters {
            shed: by_criticality.into_iter().sum(),
            by_criticality,
            late: late.read(),
            in_progress: places.in_progress(),
            waiting: places.waiting(),
            streams: places.streams.in_progress(),
            limit: places.common.limit(),
        }
    }
}

// === impl ShedCounters ===

impl ShedCounters {
    /// Calls of this criticality that were refused.
    pub fn shed_of(&self, criticality: Criticality) -> u64 {
        let classes = Criticality::ALL.into_iter().zip(self.by_criticality);
        classes.filter(|(class, _)| *class == criticality).map(|(_, shed)| shed).sum()
    }
}

impl Default for ShedLayer {
    /// The default [`Adaptive`](crate::Adaptive) limit.
    fn default() -> Self {
        ShedSettings::default().layer()
    }
}

impl<S> Layer<S> for ShedLayer {
    type Service = Shed<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let kinds = Methods::all_kinds(self.shared.methods.as_ref());
        let around = Around { shared: self.shared.clone(), kinds };
        Shed { inner, around: Arc::new(around) }
    }
}
