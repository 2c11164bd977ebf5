//! The outcomes of the attempts at each endpoint.

use crate::{
    client::Layers,
    recent::{Recent, Summary, lock},
};
use cinchona::{
    balance::Ticket,
    core::{Evidence, Gate, Rejected, Target},
};
use std::{
    sync::{Arc, Mutex, Weak},
    time::Duration,
};
use tokio::time::Instant;

/// The outcomes of the attempts at each endpoint; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Endpoints(Arc<Mutex<Vec<Seen>>>);

/// An endpoint, for as long as its balancer knows it.
#[derive(Debug)]
struct Seen {
    name: String,
    recent: Weak<Recent>,
}

/// A gate that counts what passes it.
#[derive(Debug)]
struct Watched {
    inner: Arc<dyn Gate>,
    recent: Arc<Recent>,
}

// === impl Endpoints ===

impl Endpoints {
    /// The same layers, which count here the attempts at each endpoint of balancers that are made
    /// from now on.
    pub fn watching(&self, layers: Layers) -> Layers {
        let own = self.clone();
        layers.with_gate(move |server, gate| own.gate(server, gate))
    }

    /// The same gate, which counts the attempts that it lets through.
    pub fn gate(&self, server: &Target, inner: Arc<dyn Gate>) -> Arc<dyn Gate> {
        let recent = Arc::new(Recent::new(Instant::now()));
        let mut all = lock(&self.0);
        let name = server.to_string();
        all.retain(|seen| seen.name != name && seen.recent.strong_count() > 0);
        all.push(Seen { name, recent: Arc::downgrade(&recent) });
        Arc::new(Watched { inner, recent })
    }

    /// A summary of the latest attempts at an endpoint.
    pub(crate) fn of(&self, target: &Target, now: Instant) -> Option<Summary> {
        let (all, name) = (lock(&self.0), target.to_string());
        let seen = all.iter().find(|seen| seen.name == name)?;
        Some(seen.recent.upgrade()?.summary(now))
    }
}

// === impl Watched ===

impl Gate for Watched {
    fn is_open_to(&self, path: &str, now: Instant) -> bool {
        self.inner.is_open_to(path, now)
    }

    fn enter(&self, path: &str, now: Instant) -> Result<Ticket, Rejected> {
        self.inner.enter(path, now)
    }

    fn answered(&self, ticket: Ticket, took: Duration, now: Instant) -> Ticket {
        self.inner.answered(ticket, took, now)
    }

    fn leave(&self, ticket: Ticket, evidence: Evidence, took: Duration, now: Instant) {
        if evidence != Evidence::Nothing(None) {
            let failed = !matches!(evidence, Evidence::Good(_));
            self.recent.record(now, took, failed, 1);
        }
        self.inner.leave(ticket, evidence, took, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cinchona::breaker::{BreakerLayer, BreakerPolicy};
    use http::Uri;
    use tonic::Code;

    const PATH: &str = "/calculator.Calculator/Add";

    #[tokio::test(start_paused = true)]
    async fn a_watched_gate_decides_as_the_one_within_and_counts_what_it_hears() {
        let policy = BreakerPolicy::default().with_consecutive_failures(Some(3)).unwrap();
        let breaker = BreakerLayer::new(policy);
        let (endpoints, target) =
            (Endpoints::default(), Target::from(Uri::from_static("http://a")));
        let gate = endpoints.gate(&target, breaker.endpoint("a"));
        let now = Instant::now();
        let left = |evidence| {
            let ticket = gate.enter(PATH, now).unwrap();
            gate.leave(ticket, evidence, Duration::from_millis(7), now);
        };
        left(Evidence::Good(Code::Ok));
        left(Evidence::Nothing(None));
        (0..3).for_each(|_| left(Evidence::Bad(Code::DeadlineExceeded)));
        assert!(!gate.is_open_to(PATH, now) && gate.enter(PATH, now).is_err());
        let seen = endpoints.of(&target, now).unwrap();
        assert_eq!((seen.calls, seen.failed), (4, 3), "a cancelled attempt is no failure");
        drop(gate);
        assert_eq!(endpoints.of(&target, now), None, "it is gone");
    }
}
