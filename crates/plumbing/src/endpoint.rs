//! Types about the endpoint of a call.

use std::sync::Arc;

/// The name of an endpoint to avoid while another can be used; an extension of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Avoid(pub Arc<str>);

/// The ticket that a gate issues to an admitted call, and gets back. Only the gate interprets the
/// numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticket(pub u32, pub u64);
