//! Counters of injected faults.

use cinchona_plumbing::Count;
use std::{
    any::Any,
    sync::{Arc, Weak},
};

/// The counters of a layer, shared by its clones and services.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counted(Arc<Cells>);

/// What a [`FaultLayer`](crate::FaultLayer) has counted.
///
/// Faults of plain settings and of rules are counted alike, when they take effect: a fault whose
/// caller left before it took effect is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FaultCounters {
    /// Requests eligible for faults.
    pub matched: u64,
    /// Requests that are exempt: health checks, reflection, other paths.
    pub exempt: u64,
    /// Requests that were delayed, or are being delayed.
    pub delayed: u64,
    /// Requests answered with the failure, unexecuted.
    pub failed_before: u64,
    /// Requests executed, and then answered with the failure.
    pub failed_after: u64,
    /// Eligible requests passed to the service.
    pub executed: u64,
    /// Eligible requests whose caller left before there was an answer, except those left without
    /// one on purpose.
    pub abandoned: u64,
    /// Requests left without an answer, or with headers only.
    pub hung: u64,
    /// Replies cut after some messages.
    pub cut: u64,
    /// Requests whose stream was reset.
    pub reset: u64,
    /// Requests whose connection was dropped.
    pub dropped: u64,
    /// Requests answered with `GOAWAY`.
    pub sent_away: u64,
    /// Replies whose trailers were broken.
    pub bad_trailers: u64,
    /// Replies that dripped.
    pub dripped: u64,
    /// Requests on which the task panicked.
    pub panicked: u64,
    /// Requests that passed because too many faults were active.
    pub spared: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Cells {
    pub(crate) requests: Count,
    /// Eligible requests that pass, as nothing is to be injected.
    pub(crate) passed: Count,
    pub(crate) matched: Count,
    pub(crate) exempt: Count,
    pub(crate) delayed: Count,
    pub(crate) failed_before: Count,
    pub(crate) failed_after: Count,
    pub(crate) executed: Count,
    pub(crate) abandoned: Count,
    pub(crate) hung: Count,
    pub(crate) cut: Count,
    pub(crate) reset: Count,
    pub(crate) dropped: Count,
    pub(crate) sent_away: Count,
    pub(crate) bad_trailers: Count,
    pub(crate) dripped: Count,
    pub(crate) panicked: Count,
    pub(crate) spared: Count,
}

// === impl Counted ===

impl Counted {
    /// What it counts with, as an address.
    pub(crate) fn counted(&self) -> Weak<dyn Any + Send + Sync> {
        let counted: Weak<Cells> = Arc::downgrade(&self.0);
        counted
    }

    pub(crate) fn read(&self) -> FaultCounters {
        let cells = &*self.0;
        let passed = cells.passed.read();
        FaultCounters {
            matched: passed + cells.matched.read(),
            exempt: cells.exempt.read(),
            delayed: cells.delayed.read(),
            failed_before: cells.failed_before.read(),
            failed_after: cells.failed_after.read(),
            executed: passed + cells.executed.read(),
            abandoned: cells.abandoned.read(),
            hung: cells.hung.read(),
            cut: cells.cut.read(),
            reset: cells.reset.read(),
            dropped: cells.dropped.read(),
            sent_away: cells.sent_away.read(),
            bad_trailers: cells.bad_trailers.read(),
            dripped: cells.dripped.read(),
            panicked: cells.panicked.read(),
            spared: cells.spared.read(),
        }
    }

    pub(crate) fn cells(&self) -> &Cells {
        &self.0
    }
}

// === impl FaultCounters ===

impl FaultCounters {
    /// How often each kind was injected, by its word in the grammar of [`Rule`](crate::Rule).
    pub fn kinds(&self) -> [(&'static str, u64); 10] {
        [
            ("delay", self.delayed),
            ("status", self.failed_before + self.failed_after),
            ("hang", self.hung),
            ("cut", self.cut),
            ("reset", self.reset),
            ("drop", self.dropped),
            ("goaway", self.sent_away),
            ("trailers", self.bad_trailers),
            ("drip", self.dripped),
            ("panic", self.panicked),
        ]
    }

    /// How many faults were injected; a request that was delayed and then failed had two.
    pub fn injected(&self) -> u64 {
        self.kinds().iter().map(|(_, count)| count).sum()
    }
}
