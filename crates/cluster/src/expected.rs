//! How many nodes are expected, from an operator or a provider.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::watch;

/// How many nodes a cluster should have, whatever their names: a fixed number, or one from a
/// provider, such as the replicas of a Kubernetes workload.
///
/// *Why:* members known by name are expected until they leave. A pod that crashes comes back under
/// a new name, so the list of names grows until no side has a majority of it.
///
/// *Rule:* a node accepts writes if it reaches more than half of this number, or of the live nodes
/// where those are more. When the expected number is reachable, the other names count as replaced,
/// and are expected no more. Of two equal halves neither accepts writes.
///
/// The number must be the most that run concurrently: a Deployment's `replicas` plus its
/// `maxSurge`. Two sides of a cut can both accept writes only if the nodes that run exceed an even
/// number by two, or an odd one by one.
///
/// ```
/// use cinchona_cluster::{Config, Expected};
/// use tokio::sync::watch;
///
/// let mut config = Config::new("orders", "orders-1", ([10, 0, 0, 7], 7946).into());
/// config.expected = Some(3.into());
/// let (replicas, seen) = watch::channel(3_usize);
/// config.expected = Some(seen.into());
/// config.expected = Some(Expected::asked(|| 3));
/// # drop(replicas);
/// ```
#[derive(Clone)]
pub struct Expected {
    source: Source,
    /// The last number that was more than 0; 0 before.
    last: Arc<AtomicUsize>,
}

#[derive(Clone)]
enum Source {
    Fixed,
    Watched(watch::Receiver<usize>),
    Asked(Arc<dyn Fn() -> usize + Send + Sync>),
}

// === impl Expected ===

impl Expected {
    /// Calls `ask` for the number, twice each heartbeat; it must not block. While it returns 0 or
    /// panics, its last number holds; before the first number writes are refused.
    pub fn asked(ask: impl Fn() -> usize + Send + Sync + 'static) -> Self {
        Self { source: Source::Asked(Arc::new(ask)), last: Arc::default() }
    }

    /// The current number; 0 while it is not known.
    pub(crate) fn now(&self) -> usize {
        let said = match &self.source {
            Source::Fixed => 0,
            Source::Watched(number) => *number.borrow(),
            Source::Asked(ask) => catch_unwind(AssertUnwindSafe(&**ask)).unwrap_or_else(|_| {
                tracing::error!("the provider of the expected number of nodes has panicked");
                0
            }),
        };
        if said > 0 {
            self.last.store(said, Ordering::Relaxed);
        }
        self.last.load(Ordering::Relaxed)
    }

    /// Whether it is a fixed 0, which no cluster can reach.
    pub(crate) fn is_none(&self) -> bool {
        matches!(self.source, Source::Fixed) && self.now() == 0
    }
}

/// A fixed number; 0 is refused by [`Cluster::join`](crate::Cluster::join).
impl From<usize> for Expected {
    fn from(count: usize) -> Self {
        Self { source: Source::Fixed, last: Arc::new(count.into()) }
    }
}

/// The last number holds, also after the sender is dropped; 0 is ignored.
impl From<watch::Receiver<usize>> for Expected {
    fn from(number: watch::Receiver<usize>) -> Self {
        Self { source: Source::Watched(number), last: Arc::default() }
    }
}

impl PartialEq for Expected {
    fn eq(&self, other: &Self) -> bool {
        match (&self.source, &other.source) {
            (Source::Fixed, Source::Fixed) => self.now() == other.now(),
            (Source::Watched(own), Source::Watched(other)) => own.same_channel(other),
            (Source::Asked(own), Source::Asked(other)) => Arc::ptr_eq(own, other),
            _ => false,
        }
    }
}

impl fmt::Debug for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match &self.source {
            Source::Fixed => "fixed",
            Source::Watched(_) => "watched",
            Source::Asked(_) => "asked",
        };
        f.debug_tuple(source).field(&self.last).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_of_a_provider_holds_while_it_returns_none() {
        let (sender, number) = watch::channel(0);
        let expected = Expected::from(number);
        assert_eq!(expected.now(), 0);
        for (said, holds) in [(3, 3), (0, 3), (5, 5)] {
            sender.send(said).unwrap();
            assert_eq!(expected.now(), holds);
        }
        drop(sender);
        assert_eq!(expected.now(), 5);
    }

    #[test]
    fn a_provider_that_panics_says_nothing() {
        let asked = AtomicUsize::new(0);
        let expected = Expected::asked(move || match asked.fetch_add(1, Ordering::Relaxed) {
            1 => panic!("no API server"),
            _ => 4,
        });
        assert_eq!([expected.now(), expected.now(), expected.now()], [4, 4, 4]);
    }

    #[test]
    fn a_number_is_itself_and_a_provider_is_known_by_its_channel() {
        assert_eq!(Expected::from(3), Expected::from(3));
        assert_ne!(Expected::from(3), Expected::from(4));
        let (_sender, number) = watch::channel(3);
        assert_eq!(Expected::from(number.clone()), Expected::from(number.clone()));
        assert_ne!(Expected::from(number), Expected::from(3));
        assert!(Expected::from(0).is_none() && !Expected::asked(|| 0).is_none());
    }
}
