//! What the handle of a node and its task share, and what the task does.

use crate::{
    Config, Event, Node, State,
    event::HELD,
    gossip::Ignored,
    node::{self, Facts, Seen},
    permission::Quorum,
    registry::Watchers,
    view::{Outcome, View},
};
use chitchat::Chitchat;
use cinchona_core::BoxError;
use std::{
    collections::BTreeMap,
    future::Future,
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
    pub(crate) chitchat: Arc<tokio::sync::Mutex<Chitchat>>,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) watchers: Watchers,
    pub(crate) quorum: Quorum,
    pub(crate) ignored: Ignored,
    view: Mutex<View>,
    /// Of this node.
    tags: Mutex<BTreeMap<String, String>>,
    on_quorum: Mutex<Option<OnQuorum>>,
}

/// What was read of each node, by its generation and version: most have not changed since.
type Read = BTreeMap<String, (u64, u64, Arc<Facts>)>;

/// What a node says when it joins.
pub(crate) fn pairs(config: &Config) -> Vec<(String, String)> {
    let address = config.address.iter();
    let address = address.map(|uri| (node::ADDRESS.to_owned(), uri.to_string()));
    let tags = config.tags.iter().map(|(name, value)| (node::tag_key(name), value.clone()));
    let observer = config.observer.then(|| (node::OBSERVER.to_owned(), "1".to_owned()));
    address.chain(tags).chain(observer).collect()
}

/// Looks at gossip, and acts on what follows, until it is aborted.
pub(crate) async fn tick(shared: Arc<Shared>) {
    let mut ticks = interval(shared.config.tick());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut read = Read::new();
    loop {
        ticks.tick().await;
        let seen = shared.see(&mut read).await;
        let now = Instant::now();
        let outcome = shared.view().look(&seen, now);
        let Outcome { events, publish, permission, resync } = outcome;
        shared.quorum.set(permission);
        if !publish.is_empty() {
            let mut chitchat = shared.chitchat.lock().await;
            for (key, value) in publish {
                chitchat.self_node_state().set(key, value);
            }
        }
        events.into_iter().for_each(|event| shared.tell(event));
        shared.watchers.update(&shared.nodes(now));
        if let Some(number) = resync {
            tokio::spawn(shared.clone().resync(number));
        }
    }
}

// === impl Shared ===

impl Shared {
    pub(crate) fn new(
        config: Config,
        chitchat: Arc<tokio::sync::Mutex<Chitchat>>,
        ignored: Ignored,
        has_seeds: bool,
    ) -> Self {
        Self {
            view: Mutex::new(View::new(config.clone(), has_seeds)),
            tags: Mutex::new(config.tags.clone()),
            config,
            chitchat,
            events: broadcast::channel(HELD).0,
            watchers: Watchers::default(),
            quorum: Quorum::default(),
            ignored,
            on_quorum: Mutex::default(),
        }
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
    pub(crate) async fn say(&self, key: &str, value: &str) {
        self.chitchat.lock().await.self_node_state().set(key, value);
    }

    pub(crate) fn tell(&self, event: Event) {
        tracing::info!(node = self.config.node_id, ?event, "cluster");
        // Without subscribers it is not told to anybody.
        let _ = self.events.send(event);
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

    /// What gossip shows of each node, in its latest life.
    async fn see(&self, read: &mut Read) -> Vec<Seen> {
        let mut latest: BTreeMap<String, Seen> = BTreeMap::new();
        let chitchat = self.chitchat.lock().await;
        for (id, state) in chitchat.node_states() {
            let (node, generation) = (id.node_id.to_string(), id.generation_id);
            if latest.get(&node).is_some_and(|known| known.generation > generation) {
                continue;
            }
            let version = state.max_version();
            let before = read.get(&node);
            let known = before.filter(|known| (known.0, known.1) == (generation, version));
            let facts = known.map(|known| known.2.clone()).unwrap_or_else(|| {
                let before = before.map(|before| &*before.2);
                Arc::new(Facts::parse(state.key_values(), before))
            });
            read.insert(node.clone(), (generation, version, facts.clone()));
            let heartbeat = state.heartbeat().into();
            latest.insert(node.clone(), Seen { id: node, generation, heartbeat, facts });
        }
        read.retain(|node, _| latest.contains_key(node));
        latest.into_values().collect()
    }

    /// Runs the resync of this number.
    async fn resync(self: Arc<Self>, number: u64) {
        let begun = {
            let resync = self.on_quorum.lock().unwrap_or_else(PoisonError::into_inner);
            resync.as_ref().map(|resync| resync())
        };
        let Some(begun) = begun else { return self.view().resynced(number, true) };
        let ended = begun.await;
        if let Err(error) = &ended {
            tracing::warn!(%error, "the resync has failed, and is tried again in 1 s");
            sleep(Duration::from_secs(1)).await;
        }
        self.view().resynced(number, ended.is_ok());
    }
}
