//! What became of calls.

use cinchona_plumbing::Count;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What became of the calls that carried a key, up to one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Snapshot {
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
            pub(crate) fn snapshot(&self, evicted: u64) -> Snapshot {
                Snapshot { $($name: self.$name.read(),)* evicted }
            }
        }
    };
}

counters! {
    /// Handed to the service.
    executed,
    /// Answered with the record of an earlier one.
    replayed,
    /// Those that waited for an earlier one to be executed.
    joined,
    /// Refused: an earlier one was being executed, and it was not to be waited for.
    rejected,
    /// Refused: the key had been used for another request.
    mismatched,
    /// Refused: the record had made room for others.
    refused_evicted,
    /// Refused: the store can keep no more promises.
    refused_full,
    /// Refused by what [`with_authorize`](crate::DedupLayer::with_authorize) asks.
    denied,
    /// Refused, or passed on without a key, because the message could not be read.
    unreadable,
    /// Executed, and it is open with what effect: a panic, a lost lease, `INTERNAL` and its like.
    ambiguous,
    /// Given up by their caller and executed to their end all the same.
    abandoned,
    /// Refused, or executed unprotected, because the store did not answer.
    store_failures,
}

// === impl Snapshot ===

impl Snapshot {
    /// Why calls were refused, and how many: by a word that may be a label of a metric.
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
