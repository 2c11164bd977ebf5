//! Which limit a call counts in, and until when.

use crate::{Limit, Queue};
use cinchona_core::{Invalid, MethodKind, PerMethod};
use cinchona_policy::concurrency::{Changed, Entry, Limiter, Permit};
use std::sync::Arc;
use tokio::time::Instant;

/// The limits of a layer.
#[derive(Clone, Debug)]
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

// === impl Places ===

impl Places {
    pub(crate) fn new(limit: Limit, queue: Queue) -> Self {
        Self {
            common: limiter(limit, queue),
            streams: streams(STREAMS),
            named: PerMethod::new(),
            all_named: Vec::new(),
        }
    }

    /// The same limits, with places of their own.
    pub(crate) fn separate(&self) -> Self {
        let now = Instant::now();
        let mut all_named = Vec::new();
        let named = self.named.map(|limiter| {
            let limiter = limiter.as_ref()?.separate(now);
            all_named.push(limiter.clone());
            Some(limiter)
        });
        let (common, streams) = (self.common.separate(now), self.streams.separate(now));
        Self { common, streams, named, all_named }
    }

    pub(crate) fn set_streams(&mut self, limit: u32) -> Result<(), Invalid> {
        if limit == 0 {
            return Err(Invalid::new("streams", limit, "at least 1"));
        }
        self.streams = streams(limit);
        Ok(())
    }

    pub(crate) fn name(
        &mut self,
        service: &str,
        method: &str,
        limiter: Option<Arc<Limiter>>,
    ) -> Result<(), Invalid> {
        if service.is_empty() {
            let name = format!("/{service}/{method}");
            return Err(Invalid::new("name", name, "a service, or a method with its service"));
        }
        self.named.insert(service, method, limiter.clone())?;
        self.all_named.extend(limiter);
        Ok(())
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

    /// All limits but that of streams.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Limiter>> {
        std::iter::once(&self.common).chain(&self.all_named)
    }
}

/// A limit that logs how it changes.
pub(crate) fn limiter(limit: Limit, queue: Queue) -> Arc<Limiter> {
    Limiter::reporting(limit, queue, Instant::now(), |changed| {
        let Changed { limit, before, in_progress } = changed;
        tracing::debug!(limit, before, in_progress, "concurrency limit");
    })
}

fn streams(limit: u32) -> Arc<Limiter> {
    Limiter::new(Limit::Fixed(limit), Queue::none(), Instant::now())
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
