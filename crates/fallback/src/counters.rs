//! Counters of second answers and of kept ones.

use cinchona_plumbing::Count;
use std::sync::Arc;

/// The counters, shared by a layer, its clones and its services.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters(Arc<Cells>);

/// What a [`FallbackLayer`](crate::FallbackLayer) has counted, in all the services that it was
/// applied to. Only calls that may be given a second answer count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FallbackCounters {
    /// Calls that were given an earlier answer.
    pub served_cached: u64,
    /// Calls that were given the default of their method.
    pub served_default: u64,
    /// Calls that the alternate answered.
    pub served_alternate: u64,
    /// Calls that failed, as there was no second answer.
    pub none: u64,
    /// Answers that are kept now.
    pub kept_entries: u64,
    /// Bytes that they take, with the requests they answer.
    pub kept_bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Cells {
    pub(crate) served_cached: Count,
    pub(crate) served_default: Count,
    pub(crate) served_alternate: Count,
    pub(crate) none: Count,
    pub(crate) kept_entries: Count,
    pub(crate) kept_bytes: Count,
}

// === impl Counters ===

impl Counters {
    /// The current values.
    pub(crate) fn read(&self) -> FallbackCounters {
        let Cells { served_cached, served_default, served_alternate, .. } = &*self.0;
        let Cells { none, kept_entries, kept_bytes, .. } = &*self.0;
        FallbackCounters {
            served_cached: served_cached.read(),
            served_default: served_default.read(),
            served_alternate: served_alternate.read(),
            none: none.read(),
            kept_entries: kept_entries.read(),
            kept_bytes: kept_bytes.read(),
        }
    }

    pub(crate) fn cells(&self) -> &Cells {
        &self.0
    }
}
