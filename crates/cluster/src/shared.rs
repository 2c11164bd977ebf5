//! What the handle of a node and its task share, and what the task does.

use crate::{
    Config, Event, Expected, Node, State,
    event::HELD,
    ignored::Ignored,
    node::{self, Facts, Seen},
    permission::Quorum,
    registry::Watchers,
    seal::Seal,
    seeds::Seeds,
    store::{Row, Store, Twin},
    view::{Outcome, Told, View},
};
use cinchona_core::{BoxError, Rng};
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

/// Makes up for what was missed without a quorum.
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
    /// Whom an operator had forgotten by way of an onlooker, and until when this one passes it on.
    forgotten: Mutex<Vec<((String, u64), Instant)>>,
    /// Of this node.
    tags: Mutex<BTreeMap<String, String>>,
    on_quorum: Mutex<Option<OnQuorum>>,
}

/// What was read of each node, by its generation, floor and version: most have not changed since.
type Read = BTreeMap<String, (Stamp, Arc<Facts>)>;
type Stamp = (u64, u64, u64);

/// For so long an onlooker passes on which nodes to forget.
const TELLING: Duration = Duration::from_secs(5);

/// What a node says when it joins.
pub(crate) fn pairs(config: &Config) -> Vec<(String, String)> {
    let address = config.address.iter();
    let address = address.map(|uri| (node::ADDRESS.to_owned(), uri.to_string()));
    let tags = config.tags.iter().map(|(name, value)| (node::tag_key(name), value.clone()));
    address.chain(tags).collect()
}

/// Looks at gossip, and acts on what follows, until it is aborted.
pub(crate) async fn tick(shared: Arc<Shared>) {
    let mut ticks = interval(shared.config.tick());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut read = Read::new();
    loop {
        ticks.tick().await;
        let now = Instant::now();
        let (seen, twin) = shared.see(&mut read, now);
        let told = Told { twin, expected: shared.config.expected.as_ref().map(Expected::now) };
        let (outcome, unproven, expected) = {
            let mut view = shared.view();
            let outcome = view.look(&seen, told, now);
            let expected: Vec<_> = seen.iter().map(|seen| view.is_expected(seen)).collect();
            (outcome, view.unproven(), expected)
        };
        for (seen, is_expected) in seen.iter().zip(expected) {
            shared.store().set_expected(&seen.id, seen.generation, is_expected);
        }
        let Outcome { events, publish, permission, resync } = outcome;
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
    /// For a checked config, whose generation is given; gossip is received at `address`.
    pub(crate) fn new(config: Config, seeds: Seeds, has_seeds: bool, address: SocketAddr) -> Self {
        let life = (config.node_id.as_str(), config.generation.unwrap_or_default());
        let (is_observer, beat) = (config.observer, config.heartbeat);
        let mut store = Store::new(life, address, is_observer, beat, Instant::now());
        pairs(&config).iter().for_each(|(key, value)| store.set(key, value));
        Self {
            store: Mutex::new(store),
            view: Mutex::new(View::new(config.clone(), has_seeds)),
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

    /// What all nodes say; not to be held for long, and never while the view is.
    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this node knows; not to be held for long.
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

    /// Says something to all others.
    pub(crate) fn say(&self, key: &str, value: &str) {
        self.store().set(key, value);
    }

    /// Whether nobody was heard lately.
    pub(crate) fn is_alone(&self, now: Instant) -> bool {
        self.store().addresses(now).0.is_empty()
    }

    pub(crate) fn tell(&self, event: Event) {
        let node = self.config.node_id.as_str();
        match event {
            Event::DuplicateId { .. } => tracing::error!(node, ?event, "cluster"),
            _ => tracing::info!(node, ?event, "cluster"),
        }
        // Without subscribers it is not told to anybody.
        let _ = self.events.send(event);
    }

    /// Expects a node no more; whether it was.
    pub(crate) fn forget(&self, id: &str) -> bool {
        let Some((event, generation)) = self.view().forget(id) else { return false };
        // Nobody asks an onlooker whom it knows to be gone.
        if self.config.observer {
            let until = cinchona_plumbing::clock::later(Instant::now(), TELLING);
            self.forgotten().push(((id.to_owned(), generation), until));
        }
        self.tell(event);
        true
    }

    /// Another node says so.
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

    /// All that are known, this node among them unless it only looks on, by their ids.
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
        let mut nodes = self.view().nodes(now);
        if self.config.observer {
            return nodes;
        }
        let at = nodes.partition_point(|node| node.id < own.id);
        nodes.insert(at, own);
        nodes
    }

    /// What gossip shows of each other node, and whether one of them has this one's id.
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

    /// Runs the resync of this number. One that panics has failed.
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
            tracing::warn!(%error, "the resync has failed, and is tried again in 1 s");
            sleep(Duration::from_secs(1)).await;
        }
        self.view().resynced(number, ended.is_ok());
    }
}

/// What a node says, read again only where it has changed.
fn facts(row: &Row, before: Option<&(Stamp, Arc<Facts>)>) -> Arc<Facts> {
    let now = (row.generation, row.floor, row.version);
    match before {
        Some((then, facts)) if *then == now => facts.clone(),
        _ => Arc::new(Facts::parse(row.pairs(), before.map(|(_, facts)| &**facts))),
    }
}
