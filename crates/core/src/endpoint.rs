//! Endpoints: where they are, and which of them a call has been sent to.

use http::Uri;
use std::{
    future::Future,
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::watch;

/// An address that serves, and how much of the load it is meant for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Such as `http://10.0.0.1:50051`.
    pub uri: Uri,
    /// Its share is this over the sum of all; at least 1. Of interest to weighted pickers only.
    pub weight: u32,
}

/// Finds endpoints, and notices when they change.
pub trait Discover: Send + 'static {
    /// All endpoints, whenever they have changed; at first as soon as they are known. `None` when
    /// they will not change any more.
    fn next(&mut self) -> impl Future<Output = Option<Vec<Target>>> + Send;
}

/// The endpoints that the attempts of a call were sent to, shared by them all: in the extensions of
/// a request, for a balancer that sends it elsewhere if it can.
#[derive(Clone, Debug, Default)]
pub struct Tried(Arc<[AtomicU64; MOST]>);

/// gRPC makes at most five attempts (gRFC A6).
const MOST: usize = 6;

// === impl Target ===

impl From<Uri> for Target {
    fn from(uri: Uri) -> Self {
        Self { uri, weight: 1 }
    }
}

// === impl Discover ===

impl Discover for Vec<Target> {
    async fn next(&mut self) -> Option<Self> {
        let all = std::mem::take(self);
        (!all.is_empty()).then_some(all)
    }
}

impl Discover for watch::Receiver<Vec<Target>> {
    async fn next(&mut self) -> Option<Vec<Target>> {
        self.changed().await.ok()?;
        Some(self.borrow_and_update().clone())
    }
}

// === impl Tried ===

impl Tried {
    /// Adds an endpoint, by the number that its balancer gave it; beyond six they are not
    /// remembered.
    pub fn add(&self, endpoint: NonZeroU64) {
        let endpoint = endpoint.get();
        for place in self.0.iter() {
            let free = place.compare_exchange(0, endpoint, Ordering::Relaxed, Ordering::Relaxed);
            if free.is_ok() || free == Err(endpoint) {
                return;
            }
        }
    }

    /// Whether an attempt was sent to this endpoint.
    pub fn contains(&self, endpoint: NonZeroU64) -> bool {
        self.0.iter().any(|place| place.load(Ordering::Relaxed) == endpoint.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u64) -> NonZeroU64 {
        NonZeroU64::new(id).unwrap()
    }

    #[test]
    fn what_was_tried_is_known_to_all_clones_up_to_six() {
        let tried = Tried::default();
        for n in [1, 2, 1, 3, 4, 5, 6, 7] {
            tried.clone().add(id(n));
        }
        assert!((1..=6).all(|n| tried.contains(id(n))));
        assert!(!tried.contains(id(7)));
    }

    #[tokio::test]
    async fn a_watch_tells_of_each_change_and_of_the_end() {
        let (targets, mut watched) = watch::channel(Vec::new());
        targets.send_replace(vec![Target::from(Uri::from_static("http://a"))]);
        assert_eq!(watched.next().await.map(|all| all.len()), Some(1));
        drop(targets);
        assert_eq!(watched.next().await, None);
    }
}
