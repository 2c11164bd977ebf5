//! What decides whether a call may be sent to an endpoint.

use crate::{Evidence, Rejected};
use cinchona_plumbing::Ticket;
use std::{fmt, time::Duration};
use tokio::time::Instant;

/// Decides whether a call may be sent, and hears what became of it: the circuit breaker of an
/// endpoint, for a balancer that knows nothing of breakers.
///
/// A caller that has entered leaves exactly once, also when it gives the call up.
pub trait Gate: fmt::Debug + Send + Sync {
    /// Whether a call to `path` would be let through; nothing changes by asking.
    fn is_open_to(&self, path: &str, now: Instant) -> bool;

    /// Lets a call to `path` through.
    ///
    /// # Errors
    /// Why not, and when it is worth trying again.
    fn enter(&self, path: &str, now: Instant) -> Result<Ticket, Rejected>;

    /// The head of a good response has come after `took`, and the call goes on: a stream, say, that
    /// need not end soon. What it leaves with; a gate that waits for an answer has it.
    fn answered(&self, ticket: Ticket, took: Duration, now: Instant) -> Ticket {
        _ = (took, now);
        ticket
    }

    /// The call has ended: what it says of the endpoint; how long the head of its response took;
    /// and when it ended.
    fn leave(&self, ticket: Ticket, evidence: Evidence, took: Duration, now: Instant);
}
