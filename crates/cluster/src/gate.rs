//! The gate of a worker: reports the outcome of calls to the failure detector, and limits calls to
//! the worker's capacity.

use crate::Cluster;
use cinchona_core::{Evidence, Gate, Rejected, Target};
use cinchona_plumbing::Ticket;
use http::Uri;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;
use tonic::Code;

/// Reports to `cluster` how calls end, and enforces the capacity.
#[derive(Debug)]
struct Worker {
    /// Another gate that must admit the call as well, such as a breaker.
    inner: Option<Arc<dyn Gate>>,
    cluster: Cluster,
    address: Uri,
    /// The most calls in flight, from the `capacity` tag, if set.
    capacity: Option<u32>,
    in_flight: AtomicU32,
    has_failed: AtomicBool,
}

/// A place that is given back unless it is [kept](Self::keep), also where the inner gate refuses or
/// panics.
struct Place<'a>(&'a AtomicU32);

impl Cluster {
    /// The gate of a worker, for `cinchona_balance::Options::gate`; `inner` is asked first, such as
    /// a breaker per endpoint.
    ///
    /// Calls that fail with `UNAVAILABLE` or `DEADLINE_EXCEEDED` are reported as failures of the
    /// node. A node with the tag `capacity` gets at most that many calls of this client at once;
    /// where all nodes are at capacity, a call fails with `RESOURCE_EXHAUSTED`, which names the
    /// load of each.
    pub fn gate(&self, worker: &Target, inner: Option<Arc<dyn Gate>>) -> Arc<dyn Gate> {
        let capacity = self.capacity(&worker.uri);
        Arc::new(Worker {
            inner,
            cluster: self.clone(),
            address: worker.uri.clone(),
            capacity,
            in_flight: AtomicU32::new(0),
            has_failed: AtomicBool::new(false),
        })
    }

    /// Reports that a call to the node at this address failed, or was answered.
    fn report(&self, address: &Uri, failed: bool) {
        self.shared().view().report_at(address, failed, Instant::now());
    }

    /// The `capacity` tag of the node at this address.
    fn capacity(&self, address: &Uri) -> Option<u32> {
        let shared = self.shared();
        let own = (shared.config.address.as_ref() == Some(address)).then(|| shared.tags().clone());
        let tags = own.or_else(|| shared.view().tags_at(address).cloned());
        tags?.get("capacity")?.parse().ok()
    }
}

// === impl Worker ===

impl Worker {
    fn is_full(&self) -> bool {
        self.capacity.is_some_and(|capacity| self.in_flight.load(Ordering::Relaxed) >= capacity)
    }

    /// Adds one call in flight, if there is room.
    fn take_place(&self) -> Option<Place<'_>> {
        let most = self.capacity.unwrap_or(u32::MAX);
        let more = |in_flight| (in_flight < most).then_some(in_flight + 1);
        self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Place(&self.in_flight))
    }

    fn full(&self) -> Rejected {
        let (place, capacity) = (self.address.authority(), self.capacity.unwrap_or(u32::MAX));
        let place = place.map(ToString::to_string).unwrap_or_default();
        Rejected::exhausted(format!(
            "{place} {}/{capacity}",
            self.in_flight.load(Ordering::Relaxed)
        ))
    }
}

// === impl Place ===

