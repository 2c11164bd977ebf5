//! What one node knows of all others.

use super::peer::Peer;
use crate::cluster::{
    Settings, Twin,
    members::Members,
    partition::{Partition, Standing},
    suspicion::{Hearing, OwnPause},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};
use tokio::time::Instant;

/// What one node knows of all others.
#[derive(Debug)]
pub struct View<A> {
    pub(super) settings: Settings<A>,
    /// By id; without this node.
    pub(super) peers: BTreeMap<String, Peer<A>>,
    /// The generation and the heartbeat of each node at the last look.
    pub(super) heartbeats: BTreeMap<String, (u64, u64)>,
    pub(super) members: Members,
    /// Members named by others that were never heard, and since when.
    pub(super) listed: BTreeMap<String, Instant>,
    pub(super) hearing: Hearing,
    pub(super) partition: Partition,
    pub(super) standing: Option<Standing>,
    pub(super) own_pause: OwnPause,
    pub(super) reachable: BTreeSet<String>,
    pub(super) beat: u64,
    pub(super) next_beat: Option<Instant>,
    pub(super) resync: Resync,
    pub(super) external: External,
    /// How many lives were known to be gone when that was last published.
    pub(super) published_gone: u64,
    /// What was published last.
    pub(super) published: BTreeMap<String, String>,
    /// What is to be published next.
    pub(super) staged: Vec<(String, String)>,
}

/// Facts from sources other than gossip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct External {
    /// Another live node with this node's id, if any.
    pub twin: Option<Twin>,
    /// The expected number of nodes, if one is configured; 0 while it is not known.
    pub expected: Option<usize>,
}

/// Whether the writes missed without a quorum were fetched; the number identifies the resync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resync {
    Needed(u64),
    Running(u64),
    Done(u64),
}

// === impl View ===

impl<A> View<A> {
    /// That of a node that has seen nothing, and has others to ask or not.
    pub fn new(settings: Settings<A>, has_seeds: bool) -> Self {
        let own = settings.node_id.clone();
        let partition =
            Partition::new(own.clone(), settings.strategy.clone(), settings.stable_after);
        let own_pause = OwnPause::new(settings.tick(), settings.phi.acceptable_pause / 2);
        Self {
            members: Members::new(own.clone(), settings.expect, has_seeds),
            reachable: BTreeSet::from([own]),
            hearing: Hearing::new(settings.heartbeat, settings.phi.acceptable_pause),
            settings,
            peers: BTreeMap::new(),
            heartbeats: BTreeMap::new(),
            listed: BTreeMap::new(),
            partition,
            standing: None,
            own_pause,
            beat: 0,
            next_beat: None,
            resync: Resync::Needed(0),
            external: External::default(),
            published_gone: 0,
            published: BTreeMap::new(),
            staged: Vec::new(),
        }
    }

    /// Marks a peer as gone; whether it was known and not gone before. An earlier life of it, which
    /// was silent before this one was known, is gone with it.
    pub(super) fn depart(&mut self, id: &str, generation: u64) -> bool {
        match self.peers.get_mut(id) {
            Some(peer) if peer.generation == generation => !mem::replace(&mut peer.has_left, true),
            Some(_) => self.peers.remove(id).is_some_and(|peer| !peer.has_left),
            None => false,
        }
    }

    pub(super) fn stage(&mut self, key: &str, value: String) {
        if self.published.get(key) != Some(&value) {
            self.published.insert(key.to_owned(), value.clone());
            self.staged.push((key.to_owned(), value));
        }
    }
}
