//! What a node counts and measures.

use crate::{Cluster, State};
use cinchona_core::{Instrument, Observable};

/// The label of a node: its id.
const NODE: &str = "node";

/// What this node holds of the whole, and of each `node`. Being watched keeps no node in its
/// cluster.
impl Observable for Cluster {
    const INSTRUMENTS: &'static [Instrument<Self>] = &[
        Instrument::gauge(
            "cinchona.cluster.expected",
            "{node}",
            "Members that are expected.",
            |cluster| cluster.reachable().1 as f64,
        ),
        Instrument::counter(
            "cinchona.cluster.forged",
            "{datagram}",
            "Datagrams that are sealed with no secret of the cluster.",
            |cluster| cluster.forged() as f64,
        ),
        Instrument::counter(
            "cinchona.cluster.garbage",
            "{datagram}",
            "Datagrams that are no gossip.",
            |cluster| cluster.garbage() as f64,
        ),
        Instrument::gauges(
            "cinchona.cluster.node_state",
            "",
            "0 alive, 1 suspected, 2 failed, 3 left.",
            |cluster, add| {
                for node in cluster.nodes() {
                    let state = match node.state {
                        State::Alive => 0.0,
                        State::Suspected => 1.0,
                        State::Failed => 2.0,
                        State::Left => 3.0,
                    };
                    add(&[(NODE, &node.id)], state);
                }
            },
        ),
        Instrument::gauges(
            "cinchona.cluster.phi",
            "",
            "How sure one can be that a node is gone.",
            |cluster, add| {
                for node in cluster.nodes() {
                    add(&[(NODE, &node.id)], node.phi);
                }
            },
        ),
        Instrument::gauge(
            "cinchona.cluster.reachable",
            "{node}",
            "Members that can be reached, this node among them.",
            |cluster| cluster.reachable().0 as f64,
        ),
        Instrument::counter(
            "cinchona.cluster.strangers",
            "{message}",
            "Messages from other clusters, or refused by one.",
            |cluster| cluster.strangers() as f64,
        ),
    ];

    fn finder(&self) -> impl Fn() -> Option<Self> + Send + Sync + use<> + 'static {
        self.weak()
    }
}
