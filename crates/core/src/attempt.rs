//! One attempt of a call, as recorded.

use crate::{AttemptKind, Verdict};
use cinchona_plumbing::status::Pushback;
use std::{num::NonZeroU64, sync::Arc, time::Duration};
use tokio::time::Instant;

/// The record of one attempt.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Attempt {
    /// Why it was made.
    pub kind: AttemptKind,
    /// When it began.
    pub began: Instant,
    /// When it ended, or its response began.
    pub ended: Option<Instant>,
    /// The verdict of the layer that makes attempts.
    pub verdict: Option<Verdict>,
    /// How long the call then waited before the next attempt; zero after the last.
    pub wait: Duration,
    /// The server's pushback.
    pub pushback: Option<Pushback>,
    /// Host and port of its server, if a balancer has recorded it.
    pub endpoint: Option<Arc<str>>,
    pub(crate) host: Option<NonZeroU64>,
    /// How many had a verdict before it.
    pub(crate) order: u32,
    /// Whether a layer has made it.
    pub(crate) is_made: bool,
    pub(crate) has_passed: bool,
    /// It does not count as an attempt: it has not begun yet, or it found no connection and its
    /// call still waits for one.
    pub(crate) is_void: bool,
}

// === impl Attempt ===

impl Attempt {
    pub(crate) const fn new(kind: AttemptKind, began: Instant) -> Self {
        Self {
            kind,
            began,
            ended: None,
            verdict: None,
            wait: Duration::ZERO,
            pushback: None,
            endpoint: None,
            host: None,
            order: 0,
            is_made: false,
            has_passed: false,
            is_void: false,
        }
    }
}
