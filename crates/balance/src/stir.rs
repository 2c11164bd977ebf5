//! Notifications of endpoints to the picker.

use crate::{
    State,
    sync::{AtomicUsize, Ordering},
};
use tokio::sync::Notify;

/// Notified when endpoints have changed so that the choice may change: of thousands that fail, none
/// is examined for that alone.
#[derive(Debug)]
pub(crate) struct Stir {
    heard: Notify,
    /// How many endpoints may soon be ready: neither ready nor failed.
    under_way: AtomicUsize,
    /// Whether each change matters.
    all: bool,
}

// === impl Stir ===

impl Stir {
    pub(crate) fn new(all: bool) -> Self {
        Self { heard: Notify::new(), under_way: AtomicUsize::new(0), all }
    }

    pub(crate) async fn heard(&self) {
        self.heard.notified().await;
    }

    /// Another change.
    pub(crate) fn stirs(&self) {
        self.heard.notify_one();
    }

    pub(crate) fn has_some_under_way(&self) -> bool {
        self.under_way.load(Ordering::Acquire) > 0
    }

    /// An endpoint was added, in that state.
    pub(crate) fn comes(&self, state: State) {
        if is_under_way(state) {
            self.under_way.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// An endpoint was removed.
    pub(crate) fn goes(&self, state: State) {
        if is_under_way(state) {
            self.under_way.fetch_sub(1, Ordering::AcqRel);
        }
    }

    pub(crate) fn changes(&self, before: State, after: State) {
        self.comes(after);
        self.goes(before);
        let is_ready = before == State::Ready || after == State::Ready;
        if is_ready || self.all || !self.has_some_under_way() {
            self.stirs();
        }
    }
}

const fn is_under_way(state: State) -> bool {
    matches!(state, State::Idle | State::Connecting)
}
