//! The endpoints of which one is picked, and the gate of that.

use crate::node::Node;
use cinchona_core::{Call, Rejected};
use cinchona_plumbing::{Avoid, Ticket};
use cinchona_policy::{
    pick::{Endpoints, Picking, Strides},
    utilization,
};
use std::sync::{Arc, atomic::Ordering};
use tokio::time::Instant;

/// Endpoints that can be picked, and their weights.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    pub(crate) nodes: Vec<Arc<Node>>,
    /// For the weighted picker.
    strides: Strides,
    /// Whether ejected endpoints are picked as well.
    spares_none: bool,
}

/// What a call has to know of them.
struct Asked<'a> {
    choice: &'a Choice,
    call: Option<&'a Call>,
    path: &'a str,
    now: Instant,
}

// === impl Choice ===

impl Choice {
    /// With their current weights.
    pub(crate) fn new(nodes: Vec<Arc<Node>>, spares_none: bool, now: Instant) -> Self {
        let given = || nodes.iter().map(|node| f64::from(node.given_weight())).collect();
        let reported = nodes.iter().map(|node| node.reported_weight(now));
        let weights = utilization::over_mean(reported);
        let weights: Vec<f64> = weights.unwrap_or_else(given);
        let strides = Strides::new(&weights);
        Self { nodes, strides, spares_none }
    }

    /// The same with fewer endpoints.
    pub(crate) fn of_those(&self, nodes: Vec<Arc<Node>>, now: Instant) -> Self {
        Self::new(nodes, self.spares_none, now)
    }

    /// The same of all others.
    pub(crate) fn without(&self, avoid: &Avoid, now: Instant) -> Self {
        let others = self.nodes.iter().filter(|node| **node.name() != *avoid.0);
        self.of_those(others.cloned().collect(), now)
    }

    /// The same, with the current weights.
    pub(crate) fn weighed(&self, now: Instant) -> Self {
        Self::new(self.nodes.clone(), self.spares_none, now)
    }

    /// Whether a call can be sent to it now: its state may have changed since it was chosen.
    fn can_have(&self, node: &Node) -> bool {
        node.is_ready() && (self.spares_none || !node.is_ejected.load(Ordering::Relaxed))
    }
}

/// An endpoint, and the ticket of its gate.
pub(crate) type Picked = (Arc<Node>, Option<Ticket>);

/// Its gate has shut in the meantime, or all are: any open one, or why there is none, and when the
/// first opens.
fn enter_any(
    choice: &Choice,
    path: &str,
    now: Instant,
    (asked, rejected): (&Arc<Node>, Rejected),
) -> Result<Picked, Rejected> {
    let mut all = vec![rejected];
    let can_have = |node: &&Arc<Node>| node.id != asked.id && choice.can_have(node);
    for node in choice.nodes.iter().filter(can_have) {
        match node.enter(path, now) {
            Ok(ticket) => return Ok((node.clone(), ticket)),
            Err(rejected) => all.push(rejected),
        }
    }
    Err(Rejected::of_all(all))
}

/// An endpoint that admits the call: one that no earlier attempt of `call` has used, if there is
/// one; else any.
pub(crate) fn pick(
    picking: &Picking,
    choice: &Choice,
    call: Option<&Call>,
    path: &str,
    now: Instant,
) -> Option<Result<Picked, Rejected>> {
    let asked = Asked { choice, call, path, now };
    let node = picking.pick(&choice.nodes, &choice.strides, &asked)?;
    let entered = node.enter(path, now).map(|ticket| (node.clone(), ticket));
    Some(entered.or_else(|rejected| enter_any(choice, path, now, (node, rejected))))
}

// === impl Asked ===

impl Endpoints for Asked<'_> {
    type Endpoint = Arc<Node>;

    fn can_have(&self, node: &Arc<Node>) -> bool {
        self.choice.can_have(node)
    }

    fn is_new(&self, node: &Arc<Node>) -> bool {
        self.call.is_none_or(|call| !call.was_sent_to(node.id))
    }

    fn is_open(&self, node: &Arc<Node>) -> bool {
        node.is_open_to(self.path, self.now)
    }

    fn in_flight(&self, node: &Arc<Node>) -> usize {
        node.load.in_flight()
    }

    fn cost(&self, node: &Arc<Node>) -> f64 {
        node.load.cost(self.now)
    }
}
