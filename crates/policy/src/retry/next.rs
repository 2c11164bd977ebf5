//! The attempt that follows another.

use super::attempt::AttemptKind;
use std::time::Duration;

/// An attempt that is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextAttempt {
    /// Why it is made.
    pub kind: AttemptKind,
    /// The number of earlier attempts, which the request carries by gRFC A6.
    pub previous: u32,
    /// How long it waits first.
    pub wait: Duration,
    /// Whether the one before found no connection, and is no attempt: nothing was sent.
    pub replaces: bool,
}
