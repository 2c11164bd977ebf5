//! What follows an attempt.

use crate::stop::Stop;
use cinchona_core::AttemptKind;
use std::time::Duration;

/// What to do when an attempt has ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Others are under way, or to come.
    GoOn,
    Again(Again),
    Finish(Stop),
}

/// An attempt that is to be begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Again {
    pub(crate) kind: AttemptKind,
    /// What the request says to the server: how many attempts were before, by gRFC A6.
    pub(crate) previous: u32,
    pub(crate) wait: Duration,
}
