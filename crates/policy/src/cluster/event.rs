//! What happens in a cluster.

use std::{collections::BTreeMap, net::SocketAddr};

/// A change that this node has noticed; nodes are named by their ids.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The node is heard for the first time, or for the first time since it left or restarted.
    NodeJoined {
        /// Its id.
        node: String,
    },
    /// The node is suspected: its heartbeat is late.
    NodeSuspected {
        /// Its id.
        node: String,
        /// How certain it is that the node is gone.
        phi: f64,
    },
    /// The node is convicted: taken to be gone. It still counts as a member.
    NodeFailed {
        /// Its id.
        node: String,
    },
    /// The node was suspected or had failed, and is heard again.
    NodeRecovered {
        /// Its id.
        node: String,
    },
    /// The node has left, an operator has forgotten it, or the expected number of nodes is
    /// reachable without it.
    NodeLeft {
        /// Its id.
        node: String,
    },
    /// The node is silent and another node lives at its address, so it is expected no more.
    NodeReplaced {
        /// Its id.
        node: String,
        /// The id of the other node.
        by: String,
    },
    /// Another live node uses the id of this one.
    DuplicateId {
        /// The address at which the other receives gossip, if known.
        address: Option<SocketAddr>,
        /// Whether the other was there first; then this node takes no part until it is gone.
        refused: bool,
    },
    /// The tags of the node have changed.
    TagsUpdated {
        /// Its id.
        node: String,
        /// All its tags now.
        tags: BTreeMap<String, String>,
    },
    /// Some expected members and this node have not heard each other for `stable_after`; sent again
    /// when other members are missing. A crash looks the same to this node.
    PartitionDetected {
        /// The members that may not accept writes.
        minority: Vec<String>,
        /// The members that may accept writes, as far as this node knows.
        majority: Vec<String>,
    },
    /// All expected members are reachable again.
    PartitionHealed,
    /// The subscriber was too slow: this many events were dropped here.
    Dropped(u64),
}
