//! What follows an attempt.

use crate::stop::Stop;
use cinchona_core::AttemptKind;
use std::time::Duration;

/// What to do when an attempt has ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Others are in flight, or due later.
    GoOn,
    Again(Again),
    Finish(Stop),
}

/// An attempt that is to be begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Again {
    pub(crate) kind: AttemptKind,
    /// The number of earlier attempts, which the request carries by gRFC A6.
    pub(crate) previous: u32,
    pub(crate) wait: Duration,
}
