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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    const SECOND: Duration = Duration::from_secs(1);

    async fn waited(wait: Wait) -> Duration {
        let began = Instant::now();
        wait.over().await;
        Instant::now() - began
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_waits_until_the_claim_ends_or_its_lease_or_a_store_is_to_be_asked_again() {
        let (ends, end) = watch::channel(());
        let end = || Wait::notified(2 * SECOND, end.clone());
        assert_eq!(waited(end()).await, 2 * SECOND);
        let ended = async {
            sleep(SECOND).await;
            drop(ends);
        };
        assert_eq!(tokio::join!(waited(end()), ended).0, SECOND);
        assert_eq!(waited(Wait::polling(SECOND)).await, SECOND);
        assert_eq!(waited(Wait::polling(Duration::ZERO)).await, Duration::from_millis(1));
    }
}
