//! The map of a cluster.

use cinchona::{
    cluster::{Cluster, Node, State},
    dashboard::{Health, Link, Map, Spot},
};

/// The nodes as the first of these members sees them, and the nodes that each member reaches; a
/// member is its id and its view.
///
/// A process has one view, its own. A node that is alive and out of reach is on the other side of a
/// partition.
pub fn map(members: &[(String, Cluster)]) -> Map {
    let views: Vec<_> =
        members.iter().map(|(id, cluster)| (id.as_str(), cluster.nodes())).collect();
    of_views(&views)
}

fn of_views(views: &[(&str, Vec<Node>)]) -> Map {
    let Some((me, nodes)) = views.first() else { return Map::default() };
    // With several views, the page is that of none of them.
    let is_alone = views.len() == 1;
    let spot = |node: &Node| Spot {
        name: node.id.clone(),
        state: if is_alone && node.id == *me { "this node".into() } else { said(node) },
        health: health(node),
        phi: node.phi,
    };
    let links = views.iter().flat_map(|(from, nodes)| {
        let others = nodes.iter().filter(move |node| node.id != *from);
        let others = others.filter(|node| node.state != State::Left);
        others.map(move |node| Link {
            from: (*from).to_owned(),
            to: node.id.clone(),
            health: match (node.reachable, node.state) {
                (true, State::Alive) => Health::Good,
                (true, _) => Health::Warn,
                (false, _) => Health::Bad,
            },
        })
    });
    let present = nodes.iter().filter(|node| node.state != State::Left);
    Map { nodes: present.map(spot).collect(), links: links.collect() }
}

fn said(node: &Node) -> String {
    let state = match node.state {
        State::Alive if node.is_draining() => "draining",
        State::Alive if !node.reachable => "heard, not reached",
        State::Alive => "alive",
        State::Suspected => "suspected",
        State::Failed => "failed",
        State::Left => "left",
        _ => "unknown",
    };
    state.to_owned()
}

const fn health(node: &Node) -> Health {
    match node.state {
        State::Alive if node.reachable => Health::Good,
        State::Alive | State::Suspected => Health::Warn,
        _ => Health::Bad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn node(id: &str, state: State, reachable: bool) -> Node {
        let (id, phi) = (id.to_owned(), if state == State::Alive { 0.3 } else { 12.0 });
        Node { id, generation: 1, address: None, tags: BTreeMap::new(), state, phi, reachable }
    }

    #[test]
    fn each_member_draws_its_own_ways_and_the_first_says_how_the_nodes_are() {
        let alive = |id| node(id, State::Alive, true);
        let views = [
            ("a", vec![alive("a"), alive("b"), node("c", State::Failed, false)]),
            ("b", vec![alive("a"), alive("b"), node("c", State::Suspected, true)]),
        ];
        let map = of_views(&views);
        let spots: Vec<_> = map.nodes.iter().map(|spot| (&*spot.name, &*spot.state)).collect();
        assert_eq!(spots, [("a", "alive"), ("b", "alive"), ("c", "failed")]);
        let links: Vec<_> =
            map.links.iter().map(|link| (&*link.from, &*link.to, link.health)).collect();
        let (good, warn, bad) = (Health::Good, Health::Warn, Health::Bad);
        assert_eq!(links, [("a", "b", good), ("a", "c", bad), ("b", "a", good), ("b", "c", warn)]);
    }

    #[test]
    fn who_has_left_is_not_on_the_map() {
        let views = [("a", vec![node("a", State::Alive, true), node("b", State::Left, false)])];
        let map = of_views(&views);
        assert_eq!((map.nodes.len(), map.links.len()), (1, 0));
        assert_eq!(map.nodes[0].state, "this node");
        assert_eq!(of_views(&[]), Map::default());
    }
}
