//! Picks the next endpoint.

use crate::{node::Node, utilization};
use cinchona_core::{Call, Rejected, Rng};
use cinchona_plumbing::{Avoid, Ticket};
use rand::RngExt;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::time::Instant;

/// How endpoints are picked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Picker {
    /// The better of two at random, by latency and calls in flight (power of two choices over peak
    /// EWMA). A slow endpoint is detected with its first slow answer.
    #[default]
    PeakEwma,
    /// The one of two at random that has fewer calls in flight (gRFC A48, with its default of two
    /// choices).
    LeastRequest,
    /// One at random.
    Random,
    /// One after the other.
    RoundRobin,
    /// One after the other, each as often as its weight: by the load that the endpoints report
    /// (gRFC A58, see [`Utilization`](crate::Utilization)), or while fewer than two report, by
    /// [`Target::weight`](cinchona_core::Target::weight).
    WeightedRoundRobin,
    /// The first that can be connected to, in the order of the list; only that is connected, until
    /// it is lost (gRFC A61, A62).
    PickFirst,
}

/// The state of a pick besides the endpoints; never blocks.
#[derive(Debug)]
pub(crate) struct Picking {
    picker: Picker,
    turn: AtomicU64,
    rng: Rng,
}

/// Endpoints that can be picked, and their weights.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    pub(crate) nodes: Vec<Arc<Node>>,
    /// Scaled so that the greatest is [`MOST`], for the weighted picker.
    strides: Vec<u16>,
    /// Whether ejected endpoints are picked as well.
    spares_none: bool,
}

const MOST: u64 = u16::MAX as u64;

/// How many random picks are tried before the endpoints are searched in order.
const DRAWS: usize = 4;

// === impl Choice ===

impl Choice {
    /// With their current weights.
    pub(crate) fn new(nodes: Vec<Arc<Node>>, spares_none: bool, now: Instant) -> Self {
        let given = || nodes.iter().map(|node| f64::from(node.given_weight())).collect();
        let reported = nodes.iter().map(|node| node.reported_weight(now));
        let weights = utilization::over_mean(reported);
        let weights: Vec<f64> = weights.unwrap_or_else(given);
        let greatest = weights.iter().copied().fold(0.0, f64::max);
        let stride = |weight: &f64| ((weight * MOST as f64 / greatest) as u16).max(1);
        let strides = weights.iter().map(stride).collect();
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
    (asked, unsent): (&Arc<Node>, Rejected),
) -> Result<Picked, Rejected> {
    let mut all = vec![unsent];
    let can_have = |node: &&Arc<Node>| node.id != asked.id && choice.can_have(node);
    for node in choice.nodes.iter().filter(can_have) {
        match node.enter(path, now) {
            Ok(ticket) => return Ok((node.clone(), ticket)),
            Err(unsent) => all.push(unsent),
        }
    }
    Err(Rejected::of_all(all))
}

// === impl Picking ===

impl Picking {
    pub(crate) fn new(picker: Picker, rng: Rng) -> Self {
        // Not all clients begin with the same endpoint.
        let turn = AtomicU64::new(rng.draw().random_range(0..1 << 32));
        Self { picker, turn, rng }
    }

    /// An endpoint that admits the call: one that no earlier attempt of `call` has used, if there
    /// is one; else any.
    pub(crate) fn pick(
        &self,
        choice: &Choice,
        call: Option<&Call>,
        path: &str,
        now: Instant,
    ) -> Option<Result<Picked, Rejected>> {
        let Choice { nodes, .. } = choice;
        // Once all have been used, it is picked as for a new call.
        let has_met_all = |call: &&Call| nodes.iter().all(|node| call.was_sent_to(node.id));
        let call = call.filter(|call| !has_met_all(call));
        let open = |node: &Arc<Node>| choice.can_have(node) && node.is_open_to(path, now);
        let fresh =
            |node: &Arc<Node>| call.is_none_or(|call| !call.was_sent_to(node.id)) && open(node);
        let picked = match self.picker {
            _ if nodes.len() < 2 => nodes.first().filter(|node| choice.can_have(node)),
            Picker::PickFirst => nodes.iter().find(|node| fresh(node)),
            Picker::RoundRobin => (0..DRAWS).map(|_| self.in_turn(nodes)).find(|node| fresh(node)),
            Picker::WeightedRoundRobin => {
                (0..DRAWS).map(|_| self.by_weight(choice)).find(|node| fresh(node))
            }
            Picker::Random => {
                let mut rng = self.rng.draw();
                let drawn = (0..DRAWS).map(|_| &nodes[rng.random_range(0..nodes.len())]);
                drawn.into_iter().find(|node| fresh(node))
            }
            Picker::LeastRequest => {
                self.better_of_two(nodes, fresh, |node| node.load.in_flight() as f64)
            }
            Picker::PeakEwma => self.better_of_two(nodes, fresh, |node| node.load.cost(now)),
        };
        let untried = || nodes.iter().find(|node| fresh(node));
        let any = || nodes.iter().find(|node| open(node));
        let shut = || nodes.iter().find(|node| choice.can_have(node));
        let node = picked.or_else(untried).or_else(any).or_else(shut)?;
        let entered = node.enter(path, now).map(|ticket| (node.clone(), ticket));
        Some(entered.or_else(|unsent| enter_any(choice, path, now, (node, unsent))))
    }

    fn in_turn<'a>(&self, nodes: &'a [Arc<Node>]) -> &'a Arc<Node> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        &nodes[(turn % nodes.len() as u64) as usize]
    }

    /// The static stride scheduler of gRFC A58: each round visits all, and skips an endpoint in as
    /// many rounds as its weight is smaller than the greatest.
    fn by_weight<'a>(&self, choice: &'a Choice) -> &'a Arc<Node> {
        let count = choice.nodes.len() as u64;
        loop {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let (round, index) = (turn / count, (turn % count) as usize);
            let stride = u64::from(choice.strides[index]);
            // The offset keeps endpoints of the same weight from being skipped in the same round.
            let place = (stride * round + index as u64 * (MOST / 2)) % MOST;
            if place >= MOST - stride {
                return &choice.nodes[index];
            }
        }
    }

    fn better_of_two<'a>(
        &self,
        nodes: &'a [Arc<Node>],
        fresh: impl Fn(&Arc<Node>) -> bool,
        cost: impl Fn(&Node) -> f64,
    ) -> Option<&'a Arc<Node>> {
        let mut rng = self.rng.draw();
        let mut found: Option<&Arc<Node>> = None;
        for _ in 0..2 * DRAWS {
            let node = &nodes[rng.random_range(0..nodes.len())];
            match found {
                _ if !fresh(node) => {}
                Some(one) if one.id == node.id => {}
                Some(one) => {
                    let is_better = cost(node) < cost(one);
                    return Some(if is_better { node } else { one });
                }
                None => found = Some(node),
            }
        }
        found
    }
}
