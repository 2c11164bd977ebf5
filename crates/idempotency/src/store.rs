//! The storage of claims and answers.

use cinchona_core::BoxError;
use cinchona_policy::dedup::Claim;
use std::{future::Future, time::Duration};

/// Keeps claims and records; clones share the store.
///
/// The task that executes a call claims its key under a lease, with a unique token, and the claim
/// ends with a record of the answer, or is released. All operations are atomic: of any number of
/// concurrent claims of a key, one is granted. A claim that is dropped before it is answered may
/// still be granted; the task that drops it releases it. The laws of every store are in
/// [`conformance`](crate::conformance), and can be run.
pub trait Store: Clone + Send + Sync + 'static {
    /// Claims `key` for the time `lease`, for a request with this `fingerprint`, by `token`.
    ///
    /// # Errors
    /// When the store does not answer within its own limit.
    fn claim(
        &self,
        key: &[u8],
        fingerprint: u128,
        token: u128,
        lease: Duration,
    ) -> impl Future<Output = Result<Claim, BoxError>> + Send;

    /// Ends the claim with `token`, and keeps `record` for the store's time to live. False, and
    /// nothing is kept, if the key is not, or no longer, held by that claim.
    ///
    /// # Errors
    /// When the store cannot be reached; it is unknown whether the record is kept.
    fn finish(
        &self,
        key: &[u8],
        token: u128,
        record: &[u8],
    ) -> impl Future<Output = Result<bool, BoxError>> + Send;

    /// Ends the claim with `token` without a record, if it is still held.
    ///
    /// # Errors
    /// When the store cannot be reached; the claim then ends with its lease.
    fn release(&self, key: &[u8], token: u128)
    -> impl Future<Output = Result<(), BoxError>> + Send;

    /// Identifies the store while it lives: the same for all clones, such as the address of their
    /// shared state.
    fn instance(&self) -> usize;

    /// Names this store to callers (`idempotency-domain`): the same for all servers that share it,
    /// whatever spelling of its address they use, the same after a restart that it survives, and
    /// unique among stores. It is in every response, so it must not reveal the store's address or
    /// password. Printable ASCII. Default: `None`, for a store that is not shared and does not
    /// survive its process.
    fn domain(&self) -> Option<String> {
        None
    }

    /// How many records have been evicted before their time: each is a broken promise. Default: 0,
    /// for a store that evicts none, or cannot know.
    fn evicted(&self) -> u64 {
        0
    }
}
