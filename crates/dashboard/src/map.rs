//! The nodes of a cluster, and which reaches which.

use crate::Health;
use serde::Serialize;

/// The nodes of a cluster, on a circle, and which of them reach each other.
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
    /// The nodes, in the order in which they stand on the circle. Default none.
    pub nodes: Vec<Spot>,
    /// What is known of the ways between them; a link whose ends are not both among the nodes is
    /// not drawn. Default none.
    pub links: Vec<Link>,
}

/// A node on a [`Map`].
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Spot {
    /// Which one: unique on its map.
    pub name: String,
    /// Its state in a word or a few, such as `suspected`. Default empty.
    pub state: String,
    /// How it is. Default [`Health::Good`].
    pub health: Health,
    /// How sure one can be that it is gone (phi accrual); what is no number is not shown. Default
    /// 0.
    pub phi: f64,
}

/// A way from one node to another, as that one node tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Link {
    /// The node that reports.
    pub from: String,
    /// The node that it reports on.
    pub to: String,
    /// How it is; bad where they do not reach each other. Default [`Health::Good`].
    pub health: Health,
}

// === impl Spot ===

impl Spot {
    /// A node that is well.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
}
