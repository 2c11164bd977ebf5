//! The state that the handle of a node and its task share, and the work of the task.

use crate::{
    Config, Event, Expected, Node, State,
    event::HELD,
    ignored::Ignored,
    quorum::Quorum,
    registry::Watchers,
    seal::Seal,
    seeds::Seeds,
    store::{Row, Store},
};
use cinchona_core::{BoxError, Rng};
use cinchona_policy::cluster::{self, External, Outcome, Twin};
use http::Uri;
use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::broadcast,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

/// Fetches the writes that were missed without a quorum.
pub(crate) type OnQuorum = Box<dyn Fn() -> Resyncing + Send + Sync>;
type Resyncing = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) seal: Seal,
    pub(crate) seeds: Seeds,
    pub(crate) rng: Rng,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) watchers: Watchers,
    pub(crate) quorum: Quorum,
    pub(crate) ignored: Ignored,
    store: Mutex<Store>,
    view: Mutex<View>,
    /// The nodes that an operator has forgotten through an observer, and until when this one passes
    /// that on.
    forgotten: Mutex<Vec<((String, u64), Instant)>>,
    /// The facts of this node.
    tags: Mutex<BTreeMap<String, String>>,
    on_quorum: Mutex<Option<OnQuorum>>,
}

/// The facts parsed per node, by generation, floor and version: most have not changed since.
type Read = BTreeMap<String, (Stamp, Arc<Facts>)>;
type Stamp = (u64, u64, u64);

/// What this node makes of the others, which serve at a URI.
type View = cluster::View<Uri>;
type Facts = cluster::Facts<Uri>;
type Seen = cluster::Seen<Uri>;

/// How long an observer passes on which nodes to forget.
const TELLING: Duration = Duration::from_secs(5);

/// The tags that a node publishes when it joins.
pub(crate) fn pairs(config: &Config) -> Vec<(String, String)> {
    let address = config.address.iter();
    let address = address.map(|uri| (cluster::ADDRESS.to_owned(), uri.to_string()));
    let tags = config.tags.iter().map(|(name, value)| (cluster::tag_key(name), value.clone()));
    address.chain(tags).collect()
}

/// Examines gossip, and acts on the result, until aborted.
pub(crate) async fn tick(shared: Arc<Shared>) {
    let mut ticks = interval(shared.config.settings().tick());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut read = Read::new();
    loop {
        ticks.tick().await;
        let now = Instant::now();
        let (seen, twin) = shared.see(&mut read, now);
        let external =
            External { twin, expected: shared.config.expected.as_ref().map(Expected::now) };
        let (outcome, unproven, expected) = {
            let mut view = shared.view();
            let outcome = view.look(&seen, external, now);
            let expected: Vec<_> = seen.iter().map(|seen| view.is_expected(seen)).collect();
            (outcome, view.unproven(), expected)
        };
        for (seen, is_expected) in seen.iter().zip(expected) {
            shared.store().set_expected(&seen.id, seen.generation, is_expected);
        }
        let Outcome { paused, events, publish, permission, resync } = outcome;
        if let Some(pause) = paused {
            tracing::info!(?pause, "this process was paused: no node is suspected for that time");
        }
        shared.quorum.set(permission);
        publish.iter().for_each(|(key, value)| shared.say(key, value));
        events.into_iter().for_each(|event| shared.tell(event));
        shared.watchers.update(&shared.nodes(now), &unproven);
        if let Some(number) = resync {
            tokio::spawn(shared.clone().resync(number));
        }
    }
}

// === impl Shared ===

impl Shared {
    /// `config` must be checked, with its generation set; `address` receives gossip.
    pub(crate) fn new(config: Config, seeds: Seeds, has_seeds: bool, address: SocketAddr) -> Self {
        let life = (config.node_id.as_str(), config.generation.unwrap_or_default());
        let (is_observer, beat) = (config.observer, config.heartbeat);
        let mut store = Store::new(life, address, is_observer, beat, Instant::now());
        pairs(&config).iter().for_each(|(key, value)| store.set(key, value));
        Self {
            store: Mutex::new(store),
            view: Mutex::new(View::new(config.settings(), has_seeds)),
            forgotten: Mutex::default(),
            tags: Mutex::new(config.tags.clone()),
            seal: Seal::new(&config.secrets),
            seeds,
            rng: Rng::from_os(),
            config,
            events: broadcast::channel(HELD).0,
            watchers: Watchers::default(),
            quorum: Quorum::default(),
            ignored: Ignored::default(),
            on_quorum: Mutex::default(),
        }
    }

