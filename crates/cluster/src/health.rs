//! The condition of the cluster, in numbers and as text.

use crate::{Node, State, Status};
use std::fmt;

/// How many nodes are in which condition.
///
/// ```
/// use cinchona_cluster::{Health, Status};
///
/// let mut health = Health::of(&[], Status::Majority);
/// (health.total, health.healthy, health.degraded, health.failed) = (4, 2, 1, 1);
/// assert_eq!(
///     health.to_string(),
///     "4 nodes: 2 healthy (50 %), 1 degraded (25 %), 1 failed (25 %); majority"
/// );
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// All that have not left.
    pub total: usize,
    /// Alive, reachable and not draining.
    pub healthy: usize,
    /// Suspected, draining, or heard but not reachable.
    pub degraded: usize,
    /// Taken to be gone.
    pub failed: usize,
    /// The state of the cluster as this node sees it.
    pub status: Status,
}

// === impl Health ===

impl Health {
    /// Counts `nodes`.
    pub fn of(nodes: &[Node], status: Status) -> Self {
        let mut health = Self { total: 0, healthy: 0, degraded: 0, failed: 0, status };
        for node in nodes.iter().filter(|node| node.state != State::Left) {
            health.total += 1;
            match node.state {
                State::Failed => health.failed += 1,
                State::Alive if node.reachable && !node.is_draining() => health.healthy += 1,
                _ => health.degraded += 1,
            }
        }
        health
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { total, healthy, degraded, failed, status } = *self;
        let percent = |count: usize| (100 * count + total / 2).checked_div(total).unwrap_or(0);
        let nodes = if total == 1 { "node" } else { "nodes" };
        write!(f, "{total} {nodes}: {healthy} healthy ({} %), ", percent(healthy))?;
        write!(f, "{degraded} degraded ({} %), ", percent(degraded))?;
        write!(f, "{failed} failed ({} %); {status}", percent(failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn node(state: State, reachable: bool, draining: bool) -> Node {
        let tags = BTreeMap::from([("draining".to_owned(), draining.to_string())]);
        let (id, address) = ("n".into(), None);
        Node { id, generation: 1, address, tags, state, phi: 0.0, reachable }
    }

    #[test]
    fn each_node_that_has_not_left_is_counted_once() {
        let nodes = [
            node(State::Alive, true, false),
            node(State::Alive, false, false),
            node(State::Alive, true, true),
            node(State::Suspected, true, false),
            node(State::Failed, false, false),
            node(State::Failed, false, false),
            node(State::Left, false, false),
        ];
        let health = Health::of(&nodes, Status::Minority);
        assert_eq!(
            health.to_string(),
            "6 nodes: 1 healthy (17 %), 3 degraded (50 %), 2 failed (33 %); minority"
        );
    }

    #[test]
    fn nothing_is_nothing_in_percent() {
        let none = Health::of(&[], Status::Unknown).to_string();
        assert_eq!(none, "0 nodes: 0 healthy (0 %), 0 degraded (0 %), 0 failed (0 %); unknown");
    }
}
