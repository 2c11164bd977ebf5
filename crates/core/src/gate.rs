//! Admission of calls to an endpoint.

use crate::{Evidence, Rejected};
use cinchona_plumbing::Ticket;
use std::{fmt, time::Duration};
use tokio::time::Instant;

/// Decides whether a call may be sent, and receives its outcome: such as the circuit breaker of an
/// endpoint, for a balancer that knows no breakers.
///
/// A caller that has entered leaves exactly once, also when it drops the call.
pub trait Gate: fmt::Debug + Send + Sync {
    /// Whether a call to `path` would be admitted; changes nothing.
    fn is_open_to(&self, path: &str, now: Instant) -> bool;

    /// Admits a call to `path`.
    ///
    /// # Errors
    /// Why not, and when a retry is worthwhile.
    fn enter(&self, path: &str, now: Instant) -> Result<Ticket, Rejected>;

    /// The head of a good response has arrived after `took`, and the call goes on: for example a
    /// stream, which need not end soon. Returns the ticket for its end; a gate that waits for an
    /// answer has one now.
    fn answered(&self, ticket: Ticket, took: Duration, now: Instant) -> Ticket {
        _ = (took, now);
        ticket
    }

    /// The call has ended: the evidence about the endpoint; the time to the head of its response;
    /// and when it ended.
    fn leave(&self, ticket: Ticket, evidence: Evidence, took: Duration, now: Instant);
}
