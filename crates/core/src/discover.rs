//! Sources of endpoints.

use crate::Target;
use cinchona_plumbing::Signals;
use std::future::Future;
use tokio::sync::watch;

/// Finds endpoints, and reports changes.
///
/// # What a source can rely on
///
/// * A task of the balancer drives it. The future of [`next`](Self::next) is polled until it is
///   ready, and not dropped before except with the balancer itself: so it may sleep, wait for a
///   lock or hold a half-read answer.
/// * `next` is called again once its endpoints have been adopted, and never after `None`.
///
/// # What a balancer can rely on
///
/// * The last list remains until another one is found: a source without news waits.
/// * A source that ends, by `None` or by a panic, leaves its last list.
///
/// ```
/// use cinchona_core::{Discover, Target};
/// use std::time::Duration;
///
/// struct File(std::path::PathBuf);
///
/// impl Discover for File {
///     async fn next(&mut self) -> Option<Vec<Target>> {
///         tokio::time::sleep(Duration::from_secs(10)).await;
///         let text = std::fs::read_to_string(&self.0).ok()?;
///         Some(text.lines().filter_map(|line| line.parse().ok()).collect())
///     }
/// }
/// ```
pub trait Discover: Send + 'static {
    /// All endpoints, whenever they have changed; at first as soon as they are known. `None` when
    /// they will not change any more.
    fn next(&mut self) -> impl Future<Output = Option<Vec<Target>>> + Send;

    /// The endpoints that are known without waiting; called once, first. Default: none.
    fn known(&mut self) -> Option<Vec<Target>> {
        None
    }

    /// Signals between the source and its balancer; called once. Default: none are received.
    fn signals(&self) -> Signals {
        Signals::default()
    }
}

// === impl Discover ===

impl Discover for Vec<Target> {
    async fn next(&mut self) -> Option<Self> {
        let all = std::mem::take(self);
        (!all.is_empty()).then_some(all)
    }

    fn known(&mut self) -> Option<Self> {
        Some(std::mem::take(self))
    }
}

impl Discover for watch::Receiver<Vec<Target>> {
    async fn next(&mut self) -> Option<Vec<Target>> {
        self.changed().await.ok()?;
        Some(self.borrow_and_update().clone())
    }

    fn known(&mut self) -> Option<Vec<Target>> {
        Some(self.borrow_and_update().clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Uri;

    #[tokio::test]
    async fn a_watch_reports_its_value_immediately_then_each_change_and_its_end() {
        let targets = || vec![Target::from(Uri::from_static("http://a"))];
        let (sender, mut watched) = watch::channel(targets());
        assert_eq!(watched.known(), Some(targets()));
        sender.send_replace(Vec::new());
        assert_eq!(watched.next().await, Some(Vec::new()));
        drop(sender);
        assert_eq!(watched.next().await, None);
    }
}
