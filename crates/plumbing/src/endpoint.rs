//! What is said of the endpoint of a call.

use std::sync::Arc;

/// The name of an endpoint that a call is not sent to while another can be used; an extension of
/// its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Avoid(pub Arc<str>);

/// What a gate gives to a call that it lets through, and is given back. What the numbers mean
/// is the gate's affair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticket(pub u32, pub u64);
