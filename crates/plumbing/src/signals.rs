//! What a source of endpoints and its balancer say to each other.

use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// What a source of endpoints and its balancer tell each other beside the endpoints; clones are the
/// same.
#[derive(Clone, Debug, Default)]
pub struct Signals(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    again: Notify,
    failure: Mutex<Option<Arc<str>>>,
}

// === impl Signals ===

impl Signals {
    /// The balancer asks for a new look: a connection was lost, or cannot be made. The source
    /// decides how often it looks.
    pub fn ask_again(&self) {
        self.0.again.notify_one();
    }

    /// Waits until a new look is asked for, also if that was before this is called.
    pub async fn asked_again(&self) {
        self.0.again.notified().await;
    }

    /// The source cannot find anything out, since `why`; what was found stays.
    pub fn failed(&self, why: impl Into<Arc<str>>) {
        self.set(Some(why.into()));
    }

    /// The source has looked, and knows.
    pub fn succeeded(&self) {
        self.set(None);
    }

    /// Why the last look has failed, if it has.
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
    async fn what_was_asked_before_is_heard_later() {
        let signals = Signals::default();
        signals.clone().ask_again();
        signals.asked_again().await;
        signals.failed("no such host");
        assert_eq!(signals.clone().failure().as_deref(), Some("no such host"));
        signals.succeeded();
        assert_eq!(signals.failure(), None);
    }
}
