//! The endpoints of a client: found, connected, compared.

use crate::{
    Ejections, Options, Picker, Snapshot,
    ejections::Method,
    node::{Connecting, FIRST_BACKOFF, Node, State},
    outlier::Ejection,
    pick::{Choice, Picked, Picking},
};
use cinchona_core::{
    Backoff, BoxError, Discover, IDEMPOTENCY_KEY, Jitter, Live, Target, Tried, Unsent,
    clock::{FOR_EVER, later, period},
};
use http::{Request, Uri};
use hyper::rt::{Read, Write};
use std::{
    collections::HashMap,
    num::NonZeroU64,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{Instant, MissedTickBehavior, interval},
};
use tonic::{body::Body, transport::Endpoint};
use tower_service::Service;

/// What all clones of a balancer share.
#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) picking: Picking,
    pub(crate) choice: Live<Choice>,
    pub(crate) options: Options,
    /// Told of every change of `choice`.
    changed: watch::Sender<()>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    nodes: Vec<Arc<Node>>,
    /// In the order of `nodes`.
    ejections: Vec<Ejection>,
    counts: Ejections,
    /// Since when no endpoint can be used, though some are known.
    down_since: Option<Instant>,
    is_found: bool,
}

/// Ends the tasks of a set with the last clone of its balancer.
#[derive(Debug)]
pub(crate) struct Tasks(pub(crate) AbortHandle);

/// Tells endpoints apart, also those of other balancers.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

// === impl Set ===

impl Set {
    pub(crate) fn new(options: Options, now: Instant) -> Arc<Self> {
        let picking = Picking::new(options.picker, options.rng.clone());
        let known = Known { down_since: Some(now), ..Known::default() };
        Arc::new(Self {
            picking,
            choice: Live::new(Choice::default()),
            options,
            changed: watch::Sender::new(()),
            known: Mutex::new(known),
        })
    }

