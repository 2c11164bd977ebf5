//! A cluster whose nodes detect failures: gossip, phi accrual, partitions and a quorum guard.
//!
//! # Why
//!
//! A list of endpoints does not say which of them have crashed, and a service on several machines
//! must not accept conflicting writes on both sides of a network cut.
//!
//! # Rule
//!
//! * Nodes find each other by gossip over UDP (push and pull of news: [Scuttlebutt]), each with its
//!   tags and its address. A node that hears no other asks its seeds each second.
//!   [`Cluster::workers`] feeds a balancer; a client that hears no node keeps its list.
//! * A node is [suspected](Event::NodeSuspected) and then [convicted](Event::NodeFailed) by phi
//!   accrual ([`Phi`]), sooner where calls to it fail as well ([`Cluster::report_failure`]). A node
//!   that did not run itself for more than half of the acceptable pause suspects no other node for
//!   that time. At the defaults half of all crashes are detected within 1.7 s, and 99 % within 1.8
//!   s (`DETECTION.md` of `cinchona-policy`).
//! * Members are expected until they leave, until another node lives at the address of a silent one
//!   ([`Event::NodeReplaced`]), or until an operator forgets them ([`Cluster::forget`]); a
//!   suspicion changes nothing about that. Only nodes with a quorum admit new members, so that a
//!   minority cannot grow into a majority. Where names change, as those of pods do, a number is
//!   expected instead ([`Expected`]).
//! * One life is known per id: another replaces it when the known one is silent for five heartbeats
//!   and the other one's heartbeat rises. Clocks play no part. Of two live nodes with one id the
//!   later takes no part until the earlier is gone, and both [report it](Event::DuplicateId).
//! * Each node publishes which nodes it hears. A peer is reachable if it has published within
//!   [`reachable_within`](Config::reachable_within) that it hears this life of this node: so a node
//!   that hears all but is heard by none knows it.
//! * Without a [quorum](Strategy) the [guard](QuorumGuardLayer) refuses writes immediately and
//!   names the missing nodes. It accepts writes again when there was a quorum for
//!   [`stable_after`](Config::stable_after) and the [resync](Cluster::on_quorum) has finished. The
//!   [event](Event::PartitionDetected) waits for `stable_after` in both directions: within 3 s of a
//!   cut.
//!
//! Each node sends about 50 datagrams per second, whatever the number of nodes: 6 kB with 5 nodes,
//! 20 kB with 20. A cluster has at most 256 nodes; observers ([`Config::observer`]) do not count,
//! and cost the others only the answers to their questions.
//!
//! # Example
//!
//! ```
//! use cinchona_cluster::{Cluster, Config, Event, QuorumGuardLayer, Status};
//! use cinchona_core::Methods;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let local = |id: &str| {
//!     let mut config = Config::new("orders", id, ([127, 0, 0, 1], 0).into());
//!     config.expect = 2;
//!     config
//! };
//! let client = Cluster::join(local("client"), &[]).await.unwrap();
//! let mut events = client.events();
//! let seed = client.gossip_address().to_string();
//!
//! let mut config = local("worker-1");
//! config.address = "http://127.0.0.1:50051".parse().ok();
//! config.tags.insert("role".into(), "worker".into());
//! let worker = Cluster::join(config, &[&seed]).await.unwrap();
//! let guard = QuorumGuardLayer::new(&worker, Methods::unknown());
//! # let _ = guard;
//!
//! let joined = events.wait_for(|event| matches!(event, Event::NodeJoined { .. })).await;
//! assert_eq!(joined, Some(Event::NodeJoined { node: "worker-1".into() }));
//! let workers = client.workers(&[("role", "worker")]);
//! assert_eq!(workers.borrow()[0].uri, "http://127.0.0.1:50051");
//! # }
//! ```
//!
//! # What it does not do
//!
//! * **Without a secret gossip is not authenticated, and it is never encrypted.** A sender that
//!   reaches the port of a node without [`Config::secrets`] can join, publish anything about any
//!   node, and have members forgotten: the cluster id distinguishes clusters and is no secret. A
//!   live node refutes a false claim about itself within two seconds (that another node has its id:
//!   within six seconds), and memory is bounded, but a sender that keeps forging is believed for as
//!   long. With a secret, datagrams not sealed with it are dropped and [counted](Cluster::forged);
//!   a recorded one can still be replayed, by which a node that is gone seems to live for a few
//!   seconds. In any case bind [`Config::listen`] to an address of a private network (not
//!   `0.0.0.0`), such as that of a WireGuard interface.
//! * It is not consensus: until a cut is noticed, after `reachable_within`, both sides may accept
//!   writes, and members that join and leave during a cut are merged by union. State that must
//!   never conflict needs a fencing token or a replicated log.
//! * A crash and a cut look the same: one node of five that is gone is a minority of one.
//! * Gossip passes around a single cut link: a circuit breaker must notice that calls to one node
//!   fail.
//! * A node that is paused for more than about 1.5 s is convicted by the others, and recovers.
//! * A seed that restarts without seeds of its own founds a new cluster until the others find it:
//!   give every node seeds, and set [`Config::expect`] or [`Config::expected`].
//!
//! [Scuttlebutt]: https://doi.org/10.1145/1529974.1529983

mod cluster;
mod config;
mod event;
mod expected;
mod gate;
mod gossip;
mod guard;
mod health;
mod ignored;
mod lookup;
mod metrics;
mod node;
mod quorum;
mod registry;
mod seal;
mod seeds;
mod shared;
mod store;
mod wire;

#[doc(inline)]
pub use cinchona_policy::cluster::{
    Event,
    partition::{Status, Strategy},
    suspicion::{Phi, State},
};
pub use cluster::Cluster;
pub use config::Config;
pub use event::Events;
pub use expected::Expected;
pub use gossip::Datagrams;
pub use guard::{QuorumGuard, QuorumGuardLayer, QuorumGuardSettings};
pub use health::Health;
pub use node::Node;
#[doc(hidden)] // For the fuzzer.
pub use seal::is_opened_unchanged;
#[doc(hidden)]
pub use wire::is_read_again;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests;
