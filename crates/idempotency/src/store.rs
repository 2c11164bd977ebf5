//! Where claims and answers are kept.

use bytes::Bytes;
use cinchona_core::BoxError;
use cinchona_plumbing::clock::period;
use std::{future::Future, time::Duration};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// Keeps claims and records; its clones are the same store.
///
/// A key is claimed under a lease by the task that executes the call, with a token that no
/// other claim has, and the claim ends with a record of the answer, or is released. All of it is
/// atomic: of any number of claims of a key at once, one is granted. A claim that is dropped before
/// it is answered may be granted all the same; the task that drops it releases it. What every store
/// must hold to is written down, and can be run, in [`conformance`](crate::conformance).
pub trait Store: Clone + Send + Sync + 'static {
    /// Claims `key` for as long as `lease`, for a request with this `fingerprint`, by `token`.
    ///
    /// # Errors
    /// When the store cannot be reached in the time it allows itself.
    fn claim(
        &self,
        key: &[u8],
        fingerprint: u128,
        token: u128,
        lease: Duration,
    ) -> impl Future<Output = Result<Claim, BoxError>> + Send;

    /// Ends the claim with `token`, and keeps `record` for the store's time to live. False, and
    /// nothing is kept, where that claim is not, or no longer, the key's own.
    ///
    /// # Errors
    /// When the store cannot be reached; it is open whether the record is kept.
    fn finish(
        &self,
        key: &[u8],
        token: u128,
        record: &[u8],
    ) -> impl Future<Output = Result<bool, BoxError>> + Send;

    /// Ends the claim with `token` as if it had never been, if it is still the key's own.
    ///
    /// # Errors
    /// When the store cannot be reached; the claim then ends with its lease.
    fn release(&self, key: &[u8], token: u128)
    -> impl Future<Output = Result<(), BoxError>> + Send;

    /// The same for all clones of this store and for no other, while it lives: the address of what
    /// they share.
    fn instance(&self) -> usize;

    /// What names this store to callers (`idempotency-domain`): the same for all servers that share
    /// it, however each of them spells where it is, the same after a restart that it survives, and
    /// that of no other store. It is in every response, so it tells nothing of where the store is,
    /// and by which password it is reached. Printable ASCII. Default: `None`, for a store that
    /// nobody shares and that does not survive its process.
    fn domain(&self) -> Option<String> {
        None
    }

    /// How many records have been evicted before their time, to make room for others: each is a
    /// promise that is no longer kept by an answer. Default: 0, for a store that evicts none, or
    /// cannot tell.
    fn evicted(&self) -> u64 {
        0
    }
}

/// What came of claiming a key.
#[derive(Debug)]
pub enum Claim {
    /// It is yours, until you finish or release it, or its lease ends.
    Granted {
        /// Whether there was a claim before, whose lease ended and which said nothing.
        lapsed: bool,
    },
    /// Somebody else has it.
    Busy(Wait),
    /// It was answered.
    Done(Bytes),
    /// It was claimed for a request with another fingerprint.
    Mismatch,
    /// It was answered, and the record had to make room for others.
    Evicted,
    /// Nothing can be promised any more, until something that was promised has had its time.
    Full,
}

/// How to wait for a claim to end.
#[derive(Debug)]
pub struct Wait {
    longest: Duration,
    end: Option<watch::Receiver<()>>,
}

// === impl Wait ===

impl Wait {
    /// For stores that cannot tell: ask again after this long, at least 1 ms.
    pub const fn polling(after: Duration) -> Self {
        Self { longest: after, end: None }
    }

    /// Until the sender is dropped, or the lease has ended.
    pub const fn notified(lease: Duration, end: watch::Receiver<()>) -> Self {
        Self { longest: lease, end: Some(end) }
    }

    /// Waits until it is worth claiming again.
    pub async fn over(self) {
        match self.end {
            // Either way, whoever waits asks again.
            Some(mut end) => drop(timeout(self.longest, end.changed()).await),
            None => sleep(period(self.longest)).await,
        }
    }
}