    /// The gossip of all nodes; held only briefly, and never while the view is locked.
    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this node knows; held only briefly.
    pub(crate) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tags(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.tags.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_on_quorum(&self, resync: OnQuorum) {
        *self.on_quorum.lock().unwrap_or_else(PoisonError::into_inner) = Some(resync);
        self.view().require_resync();
    }

    /// Publishes a pair to all others.
    pub(crate) fn say(&self, key: &str, value: &str) {
        self.store().set(key, value);
    }

    /// Whether no other node was heard lately.
    pub(crate) fn is_alone(&self, now: Instant) -> bool {
        self.store().addresses(now).0.is_empty()
    }

    pub(crate) fn tell(&self, event: Event) {
        let node = self.config.node_id.as_str();
        match event {
            Event::DuplicateId { .. } => tracing::error!(node, ?event, "cluster"),
            _ => tracing::info!(node, ?event, "cluster"),
        }
        // Without subscribers the event is dropped.
        let _ = self.events.send(event);
    }

    /// Removes a node from the expected members; whether it was one.
    pub(crate) fn forget(&self, id: &str) -> bool {
        let Some((event, generation)) = self.view().forget(id) else { return false };
        // Other nodes do not ask an observer which nodes are gone.
        if self.config.observer {
            let until = cinchona_plumbing::clock::later(Instant::now(), TELLING);
            self.forgotten().push(((id.to_owned(), generation), until));
        }
        self.tell(event);
        true
    }

    /// Another node has announced it.
    pub(crate) fn forget_life(&self, id: &str, generation: u64) {
        let event = self.view().forget_life(id, generation);
        event.into_iter().for_each(|event| self.tell(event));
    }

    /// The nodes that others are asked to forget.
    pub(crate) fn to_forget(&self) -> Vec<(String, u64)> {
        let (mut forgotten, now) = (self.forgotten(), Instant::now());
        forgotten.retain(|(_, until)| now < *until);
        forgotten.iter().map(|(life, _)| life.clone()).collect()
    }

    fn forgotten(&self) -> MutexGuard<'_, Vec<((String, u64), Instant)>> {
        self.forgotten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All known nodes by id, this one included unless it is an observer.
    pub(crate) fn nodes(&self, now: Instant) -> Vec<Node> {
        let own = Node {
            id: self.config.node_id.clone(),
            generation: self.config.generation.unwrap_or_default(),
            address: self.config.address.clone(),
            tags: self.tags().clone(),
            state: State::Alive,
            phi: 0.0,
            reachable: true,
        };
        let mut nodes: Vec<_> = self.view().nodes(now).map(Node::from).collect();
        if self.config.observer {
            return nodes;
        }
        let at = nodes.partition_point(|node| node.id < own.id);
        nodes.insert(at, own);
        nodes
    }

    /// The nodes in gossip, and whether one of them has this node's id.
    fn see(&self, read: &mut Read, now: Instant) -> (Vec<Seen>, Option<Twin>) {
        let store = self.store();
        let mut seen = Vec::new();
        let mut known = Read::new();
        for (id, row) in store.others() {
            let before = read.remove(&**id);
            let facts = facts(row, before.as_ref());
            known.insert(id.to_string(), ((row.generation, row.floor, row.version), facts.clone()));
            seen.push(Seen {
                id: id.to_string(),
                generation: row.generation,
                heartbeat: row.heartbeat,
                gossip: row.address,
                facts,
            });
        }
        *read = known;
        (seen, store.twin(now))
    }

    /// Runs the resync of this number. A panic counts as a failure.
    async fn resync(self: Arc<Self>, number: u64) {
        let shared = self.clone();
        let ended = tokio::spawn(async move {
            let begun = {
                let resync = shared.on_quorum.lock().unwrap_or_else(PoisonError::into_inner);
                resync.as_ref().map(|resync| resync())
            };
            match begun {
                Some(begun) => begun.await,
                None => Ok(()),
            }
        });
        let ended = ended.await.unwrap_or_else(|panicked| Err(panicked.into()));
        if let Err(error) = &ended {
            tracing::warn!(%error, "the resync failed and is retried in 1 s");
            sleep(Duration::from_secs(1)).await;
        }
        self.view().resynced(number, ended.is_ok());
    }
}

/// The facts of a node, parsed again only when they have changed.
fn facts(row: &Row, before: Option<&(Stamp, Arc<Facts>)>) -> Arc<Facts> {
    let now = (row.generation, row.floor, row.version);
    match before {
        Some((then, facts)) if *then == now => facts.clone(),
        _ => Arc::new(Facts::parse(row.pairs(), before.map(|(_, facts)| &**facts))),
    }
}
