//! The metrics of a node.

use crate::{Cluster, State};
use cinchona_core::{Instrument, Observable};

/// The label of a node: its id.
const NODE: &str = "node";

/// The metrics of this node, and of each other `node`. Observing the metrics does not keep a node
/// in its cluster.
impl Observable for Cluster {
    const INSTRUMENTS: &'static [Instrument<Self>] = &[
        Instrument::gauge(
            "cinchona.cluster.expected",
            "{node}",
            "Members expected in the cluster.",
            |cluster| cluster.reachable().1 as f64,
        ),
        Instrument::counter(
            "cinchona.cluster.forged",
            "{datagram}",
            "Datagrams without a valid seal, and impossible claims.",
            |cluster| cluster.forged() as f64,
        ),
        Instrument::counter(
            "cinchona.cluster.garbage",
            "{datagram}",
            "Datagrams that are not gossip.",
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
                        // It has left.
                        _ => 3.0,
                    };
                    add(&[(NODE, &node.id)], state);
                }
            },
        ),
        Instrument::gauges(
            "cinchona.cluster.phi",
            "",
            "Phi of a node: -log10 of the chance that it is only late.",
            |cluster, add| {
                for node in cluster.nodes() {
                    add(&[(NODE, &node.id)], node.phi);
                }
            },
        ),
        Instrument::gauge(
            "cinchona.cluster.reachable",
            "{node}",
            "Members reachable, this node included.",
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
