//! Which limit a call counts in, and until when.

use crate::{Limit, Queue};
use cinchona_core::{Invalid, MethodKind, Methods, PerMethod};
use cinchona_policy::concurrency::{Changed, Entry, Limiter, Permit};
use std::sync::Arc;
use tokio::time::Instant;

/// The limits of a layer, as its settings have them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Limits {
    /// The limit of methods without their own.
    pub(crate) common: Limit,
    /// The limit of streams in flight.
    streams: u32,
    /// Limits by name; `None` for exempt methods.
    named: PerMethod<Option<Limit>>,
}

/// The places of a layer.
#[derive(Debug)]
pub(crate) struct Places {
    /// The limit of methods without their own.
    pub(crate) common: Arc<Limiter>,
    /// The limit of streams in flight.
    pub(crate) streams: Arc<Limiter>,
    /// Limits by name; `None` for exempt methods.
    named: PerMethod<Option<Arc<Limiter>>>,
    all_named: Vec<Arc<Limiter>>,
}

/// Where a call counts.
pub(crate) struct Place<'a> {
    pub(crate) limiter: &'a Arc<Limiter>,
    pub(crate) until: Until,
}

/// When a call gives its place back.
#[derive(Clone)]
pub(crate) enum Until {
    /// When its response begins.
    Head,
    /// When its response has ended.
    End,
    /// Immediately; it then counts among the streams until the response has ended.
    Stream(Arc<Limiter>),
}

/// The default limit of streams in flight.
const STREAMS: u32 = 10_000;

// === impl Limits ===

impl Limits {
    /// Whether all names are those of methods.
    pub(crate) fn check(&self, field: &'static str, methods: &Methods) -> Result<(), Invalid> {
        self.named.check(field, methods)
    }

    pub(crate) fn new(common: Limit) -> Self {
        Self { common, streams: STREAMS, named: PerMethod::new() }
    }

    pub(crate) fn set_streams(&mut self, limit: u32) -> Result<(), Invalid> {
        if limit == 0 {
            return Err(Invalid::new("streams", limit, "at least 1"));
        }
        self.streams = limit;
        Ok(())
    }

    pub(crate) fn name(
        &mut self,
        service: &str,
        method: &str,
        limit: Option<Limit>,
    ) -> Result<(), Invalid> {
        if service.is_empty() {
            let name = format!("/{service}/{method}");
            return Err(Invalid::new("name", name, "a service, or a method with its service"));
        }
        self.named.insert(service, method, limit)
    }
}

// === impl Places ===

impl Places {
    /// The places of these limits, where calls wait as `queue` says for each.
    pub(crate) fn new(limits: &Limits, queue: impl Fn(Limit) -> Queue) -> Self {
        let places = |limit| limiter(limit, queue(limit));
        let mut all_named = Vec::new();
        let named = limits.named.map(|limit| {
            let limiter = places((*limit)?);
            all_named.push(limiter.clone());
            Some(limiter)
        });
        let streams = Limiter::new(Limit::Fixed(limits.streams), Queue::none(), Instant::now());
        Self { common: places(limits.common), streams, named, all_named }
    }

    /// Where a call of this kind counts; `short` is until when, if it is not a stream. `None` for
    /// an exempt one.
    pub(crate) fn of(
        &self,
        path: &str,
        kind: Option<MethodKind>,
        short: Until,
    ) -> Option<Place<'_>> {
        let streams = |kind: MethodKind| kind.streams_requests() || kind.streams_responses();
        match self.named.get(path) {
            Some(named) => Some(Place { limiter: named.as_ref()?, until: Until::End }),
            None => {
                let is_stream = kind.is_some_and(streams);
                let until = if is_stream { Until::Stream(self.streams.clone()) } else { short };
                Some(Place { limiter: &self.common, until })
            }
        }
    }

    /// How many calls are in flight, without streams.
    pub(crate) fn in_progress(&self) -> u32 {
        self.all().map(|limiter| limiter.in_progress()).sum()
    }

    /// How many calls wait.
    pub(crate) fn waiting(&self) -> u32 {
        self.all().map(|limiter| limiter.waiting()).sum()
    }

    /// All limits but that of streams.
    fn all(&self) -> impl Iterator<Item = &Arc<Limiter>> {
        std::iter::once(&self.common).chain(&self.all_named)
    }
}

/// A limit that logs how it changes.
fn limiter(limit: Limit, queue: Queue) -> Arc<Limiter> {
    Limiter::reporting(limit, queue, Instant::now(), |changed| {
        let Changed { limit, before, in_progress } = changed;
        tracing::debug!(limit, before, in_progress, "concurrency limit");
    })
}

// === impl Until ===

impl Until {
    /// The place of a call that was given this one; `None` if there are too many streams.
    pub(crate) fn settle(&self, permit: Permit) -> Option<Permit> {
        let Self::Stream(streams) = self else { return Some(permit) };
        permit.pass_on();
        match streams.enter(crate::Criticality::default) {
            Entry::Admitted(permit) => Some(permit),
            _ => None,
        }
    }

    /// Whether a call that is given a place is sure to keep it.
    pub(crate) const fn is_sure(&self) -> bool {
        !matches!(self, Self::Stream(_))
    }

    pub(crate) const fn is_head(&self) -> bool {
        matches!(self, Self::Head)
    }
}
