//! The outcomes of calls.

use cinchona_plumbing::Count;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The outcomes of the calls that carried a key, through a
        /// [`DedupLayer`](crate::DedupLayer), its clones and its services.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct DedupCounters {
            $($(#[$doc])* pub $name: u64,)*
            /// Records that the store has evicted before their time
            /// ([`Store::evicted`](crate::Store::evicted)), for all layers that use it.
            pub evicted: u64,
        }

        #[derive(Debug, Default)]
        pub(crate) struct Cells {
            $(pub(crate) $name: Count,)*
        }

        impl Cells {
            pub(crate) fn counters(&self, evicted: u64) -> DedupCounters {
                DedupCounters { $($name: self.$name.read(),)* evicted }
            }
        }
    };
}

counters! {
    /// Passed to the service.
    executed,
    /// Answered with the record of an earlier one.
    replayed,
    /// Those that waited for an earlier one to be executed.
    joined,
    /// Refused: an earlier one was being executed, and the setting is not to wait.
    rejected,
    /// Refused: the key had been used for another request.
    mismatched,
    /// Refused: the record was evicted.
    refused_evicted,
    /// Refused: the store can remember no more calls.
    refused_full,
    /// Refused by the check of [`with_authorize`](crate::DedupSettings::with_authorize).
    denied,
    /// Refused, or passed on without a key, because the message could not be read.
    unreadable,
    /// Executed with an unknown effect: a panic, a lost lease, `INTERNAL` and the like.
    ambiguous,
    /// Abandoned by their callers and still executed to the end.
    abandoned,
    /// Refused, or executed unprotected, because the store did not answer.
    store_failures,
}

// === impl DedupCounters ===

impl DedupCounters {
    /// Refused calls by reason; each reason can be a label of a metric.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("in_flight", self.rejected),
            ("mismatched", self.mismatched),
            ("evicted", self.refused_evicted),
            ("full", self.refused_full),
            ("denied", self.denied),
            ("unreadable", self.unreadable),
            ("store", self.store_failures),
        ]
        .into_iter()
    }
}
