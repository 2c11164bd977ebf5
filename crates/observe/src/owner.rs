//! What owns the metrics that it registers.

use crate::{registry::Registry, source};
use cinchona_core::{Invalid, Observable};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// An owner of metrics, such as a client or a server; clones are the same owner.
///
/// *Why:* several clients of one target have the same names and labels in one registry, and come
/// and go.
///
/// *Rule:* what it registers is shown until its last clone is dropped, together with what other
/// owners have registered under the same names and labels:
///
/// | | shown is | dropped |
/// |---|---|---|
/// | a counter | the sum | stays in the sum, as it was then |
/// | a gauge of things or bytes (units `{call}`, `By`) | the sum | is gone |
/// | any other gauge: a state, an age | the greatest | is gone |
///
/// What has one [identity](Observable::identity) is counted once, whoever registers it, and counts
/// on when it is registered again.
///
/// ```
/// use cinchona_core::Methods;
/// use cinchona_observe::Metrics;
/// use cinchona_retry::{RetryLayer, RetryPolicy};
///
/// let metrics = Metrics::new(Methods::unknown());
/// let retry = || RetryLayer::new(RetryPolicy::default(), Methods::unknown());
/// let (one, other) = (metrics.owner(), metrics.owner());
/// one.register(&retry(), &[("grpc.target", "dns:///orders")])?;
/// other.register(&retry(), &[("grpc.target", "dns:///orders")])?;
/// let tokens = "cinchona_retry_budget_tokens{grpc_target=\"dns:///orders\"}";
/// assert!(metrics.render().contains(&format!("{tokens} 200\n")));
/// drop(other);
/// assert!(metrics.render().contains(&format!("{tokens} 100\n")));
/// # Ok::<_, cinchona_core::Invalid>(())
/// ```
///
/// *What it does not do:* it does not wait for calls in flight: what they count after its end is
/// not shown. Labels of counters that are not 0 stay, as in any client of Prometheus: so let
/// targets be few.
#[derive(Clone)]
pub struct Owner(Arc<Owned>);

struct Owned {
    registry: Arc<Registry>,
    id: u64,
}

// === impl Owner ===

impl Owner {
    pub(crate) fn new(registry: &Arc<Registry>) -> Self {
        static OWNERS: AtomicU64 = AtomicU64::new(1);
        let id = OWNERS.fetch_add(1, Ordering::Relaxed);
        Self(Arc::new(Owned { registry: registry.clone(), id }))
    }

    /// As [`Metrics::register`](crate::Metrics::register), until the owner is dropped. Of this
    /// owner's own, a registration with the same name and labels is replaced.
    ///
    /// # Errors
    /// As there.
    pub fn register<T: Observable>(&self, of: &T, labels: &[(&str, &str)]) -> Result<(), Invalid> {
        self.0.registry.add(source::of(of, labels)?, self.0.id)
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owner").field("id", &self.0.id).finish_non_exhaustive()
    }
}

// === impl Owned ===

impl Drop for Owned {
    fn drop(&mut self) {
        self.registry.end(self.id);
    }
}
