//! What a node is told of itself.

use super::{partition::Strategy, suspicion::Phi};
use std::time::Duration;

/// What a node is, and how it watches the others.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings<A> {
    /// Unique in the cluster.
    pub node_id: String,
    /// Which life of the node this is.
    pub generation: u64,
    /// The address at which it serves, if any.
    pub address: Option<A>,
    /// The interval of heartbeats. Default 200 ms.
    pub heartbeat: Duration,
    /// When silent nodes are suspected and convicted.
    pub phi: Phi,
    /// A peer is reachable if it has reported within this time that it hears this node. Default
    /// 1 s.
    pub reachable_within: Duration,
    /// How long a change must last before it is an event. Default 1.2 s.
    pub stable_after: Duration,
    /// Which side may accept writes when some nodes are not reachable.
    pub strategy: Strategy,
    /// How many nodes found the cluster. Default 1.
    pub expect: usize,
    /// Whether the node only observes. Default false.
    pub observer: bool,
}

// === impl Settings ===

impl<A> Settings<A> {
    /// The first life of a node that does not serve.
    pub fn new(node_id: impl Into<String>) -> Self {
        Self {
            node_id: node_id.into(),
            generation: 0,
            address: None,
            heartbeat: Duration::from_millis(200),
            phi: Phi::default(),
            reachable_within: Duration::from_secs(1),
            stable_after: Duration::from_millis(1200),
            strategy: Strategy::default(),
            expect: 1,
            observer: false,
        }
    }

    /// How often the state of the other nodes is examined.
    pub fn tick(&self) -> Duration {
        self.heartbeat / 2
    }
}