    fn known<T>(&self, with: impl FnOnce(&mut Known) -> T) -> T {
        with(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// An endpoint that lets this call through, if there is one at all.
    pub(crate) fn pick(
        &self,
        request: &Request<Body>,
        now: Instant,
    ) -> Option<Result<Picked, Unsent>> {
        let choice = self.choice.get();
        let tried = request.extensions().get::<Tried>();
        let must_be_recognised = tried
            .filter(|tried| !tried.is_empty() && request.headers().contains_key(IDEMPOTENCY_KEY));
        let path = request.uri().path();
        let Some(tried) = must_be_recognised else {
            return self.picking.pick(&choice, tried, path, now);
        };
        // Rare: only attempts after the first look at all endpoints.
        let mut nodes = choice.nodes.clone();
        nodes.retain(|node| tried.would_recognise(node.id, node.domain().as_ref()));
        self.picking.pick(&Choice::new(nodes, now), Some(tried), path, now)
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Chooses anew whom calls can be sent to.
    pub(crate) fn refresh(&self) {
        let now = Instant::now();
        self.known(|known| {
            let ready = || known.nodes.iter().filter(|node| node.state() == State::Ready);
            let sound = |node: &&Arc<Node>| !node.is_ejected.load(Ordering::Relaxed);
            let (all, good) = (ready().count(), ready().filter(sound).count());
            // Where too many are ejected, the fault is likely to lie elsewhere: fail open.
            let panics = good * 100 < all * self.options.panic_threshold as usize;
            let nodes = ready().filter(|node| panics || sound(node)).cloned().collect();
            self.choice.set(Choice::new(nodes, now));
            known.down_since = if all > 0 { None } else { known.down_since.or(Some(now)) };
        });
        self.changed.send_replace(());
    }

    /// Chooses among the same, by what they weigh now.
    fn weigh(&self) {
        // Known to none other meanwhile, so that no other choice is undone.
        self.known(|_| {
            let nodes = self.choice.get().nodes.clone();
            self.choice.set(Choice::new(nodes, Instant::now()));
        });
    }

    /// Whether a call without an endpoint is to wait until then, or to fail.
    pub(crate) fn patience(&self, now: Instant) -> Result<Option<Instant>, Unsent> {
        self.known(|known| {
            let down = |node: &Arc<Node>| node.state() == State::TransientFailure;
            let Some(since) = known.down_since.filter(|_| known.is_found) else { return Ok(None) };
            let until = later(since, self.options.patience);
            if now < until {
                return Ok(Some(until));
            }
            if known.nodes.iter().any(|node| !down(node)) {
                return Ok(None);
            }
            let last = known.nodes.iter().map(|node| node.last_error()).next_back();
            let count = known.nodes.len();
            let message = match last {
                Some(error) => format!("all {count} endpoints are down; the last error: {error}"),
                None => "there are no endpoints".to_owned(),
            };
            Err(Unsent::new(message, None))
        })
    }

    /// Each endpoint as it is now.
    pub(crate) fn states(&self) -> Vec<Snapshot> {
        let now = Instant::now();
        let snapshot = |(node, ejection): (&Arc<Node>, &Ejection)| {
            let left = self.options.outlier.left(ejection, now);
            node.snapshot(left.map(|(by, left)| (by.name(), left)))
        };
        self.known(|known| known.nodes.iter().zip(&known.ejections).map(snapshot).collect())
    }

    pub(crate) fn ejections(&self) -> Ejections {
        self.known(|known| known.counts)
    }

    /// An endpoint has failed so often in a row.
    pub(crate) fn failed_in_a_row(&self, node: &Node, failures: u32) {
        let outlier = &self.options.outlier;
        let Some(most) = outlier.consecutive_failures.filter(|most| failures >= *most) else {
            return;
        };
        let now = Instant::now();
        let ejected = self.known(|known| {
            let index = known.nodes.iter().position(|known| known.id == node.id);
            let Known { ejections, counts, .. } = known;
            index.is_some_and(|index| {
                let (found, mut counted) = ((index, Method::ConsecutiveFailures), *counts);
                let ejected = outlier.eject(found, || false, ejections, &mut counted, now);
                // One that may not be ejected is found again after as many failures.
                if ejected || failures.is_multiple_of(most) {
                    *counts = counted;
                }
                ejected
            })
        });
        if ejected {
            tracing::info!(endpoint = %node.target.uri, failures, "endpoint ejected");
            node.is_ejected.store(true, Ordering::Relaxed);
            node.tally.begin_anew();
            self.refresh();
        }
    }

    fn sweep(&self) {
        let now = Instant::now();
        let changed = self.known(|known| {
            let Known { nodes, ejections, counts, .. } = known;
            let tallies: Vec<_> = nodes.iter().map(|node| &node.tally).collect();
            let (outlier, rng) = (&self.options.outlier, &self.options.rng);
            outlier.sweep(&tallies, ejections, counts, now, rng);
            let mut changed = false;
            for (node, ejection) in nodes.iter().zip(ejections) {
                let is = ejection.since.is_some();
                if node.is_ejected.swap(is, Ordering::Relaxed) != is {
                    let what = if is { "endpoint ejected" } else { "endpoint readmitted" };
                    tracing::info!(endpoint = %node.target.uri, "{what}");
                    changed = true;
                }
            }
            changed
        });
        if changed {
            self.refresh();
        }
    }

    /// Finds endpoints, connects those that are new and lets go of those that have gone; compares
    /// them at their interval, and weighs them at theirs.
    pub(crate) async fn follow<C>(self: Arc<Self>, mut discover: impl Discover, connector: C)
    where
        C: Service<Uri> + Clone + Send + Sync + 'static,
        C::Response: Read + Write + Unpin + Send + 'static,
        C::Error: Into<BoxError>,
        C::Future: Send,
    {
        // Weakly, so that the last clone of the balancer ends this.
        let set = Arc::downgrade(&self);
        let mut sweeps = interval(period(self.options.outlier.interval));
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let is_weighted = self.options.picker == Picker::WeightedRoundRobin;
        let mut weighings = interval(period(self.options.utilization.weight_update_period));
        weighings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        drop(self);
        let mut running: HashMap<Target, AbortHandle> = HashMap::new();
        let mut tasks = JoinSet::new();
        let mut is_final = false;
        loop {
            let found = tokio::select! {
                found = discover.next(), if !is_final => found,
                _ = sweeps.tick() => {
                    let Some(set) = set.upgrade() else { return };
                    set.sweep();
                    continue;
                }
                _ = weighings.tick(), if is_weighted => {
                    let Some(set) = set.upgrade() else { return };
                    set.weigh();
                    continue;
                }
            };
            let Some(set) = set.upgrade() else { return };
            let Some(found) = found else {
                is_final = true;
                continue;
            };
            let found: Vec<_> = found.into_iter().map(Target::without_userinfo).collect();
            for node in set.replace(&found) {
                let Some(connecting) = set.options.connecting(&node.target, connector.clone())
                else {
                    tracing::error!(endpoint = %node.target.uri, "is no address of an endpoint");
                    continue;
                };
                let target = node.target.clone();
                let task = tasks.spawn(async move { node.run(connecting).await });
                running.insert(target, task);
            }
            running.retain(|target, task| {
                let stays = found.contains(target);
                if !stays {
                    task.abort();
                }
                stays
            });
            set.refresh();
        }
    }

    /// Knows these endpoints from now on; the new ones among them.
    fn replace(self: &Arc<Self>, found: &[Target]) -> Vec<Arc<Node>> {
        let now = Instant::now();
        let mut fresh = Vec::new();
        self.known(|known| {
            let old = std::mem::take(known);
            known.counts = old.counts;
            let mut old: HashMap<Target, _> = old
                .nodes
                .into_iter()
                .zip(old.ejections)
                .map(|(node, ejection)| (node.target.clone(), (node, ejection)))
                .collect();
            for target in found {
                if known.nodes.iter().any(|node| node.target == *target) {
                    continue;
                }
                let (node, ejection) = old.remove(target).unwrap_or_else(|| {
                    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
                    let id = NonZeroU64::new(id).unwrap_or(NonZeroU64::MIN);
                    let node = Node::new(id, target.clone(), self, now);
                    let node = Arc::new(node);
                    fresh.push(node.clone());
                    (node, Ejection::default())
                });
                known.nodes.push(node);
                known.ejections.push(ejection);
            }
            known.is_found = true;
            known.down_since = Some(now);
        });
        fresh
    }
}

// === impl Options ===

impl Options {
    fn connecting<C>(&self, target: &Target, connector: C) -> Option<Connecting<C>> {
        let mut endpoint = Endpoint::from_shared(target.uri.to_string())
            .ok()?
            .http2_max_header_list_size(self.max_header_list_size)
            .connect_timeout(self.connect_timeout.min(FOR_EVER));
        if let Some((interval, timeout)) = self.keep_alive {
            // hyper takes a call that waits for its answer to be idle.
            endpoint = endpoint
                .http2_keep_alive_interval(interval.min(FOR_EVER))
                .keep_alive_timeout(timeout.min(FOR_EVER))
                .keep_alive_while_idle(true);
        }
        if let Some(configure) = &self.configure {
            endpoint = configure(endpoint);
        }
        let backoff = Backoff::new(FIRST_BACKOFF, 1.6, Duration::from_secs(120)).ok()?;
        Some(Connecting {
            connector,
            endpoint,
            backoff: backoff.with_jitter(Jitter::Grpc),
            health: self.health.clone(),
            rng: self.rng.clone(),
        })
    }
}

// === impl Tasks ===

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.abort();
    }
}
