//! One other node.

use crate::cluster::{
    Facts, Ids, Seen,
    suspicion::{Phi, State, Suspicion},
};
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};
use tokio::time::Instant;

/// What is known of another node.
#[derive(Debug)]
pub(super) struct Peer<A> {
    pub(super) generation: u64,
    pub(super) facts: Arc<Facts<A>>,
    pub(super) gossip: Option<SocketAddr>,
    pub(super) suspicion: Suspicion,
    pub(super) has_left: bool,
    /// When it was first and last heard.
    pub(super) met_at: Instant,
    pub(super) heard_at: Instant,
    /// When its last heartbeat arrived.
    pub(super) beat_at: Option<Instant>,
    /// When it was convicted, and whether others were heard after that.
    pub(super) failed_at: Option<Instant>,
    pub(super) is_missed: bool,
    /// Its list of members, once all were members here, and how many lives were gone then.
    pub(super) adopted: Option<(Arc<Ids>, u64)>,
}

/// What is known of another node at one moment.
#[derive(Clone, Debug)]
pub struct Known<'a, A> {
    /// Its id.
    pub id: &'a str,
    /// Which life of the node this is.
    pub generation: u64,
    /// The address at which it serves, if any.
    pub address: Option<&'a A>,
    /// Its tags.
    pub tags: &'a BTreeMap<String, String>,
    /// Its state.
    pub state: State,
    /// Its phi.
    pub phi: f64,
    /// Whether it hears this node and is heard by it.
    pub reachable: bool,
}

// === impl Peer ===

impl<A> Peer<A> {
    pub(super) fn new(phi: Phi, seen: &Seen<A>, now: Instant) -> Self {
        Self {
            generation: seen.generation,
            facts: seen.facts.clone(),
            gossip: seen.gossip,
            suspicion: Suspicion::new(phi),
            has_left: false,
            met_at: now,
            heard_at: now,
            beat_at: Some(now),
            failed_at: None,
            is_missed: false,
            adopted: None,
        }
    }

    pub(super) fn serves_at(&self, address: &A) -> bool
    where
        A: PartialEq,
    {
        !self.has_left && self.facts.address.as_ref() == Some(address)
    }

    /// Whether nothing is to be taken over of its list of members, where so many lives are gone.
    pub(super) fn has_adopted(&self, gone: u64) -> bool {
        let list = &self.facts.members;
        self.adopted.as_ref().is_some_and(|(of, at)| Arc::ptr_eq(of, list) && *at == gone)
    }

    pub(super) fn state(&self) -> State {
        if self.has_left { State::Left } else { self.suspicion.state() }
    }
}
