//! A node as others see it.

use crate::State;
use cinchona_policy::cluster::Known;
use http::Uri;
use std::collections::BTreeMap;

/// What is known of a node at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its id.
    pub id: String,
    /// Which life of the node this is: another number after each restart.
    pub generation: u64,
    /// The address at which it serves gRPC, if any.
    pub address: Option<Uri>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Its state in this node's view.
    pub state: State,
    /// Its phi: 0 to about 300; 0 for this node itself.
    pub phi: f64,
    /// Whether it hears this node and is heard by it.
    pub reachable: bool,
}

// === impl Node ===

impl Node {
    /// Whether it can take calls: it serves, has not failed, and does not drain.
    pub fn is_ready(&self) -> bool {
        let is_heard = matches!(self.state, State::Alive | State::Suspected);
        is_heard && self.address.is_some() && !self.is_draining()
    }

    /// Whether it is about to leave.
    pub fn is_draining(&self) -> bool {
        self.has_tag("draining", "true")
    }

    /// Whether it has this tag.
    pub fn has_tag(&self, name: &str, value: &str) -> bool {
        self.tags.get(name).is_some_and(|own| own == value)
    }
}

impl From<Known<'_, Uri>> for Node {
    fn from(known: Known<'_, Uri>) -> Self {
        Self {
            id: known.id.to_owned(),
            generation: known.generation,
            address: known.address.cloned(),
            tags: known.tags.clone(),
            state: known.state,
            phi: known.phi,
            reachable: known.reachable,
        }
    }
}
