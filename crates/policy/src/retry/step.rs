//! What follows an attempt.

use super::{attempt::AttemptKind, stop::Stop};
use std::time::Duration;

/// What to do when an attempt has ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Others are in flight, or due later.
    GoOn,
    /// Another attempt is to be begun.
    Again(Again),
    /// The call ends, for this reason.
    Finish(Stop),
}

/// An attempt that is to be begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Again {
    /// Why it is made.
    pub kind: AttemptKind,
    /// The number of earlier attempts, which the request carries by gRFC A6.
    pub previous: u32,
    /// How long it waits first.
    pub wait: Duration,
    /// Whether the one before found no connection, and is no attempt: nothing was sent.
    pub replaces: bool,
}
