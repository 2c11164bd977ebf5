//! The result of a claim.

use crate::clock::period;
use bytes::Bytes;
use std::time::Duration;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// The result of claiming a key.
#[derive(Debug)]
pub enum Claim {
    /// Granted, until you finish or release it, or its lease ends.
    Granted {
        /// Whether there was an earlier claim, whose lease ended without a result.
        lapsed: bool,
    },
    /// Another call holds it.
    Busy(Wait),
    /// It was answered.
    Done(Bytes),
    /// It was claimed for a request with another fingerprint.
    Mismatch,
    /// It was answered, and the record was evicted.
    Evicted,
    /// No more calls can be remembered until an evicted one expires.
    Full,
}

/// How to wait for a claim to end.
#[derive(Debug)]
pub struct Wait {
    longest: Duration,
    end: Option<watch::Receiver<()>>,
}

// === impl Wait ===

impl Wait {
    /// For stores that cannot notify: claim again after this long, at least 1 ms.
    pub const fn polling(after: Duration) -> Self {
        Self { longest: after, end: None }
    }

    /// Until the sender is dropped, or the lease has ended.
    pub const fn notified(lease: Duration, end: watch::Receiver<()>) -> Self {
        Self { longest: lease, end: Some(end) }
    }

    /// Waits until it is worth claiming again.
    pub async fn over(self) {
        match self.end {
            // In both cases the caller claims again.
            Some(mut end) => drop(timeout(self.longest, end.changed()).await),
            None => sleep(period(self.longest)).await,
        }
    }
}
