//! The workers for balancers, kept up to date.

use crate::Node;
use cinchona_core::Target;
use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};
use tokio::sync::watch;

/// The watchers of workers.
#[derive(Debug, Default)]
pub(crate) struct Watchers(Mutex<Vec<Watcher>>);

#[derive(Debug)]
struct Watcher {
    tags: Vec<(String, String)>,
    targets: watch::Sender<Vec<Target>>,
}

// === impl Watchers ===

impl Watchers {
    /// Watches the nodes among `nodes` that are ready and have all of `tags`.
    pub(crate) fn add(
        &self,
        tags: Vec<(String, String)>,
        nodes: &[Node],
    ) -> watch::Receiver<Vec<Target>> {
        let found = select(nodes, &tags, |_| false);
        let is_known = !found.is_empty();
        let (targets, mut watched) = watch::channel(found);
        if is_known {
            watched.mark_changed();
        }
        self.lock().push(Watcher { tags, targets });
        watched
    }

    /// Updates the watchers whose nodes have changed. A silent node whose failure is `unproven`
    /// stays listed: when gossip is cut, the connections to it may work. gRPC's resolvers likewise
    /// keep the last addresses after an error.
    pub(crate) fn update(&self, nodes: &[Node], unproven: &BTreeSet<String>) {
        let mut watchers = self.lock();
        watchers.retain(|watcher| !watcher.targets.is_closed());
        for Watcher { tags, targets } in watchers.iter() {
            targets.send_if_modified(|known| {
                let is_kept = |node: &Node| {
                    let serves = |target: &Target| node.address.as_ref() == Some(&target.uri);
                    unproven.contains(&node.id) && !node.is_draining() && known.iter().any(serves)
                };
                let found = select(nodes, tags, is_kept);
                let has_changed = *known != found;
                *known = found;
                has_changed
            });
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Watcher>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn select(
    nodes: &[Node],
    tags: &[(String, String)],
    is_kept: impl Fn(&Node) -> bool,
) -> Vec<Target> {
    let has_tags = |node: &&Node| tags.iter().all(|(name, value)| node.has_tag(name, value));
    let ready = nodes.iter().filter(|node| node.is_ready() || is_kept(node)).filter(has_tags);
    ready
        .filter_map(|node| Some(Target::from(node.address.clone()?).with_weight(weight(node))))
        .collect()
}

/// Its `capacity` tag; 1 without one.
fn weight(node: &Node) -> u32 {
    let capacity = node.tags.get("capacity").and_then(|capacity| capacity.parse().ok());
    capacity.unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::State;
    use cinchona_core::Discover;

    fn node(id: &str, state: State, tags: &[(&str, &str)]) -> Node {
        let tags = tags.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let (id, address) = (id.to_owned(), format!("http://{id}").parse().ok());
        Node { id, generation: 1, address, tags, state, phi: 0.0, reachable: true }
    }

    #[tokio::test(start_paused = true)]
    async fn a_balancer_hears_of_the_workers_that_match_and_of_their_capacity() {
        let (watchers, none) = (Watchers::default(), BTreeSet::new());
        let worker = ("role", "worker");
        let mut nodes = vec![
            node("a", State::Alive, &[worker, ("capacity", "64")]),
            node("b", State::Suspected, &[worker, ("capacity", "many")]),
            node("c", State::Failed, &[worker]),
            node("d", State::Alive, &[worker, ("draining", "true")]),
            node("e", State::Alive, &[("role", "client")]),
        ];
        let mut watched = watchers.add(vec![("role".into(), "worker".into())], &nodes);
        let targets = watched.next().await.unwrap();
        let shares: Vec<_> =
            targets.iter().map(|target| (target.uri.host().unwrap(), target.weight)).collect();
        assert_eq!(shares, [("a", 64), ("b", 1)]);
        watchers.update(&nodes, &none);
        assert!(!watched.has_changed().unwrap());
        nodes[0].state = State::Failed;
        watchers.update(&nodes, &none);
        assert_eq!(watched.next().await.map(|targets| targets.len()), Some(1));
        drop(watched);
        watchers.update(&nodes, &none);
        assert!(watchers.lock().is_empty(), "no watcher is left");
    }

    // catalogue: S-C5
    #[test]
    fn a_silent_node_stays_listed_until_proven_gone_and_is_not_added_by_that() {
        let watchers = Watchers::default();
        let mut nodes = vec![node("a", State::Alive, &[]), node("b", State::Alive, &[])];
        let watched = watchers.add(Vec::new(), &nodes);
        nodes.push(node("c", State::Failed, &[]));
        nodes.iter_mut().for_each(|node| node.state = State::Failed);
        let all = BTreeSet::from(["a", "b", "c"].map(str::to_owned));
        watchers.update(&nodes, &all);
        assert_eq!(watched.borrow().len(), 2);
        nodes[1].tags.insert("draining".into(), "true".into());
        watchers.update(&nodes, &all);
        assert_eq!(watched.borrow().len(), 1);
        watchers.update(&nodes, &BTreeSet::new());
        assert_eq!(watched.borrow().len(), 0);
        watchers.update(&nodes, &all);
        assert_eq!(watched.borrow().len(), 0);
    }
}
