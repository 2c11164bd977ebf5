//! The nodes of a cluster, and which reach each other.

use crate::Health;
use serde::Serialize;

/// The nodes of a cluster, drawn on a circle, and the links between them.
///
/// ```
/// use cinchona_dashboard::{Health, Link, Map, Spot};
///
/// let spot = |name: &str| Spot { state: "alive".into(), ..Spot::new(name) };
/// let map = Map {
///     nodes: vec![spot("a"), Spot { health: Health::Bad, phi: 12.0, ..Spot::new("b") }],
///     links: vec![Link { from: "a".into(), to: "b".into(), health: Health::Bad }],
/// };
/// assert_eq!(map.nodes[1].name, "b");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Map {
    /// The nodes, in their order on the circle. Default: none.
    pub nodes: Vec<Spot>,
    /// The links; one whose ends are not both among the nodes is not drawn. Default: none.
    pub links: Vec<Link>,
}

/// A node on a [`Map`].
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Spot {
    /// Its id: unique on the map.
    pub name: String,
    /// Its state in a word or two, such as `suspected`. Default: empty.
    pub state: String,
    /// Its health. Default [`Health::Good`].
    pub health: Health,
    /// Its phi: how certain it is that the node is gone; a value that is not finite is not shown.
    /// Default 0.
    pub phi: f64,
}

/// A link from one node to another, as the first reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Link {
    /// The node that reports.
    pub from: String,
    /// The node that it reports on.
    pub to: String,
    /// The health of the link; bad where they do not reach each other. Default [`Health::Good`].
    pub health: Health,
}

// === impl Spot ===

impl Spot {
    /// A healthy node.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
}
