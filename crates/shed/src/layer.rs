//! Shedding on a server.

use crate::{
    Criticality, Limit, Queue, Shed,
    places::{Places, limiter},
    service::Around,
    shared::Shared,
};
use cinchona_core::{Invalid, Methods, Rng, Switch};
use std::{
    any::Any,
    sync::{Arc, Weak, atomic::Ordering},
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
///   back immediately: it counts in a separate limit ([`with_streams`](Self::with_streams)) until
///   its response has ended. Not at its head: a handler may wait for an event, or for messages of
///   its client, before it begins its response.
/// * A *unary* call gives its place back when its response begins: tonic has produced all of it by
///   then, and a caller that does not read holds nothing.
/// * A call takes its place when its *request is complete*. One that is still arriving holds none,
///   and has a time limit ([`with_arrival`](Self::with_arrival)). If a method is known not to
///   stream requests, the service is not called before that; up to 4 MiB of a request are buffered,
///   and a larger one takes its place then.
/// * A call of an unknown method (no descriptor set was read, see [`Methods::known_kinds`]) is
///   treated as unary with a request without a time limit. So a stream gives its place back at its
///   head, and does not count after that.
/// * A method can have its own limit by name ([`with_limit_of`](Self::with_limit_of)), which its
///   calls hold until their responses have ended, or none ([`with_exempt`](Self::with_exempt)).
///
/// Arrival is visible only on tonic's own bodies, which its server produces.
#[derive(Clone, Debug)]
pub struct ShedLayer {
    limit: Limit,
    queue: Queue,
    shared: Arc<Shared>,
}

/// How long a request may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(30);

// === impl ShedLayer ===

impl ShedLayer {
    #[cfg(test)]
    pub(crate) fn references(&self) -> usize {
        Arc::strong_count(&self.shared)
    }

    /// Limits the calls in flight.
    ///
    /// # Errors
    /// When the limit is 0, or a setting of an adaptive one is outside its range.
    pub fn new(limit: Limit) -> Result<Self, Invalid> {
        limit.checked().map(Self::of)
    }

    fn of(limit: Limit) -> Self {
        let queue = Queue::default();
        let shared = Shared {
            places: Places::new(limit, queue),
            pushback: Duration::from_millis(100),
            arrival: ARRIVAL,
            methods: None,
            switch: Switch::default(),
            rng: Rng::from_os(),
            late: Arc::default(),
        };
        Self { limit, queue, shared: Arc::new(shared) }
    }

    fn with(mut self, change: impl FnOnce(&mut Shared)) -> Self {
        change(Arc::make_mut(&mut self.shared));
        self
    }

    /// Sets how calls wait.
    #[must_use]
    pub fn with_queue(self, queue: Queue) -> Self {
        let common = limiter(self.limit, queue);
        Self { queue, ..self }.with(|shared| shared.places.common = common)
    }

    /// Limits the streams in flight: calls of methods that are known to stream either way. Default
    /// 10,000; at least 1.
    ///
    /// # Errors
    /// When `limit` is 0.
    pub fn with_streams(mut self, limit: u32) -> Result<Self, Invalid> {
        Arc::make_mut(&mut self.shared).places.set_streams(limit)?;
        Ok(self)
    }

    /// Gives `method` of `service`, or all its methods if `method` is empty, its own limit, with
    /// the layer's queue settings so far. Its calls hold it until their responses have ended.
    ///
    /// # Errors
    /// When the name was given before, `service` is empty, or the limit is invalid.
    pub fn with_limit_of(
        mut self,
        service: &str,
        method: &str,
        limit: Limit,
    ) -> Result<Self, Invalid> {
        let limiter = limiter(limit.checked()?, self.queue);
        Arc::make_mut(&mut self.shared).places.name(service, method, Some(limiter))?;
        Ok(self)
    }

    /// Exempts the calls of `method` of `service`, or of all its methods, from limits and counts.
    ///
    /// # Errors
    /// When the name was given before, or `service` is empty.
    pub fn with_exempt(mut self, service: &str, method: &str) -> Result<Self, Invalid> {
        Arc::make_mut(&mut self.shared).places.name(service, method, None)?;
        Ok(self)
    }

    /// How long a request may take to arrive, from its headers to its end, if its method is known
    /// not to stream requests; then its call ends with `DEADLINE_EXCEEDED`. It holds no place
    /// meanwhile. Default 30 s; `Duration::MAX` for no limit.
    #[must_use]
    pub fn with_arrival(self, limit: Duration) -> Self {
        self.with(|shared| shared.arrival = limit)
    }

    /// Reads from `methods` what each method streams. Default: all descriptor sets that this
    /// process has read before the layer is applied ([`Methods::known_kinds`]).
    #[must_use]
    pub fn with_methods(self, methods: Methods) -> Self {
        self.with(|shared| shared.methods = Some(methods))
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
        Ok(self.with(|shared| shared.pushback = pushback))
    }

    /// Sets the switch that decides whether calls are refused, only counted, or passed through.
    #[must_use]
    pub fn with_switch(self, switch: Switch) -> Self {
        self.with(|shared| shared.switch = switch)
    }

    /// Draws the pushback from `rng`.
    #[must_use]
    pub fn with_rng(self, rng: Rng) -> Self {
        self.with(|shared| shared.rng = rng)
    }

    /// The same limits for another server, with its own places: clones of one layer share theirs.
    #[must_use]
    pub fn separate(&self) -> Self {
        let (places, late) = (self.shared.places.separate(), Arc::default());
        let shared = Shared { places, late, ..(*self.shared).clone() };
        Self { shared: Arc::new(shared), ..*self }
    }

    /// What it counts with, as an address.
    pub(crate) fn counted(&self) -> Weak<dyn Any + Send + Sync> {
        let counted: Weak<Shared> = Arc::downgrade(&self.shared);
        counted
    }

    /// The current limit on calls in flight, for methods without their own.
    pub fn limit(&self) -> u32 {
        self.shared.places.common.limit()
    }

    /// How many calls are in flight: requests that are complete and not answered yet. Those of
    /// [`with_limit_of`](Self::with_limit_of) count until their responses have ended.
    pub fn in_progress(&self) -> u32 {
        self.shared.places.all().map(|limiter| limiter.in_progress()).sum()
    }

    /// How many streams are in flight.
    pub fn streams(&self) -> u32 {
        self.shared.places.streams.in_progress()
    }

    /// How many calls wait.
    pub fn waiting(&self) -> u32 {
        self.shared.places.all().map(|limiter| limiter.waiting()).sum()
    }

    /// How many calls were refused.
    pub fn shed(&self) -> u64 {
        Criticality::ALL.into_iter().map(|class| self.shed_of(class)).sum()
    }

    /// How many calls of this criticality were refused.
    pub fn shed_of(&self, criticality: Criticality) -> u64 {
        self.shared.places.common.shed(criticality)
    }

    /// How many requests did not arrive in time.
    pub fn late(&self) -> u64 {
        self.shared.late.load(Ordering::Relaxed)
    }
}

impl Default for ShedLayer {
    /// The default [`Adaptive`](crate::Adaptive) limit.
    fn default() -> Self {
        Self::of(Limit::default())
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
