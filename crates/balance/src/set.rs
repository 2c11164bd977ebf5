//! The endpoints of a client: their list, comparison and choice.

use crate::{
    Options, Snapshot, State,
    address::{Connector, Key, Place, interleave},
    callback,
    node::Node,
    pick::{Choice, Picked, pick},
    stir::Stir,
};
use cinchona_core::{Call, IDEMPOTENCY_KEY, Rejected, Target};
use cinchona_plumbing::{Reloadable, Signals, headers};
use cinchona_policy::{
    outlier::{Ejection, Ejections, Method},
    pick::{Picker, Picking},
};
use http::Request;
use rand::seq::SliceRandom;
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{sync::watch, time::Instant};
use tonic::body::Body;

/// The state shared by all clones of a balancer.
#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) picking: Picking,
    pub(crate) choice: Reloadable<Choice>,
    pub(crate) options: Arc<Options>,
    pub(crate) signals: Signals,
    /// Which connector is used.
    connector: Connector,
    /// Notified after every change of `choice`.
    changed: watch::Sender<()>,
    /// An endpoint has changed: the choice must be updated.
    pub(crate) stir: Arc<Stir>,
    /// Whether a call was made: a lazy balancer connects no sooner.
    pub(crate) is_used: watch::Sender<bool>,
    /// Gates are shut: another endpoint must be connected.
    pub(crate) wants_more: AtomicBool,
    known: Mutex<Known>,
}

/// The knowledge about the endpoints.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) nodes: Vec<Arc<Node>>,
    /// In the order of `nodes`.
    ejections: Vec<Ejection>,
    counts: Ejections,
    /// Targets that are not addresses, with the errors.
    pub(crate) refused: Vec<String>,
    /// Since when no endpoint is usable.
    pub(crate) down_since: Option<Instant>,
    pub(crate) source: Source,
}

/// The state of the source of endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// It has found nothing yet.
    Looking,
    Found,
    /// It has ended: by itself, or by a panic.
    Ended(Option<String>),
    /// The task that connects endpoints is gone, for example with its runtime.
    Gone,
}

// === impl Set ===

impl Set {
    pub(crate) fn new(
        options: Options,
        signals: Signals,
        connector: Connector,
        now: Instant,
    ) -> Arc<Self> {
        let is_first = options.picker == Picker::PickFirst;
        let picking = Picking::new(options.picker, options.rng.clone());
        let known = Known {
            nodes: Vec::new(),
            ejections: Vec::new(),
            counts: Ejections::default(),
            refused: Vec::new(),
            down_since: Some(now),
            source: Source::Looking,
        };
        Arc::new(Self {
            picking,
            choice: Reloadable::new(Choice::default()),
            options: Arc::new(options),
            signals,
            connector,
            changed: watch::Sender::new(()),
            stir: Arc::new(Stir::new(is_first)),
            is_used: watch::Sender::new(false),
            wants_more: AtomicBool::new(false),
            known: Mutex::new(known),
        })
    }