impl Place<'_> {
    /// Keeps the place until the call leaves.
    const fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gate for Worker {
    fn is_open_to(&self, path: &str, now: Instant) -> bool {
        !self.is_full() && self.inner.as_ref().is_none_or(|inner| inner.is_open_to(path, now))
    }

    fn enter(&self, path: &str, now: Instant) -> Result<Ticket, Rejected> {
        let place = self.take_place().ok_or_else(|| self.full())?;
        let ticket = self.inner.as_ref().map(|inner| inner.enter(path, now)).transpose()?;
        place.keep();
        Ok(ticket.unwrap_or_default())
    }

    fn answered(&self, ticket: Ticket, took: Duration, now: Instant) -> Ticket {
        self.inner.as_ref().map_or(ticket, |inner| inner.answered(ticket, took, now))
    }

    fn leave(&self, ticket: Ticket, evidence: Evidence, took: Duration, now: Instant) {
        drop(Place(&self.in_flight));
        if let Some(inner) = &self.inner {
            inner.leave(ticket, evidence, took, now);
        }
        let fails = match evidence {
            Evidence::Nothing(None) => return,
            Evidence::Bad(code) => matches!(code, Code::Unavailable | Code::DeadlineExceeded),
            Evidence::Good(_) | Evidence::Nothing(_) => false,
        };
        // After a success with no failure before it there is nothing to report, and no lookup.
        if fails || self.has_failed.load(Ordering::Relaxed) {
            self.has_failed.store(fails, Ordering::Relaxed);
            self.cluster.report(&self.address, fails);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use rand::{RngExt, seq::IndexedRandom};

    #[tokio::test]
    async fn a_worker_at_its_capacity_gets_no_more_and_the_refusal_names_its_load() {
        let mut config = Config::new("gate", "n1", ([127, 0, 0, 1], 0).into());
        config.address = Some(Uri::from_static("http://a:1"));
        config.tags.insert("capacity".into(), "2".into());
        let cluster = Cluster::join(config, &[]).await.unwrap();
        let gate = cluster.gate(&Uri::from_static("http://a:1").into(), None);
        let now = Instant::now();
        let first = gate.enter("/s/M", now).unwrap();
        gate.enter("/s/M", now).unwrap();
        assert!(!gate.is_open_to("/s/M", now));
        let full = gate.enter("/s/M", now).unwrap_err();
        assert_eq!((full.code(), full.to_string().as_str()), (Code::ResourceExhausted, "a:1 2/2"));
        gate.leave(first, Evidence::Nothing(None), Duration::ZERO, now);
        assert!(gate.is_open_to("/s/M", now));
        // A node without a `capacity` tag has no limit here.
        let other = cluster.gate(&Uri::from_static("http://b:1").into(), None);
        assert!((0..1000).all(|_| other.enter("/s/M", now).is_ok()));
    }

    /// Refuses, or panics.
    #[derive(Debug)]
    struct Broken;

    impl Gate for Broken {
        fn is_open_to(&self, _: &str, _: Instant) -> bool {
            true
        }

        fn enter(&self, path: &str, _: Instant) -> Result<Ticket, Rejected> {
            assert!(path != "/s/Panics", "a gate that panics");
            match path {
                "/s/Refused" => Err(Rejected::new("no", None)),
                _ => Ok(Ticket::default()),
            }
        }

        fn leave(&self, _: Ticket, _: Evidence, _: Duration, _: Instant) {}
    }

    // catalogue: S-E15
    #[tokio::test]
    async fn no_call_is_in_flight_after_it_ended_in_any_way() {
        let mut config = Config::new("gate", "n1", ([127, 0, 0, 1], 0).into());
        config.address = Some(Uri::from_static("http://a:1"));
        config.tags.insert("capacity".into(), "8".into());
        let cluster = Cluster::join(config, &[]).await.unwrap();
        let worker = Worker {
            inner: Some(Arc::new(Broken)),
            capacity: cluster.capacity(&Uri::from_static("http://a:1")),
            cluster,
            address: Uri::from_static("http://a:1"),
            in_flight: AtomicU32::new(0),
            has_failed: AtomicBool::new(false),
        };
        let (rng, now) = (cinchona_core::Rng::seeded(15), Instant::now());
        let mut held = Vec::new();
        for _ in 0..10_000 {
            let mut rng = rng.draw();
            let path = *["/s/M", "/s/Refused", "/s/Panics"].choose(&mut rng).unwrap();
            let entered =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| worker.enter(path, now)));
            held.extend(entered.ok().and_then(Result::ok));
            assert_eq!(worker.in_flight.load(Ordering::Relaxed) as usize, held.len());
            if held.len() == 8 || rng.random() {
                let evidence = [
                    Evidence::Nothing(None),
                    Evidence::Bad(Code::Unavailable),
                    Evidence::Good(Code::Ok),
                ];
                let ended = held.pop().zip(evidence.choose(&mut rng));
                if let Some((ticket, how)) = ended {
                    worker.leave(ticket, *how, Duration::ZERO, now);
                }
            }
        }
        held.into_iter().for_each(|ticket| {
            worker.leave(ticket, Evidence::Nothing(None), Duration::ZERO, now);
        });
        assert_eq!(worker.in_flight.load(Ordering::Relaxed), 0);
    }
}
