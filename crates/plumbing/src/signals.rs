//! Signals between a source of endpoints and its balancer.

use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// Signals between a source of endpoints and its balancer, besides the endpoints; clones share
/// them.
#[derive(Clone, Debug, Default)]
pub struct Signals(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    again: Notify,
    failure: Mutex<Option<Arc<str>>>,
}

// === impl Signals ===

impl Signals {
    /// The balancer requests a new lookup: a connection was lost, or cannot be made. The source
    /// limits its rate.
    pub fn ask_again(&self) {
        self.0.again.notify_one();
    }

    /// Waits until a new lookup is requested, also if that was before this is called.
    pub async fn asked_again(&self) {
        self.0.again.notified().await;
    }

    /// The source's lookup failed because of `why`; the last endpoints remain.
    pub fn failed(&self, why: impl Into<Arc<str>>) {
        self.set(Some(why.into()));
    }

    /// The source's lookup succeeded.
    pub fn succeeded(&self) {
        self.set(None);
    }

    /// Why the last lookup has failed, if it has.
    pub fn failure(&self) -> Option<Arc<str>> {
        self.0.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, failure: Option<Arc<str>>) {
        *self.0.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_earlier_request_is_received_later() {
        let signals = Signals::default();
        signals.clone().ask_again();
        signals.asked_again().await;
        signals.failed("no such host");
        assert_eq!(signals.clone().failure().as_deref(), Some("no such host"));
        signals.succeeded();
        assert_eq!(signals.failure(), None);
    }
}