    pub(crate) fn known<T>(&self, with: impl FnOnce(&mut Known) -> T) -> T {
        with(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// An endpoint that admits this call, if there is one.
    pub(crate) fn pick(
        &self,
        request: &Request<Body>,
        now: Instant,
    ) -> Option<Result<Picked, Rejected>> {
        let choice = self.choice.get();
        if let Some(avoid) = request.extensions().get()
            && let Some(Ok(picked)) = self.pick_among(&choice.without(avoid, now), request, now)
        {
            return Some(Ok(picked));
        }
        self.pick_among(&choice, request, now)
    }

    fn pick_among(
        &self,
        choice: &Choice,
        request: &Request<Body>,
        now: Instant,
    ) -> Option<Result<Picked, Rejected>> {
        let call = Call::find(request).filter(|call| call.has_been_sent());
        let must_be_recognised = call.filter(|_| headers::has(request.headers(), &IDEMPOTENCY_KEY));
        let path = request.uri().path();
        let Some(call) = must_be_recognised else {
            return pick(&self.picking, choice, call, path, now);
        };
        // Rare: only later attempts search all endpoints.
        let mut nodes = choice.nodes.clone();
        nodes.retain(|node| call.would_recognise(node.id, node.domain().as_ref()));
        pick(&self.picking, &choice.of_those(nodes, now), Some(call), path, now)
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Updates the choice of usable endpoints; returns whether an outage of all has just ended.
    pub(crate) fn refresh(&self) -> bool {
        let now = Instant::now();
        let has_ended = self.known(|known| {
            let ready = || known.nodes.iter().filter(|node| node.is_ready());
            let sound = |node: &&Arc<Node>| !node.is_ejected.load(Ordering::Relaxed);
            let (all, good) = (ready().count(), ready().filter(sound).count());
            // If too many are ejected, the cause is likely elsewhere: fail open.
            let panics = good * 100 < all * self.options.panic_threshold as usize;
            let nodes: Vec<_> = ready().filter(|node| panics || sound(node)).cloned().collect();
            let is_down = nodes.is_empty();
            let was_down = known.down_since.is_some();
            self.choice.set(Choice::new(nodes, panics, now));
            known.down_since = if is_down { known.down_since.or(Some(now)) } else { None };
            was_down && !is_down
        });
        self.changed.send_replace(());
        has_ended
    }

    /// Updates only the weights.
    pub(crate) fn weigh(&self) {
        // Still unshared, so that no concurrent choice is overwritten.
        self.known(|_| {
            let weighed = self.choice.get().weighed(Instant::now());
            self.choice.set(weighed);
        });
    }

    /// The current state of each endpoint.
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
        if !self.ejects() {
            return;
        }
        let now = Instant::now();
        let ejected = self.known(|known| {
            let index = known.nodes.iter().position(|known| known.id == node.id);
            let Known { ejections, counts, .. } = known;
            index.is_some_and(|index| {
                let (found, mut counted) = ((index, Method::ConsecutiveFailures), *counts);
                let ejected = outlier.eject(found, || false, ejections, &mut counted, now);
                // One that may not be ejected is detected again after as many failures.
                if ejected || failures.is_multiple_of(most) {
                    *counts = counted;
                }
                ejected
            })
        });
        if ejected {
            tracing::info!(endpoint = %node.name(), failures, "endpoint ejected");
            node.is_ejected.store(true, Ordering::Relaxed);
            node.tally.begin_anew();
            self.refresh();
        }
    }

    /// With one endpoint in use there is nothing to compare.
    fn ejects(&self) -> bool {
        self.options.picker != Picker::PickFirst
    }

    /// Compares the endpoints; returns whether one was ejected or readmitted.
    pub(crate) fn sweep(&self) -> bool {
        if !self.ejects() {
            return false;
        }
        let now = Instant::now();
        self.known(|known| {
            let Known { nodes, ejections, counts, .. } = known;
            let tallies: Vec<_> = nodes.iter().map(|node| &node.tally).collect();
            let (outlier, rng) = (&self.options.outlier, &self.options.rng);
            outlier.sweep(&tallies, ejections, counts, now, rng);
            let mut changed = false;
            for (node, ejection) in nodes.iter().zip(ejections) {
                let is = ejection.since.is_some();
                if node.is_ejected.swap(is, Ordering::Relaxed) != is {
                    let what = if is { "endpoint ejected" } else { "endpoint readmitted" };
                    tracing::info!(endpoint = %node.name(), "{what}");
                    changed = true;
                }
            }
            changed
        })
    }

    /// Replaces the list, keeping the state of endpoints that stay; returns the new and the removed
    /// ones.
    pub(crate) fn replace(&self, found: Vec<Target>) -> (Vec<Arc<Node>>, Vec<Arc<Node>>) {
        let now = Instant::now();
        let (found, refused) = self.places(found);
        let (mut fresh, mut nodes, mut ejections) = (Vec::new(), Vec::new(), Vec::new());
        self.known(|known| {
            let old = known.nodes.drain(..).zip(known.ejections.drain(..));
            let mut old: HashMap<Key, _> =
                old.map(|(node, ejection)| (node.place.key.clone(), (node, ejection))).collect();
            for (target, place) in found {
                let (node, ejection) = match old.remove(&place.key) {
                    Some((node, ejection)) => {
                        node.set_weight(target.weight);
                        (node, ejection)
                    }
                    None => {
                        let node = self.node(target, place, now);
                        fresh.push(node.clone());
                        (node, Ejection::default())
                    }
                };
                nodes.push(node);
                ejections.push(ejection);
            }
            (known.nodes, known.ejections) = (nodes, ejections);
            known.refused = refused;
            known.source = Source::Found;
            if !fresh.is_empty() {
                known.down_since = Some(now);
            }
            (fresh, old.into_values().map(|(node, _)| node).collect())
        })
    }

    fn node(&self, target: Target, place: Place, now: Instant) -> Arc<Node> {
        let gate = self.options.gate.as_ref().map(|make| callback::call("gate", || make(&target)));
        let (gate, error) = match gate {
            Some(Err(error)) => (None, Some(error)),
            gate => (gate.and_then(Result::ok), None),
        };
        let utilization = self.options.utilization;
        let is_weighted = self.options.picker == Picker::WeightedRoundRobin;
        let utilization = is_weighted.then_some(utilization);
        let node = Node::new((target, place), gate, utilization, self.stir.clone(), now);
        if let Some(error) = error {
            node.breaks(error);
        }
        Arc::new(node)
    }

    /// Each of them once, in the order in which they are used, and the invalid ones.
    fn places(&self, found: Vec<Target>) -> (Vec<(Target, Place)>, Vec<String>) {
        let (mut seen, mut places, mut refused) = (HashSet::new(), Vec::new(), Vec::new());
        for target in found {
            let target = target.without_userinfo();
            match Place::new(&target, self.connector) {
                Ok(place) if seen.insert(place.key.clone()) => places.push((target, place)),
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(%error, "an endpoint that was found is none");
                    refused.push(error.to_string());
                }
            }
        }
        if self.options.picker == Picker::PickFirst {
            if self.options.shuffle_address_list {
                places.shuffle(&mut self.options.rng.draw());
            }
            places = interleave(places, |(_, place)| place.is_ipv6());
        }
        (places, refused)
    }

    /// Which of the endpoints are to be connected.
    pub(crate) fn wants(&self, wants: impl Fn(usize) -> bool) {
        let nodes = self.known(|known| known.nodes.clone());
        for (place, node) in nodes.iter().enumerate() {
            node.set_wanted(wants(place));
        }
    }

    /// The first call has arrived, for which a lazy balancer waits.
    pub(crate) fn begins(&self) {
        self.known(|known| known.down_since = Some(Instant::now()));
    }

    /// The states of all, in their order.
    pub(crate) fn looks(&self) -> Vec<State> {
        self.known(|known| known.nodes.iter().map(|node| node.state()).collect())
    }

    pub(crate) fn becomes(&self, source: Source) {
        self.known(|known| known.source = source);
        self.changed.send_replace(());
    }
}
