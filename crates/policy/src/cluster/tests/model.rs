//! A model of gossip: each exchange is three datagrams, each of which may be lost or cut off.

use crate::{
    Rng,
    cluster::{ADDRESS, Event, External, Facts, Seen, Settings, Twin, View},
};
use rand::{RngExt, rngs::SmallRng, seq::IndexedRandom};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

pub(crate) const MS: Duration = Duration::from_millis(1);
const STEP: u64 = 50;

pub(crate) struct Net {
    pub(crate) nodes: Vec<Host>,
    /// Which links are cut, by direction.
    pub(crate) cuts: BTreeSet<(usize, usize)>,
    pub(crate) loss: f64,
    /// Since the start.
    pub(crate) ms: u64,
    start: Instant,
    rng: SmallRng,
}

pub(crate) struct Host {
    pub(crate) id: String,
    pub(crate) view: View<String>,
    pub(crate) is_up: bool,
    /// Until when it is paused.
    pub(crate) paused_until: u64,
    pub(crate) events: Vec<(u64, Event)>,
    /// What its guard would decide now.
    pub(crate) refusal: Option<String>,
    pub(crate) resyncs: Vec<u64>,
    /// Whether the resync ends as soon as it begins.
    pub(crate) resyncs_at_once: bool,
    settings: Settings<String>,
    state: BTreeMap<String, Row>,
    seeds: Vec<usize>,
    phase: u64,
    pub(crate) external: External,
}

#[derive(Clone)]
struct Row {
    generation: u64,
    heartbeat: u64,
    version: u64,
    pairs: Arc<BTreeMap<String, String>>,
    facts: Arc<Facts<String>>,
}

pub(crate) fn settings(n: usize) -> Settings<String> {
    let (generation, address) = (1, Some(format!("http://10.0.0.{n}")));
    Settings { generation, address, ..Settings::new(format!("n{n}")) }
}

// === impl Net ===

impl Net {
    /// `n` nodes, each with all others as seeds, that have found each other.
    pub(crate) fn of(n: usize, seed: u64, change: impl Fn(&mut Settings<String>)) -> Self {
        let mut net = Self::empty(seed);
        for i in 0..n {
            let mut settings = settings(i);
            settings.expect = n;
            change(&mut settings);
            net.add(settings, (0..n).filter(|seed| *seed != i).collect());
        }
        net.run(6000);
        net
    }

    pub(crate) fn empty(seed: u64) -> Self {
        let (nodes, cuts) = (Vec::new(), BTreeSet::new());
        let rng = Rng::seeded(seed).draw();
        Self { nodes, cuts, loss: 0.0, ms: 0, start: Instant::now(), rng }
    }

    pub(crate) fn add(&mut self, settings: Settings<String>, seeds: Vec<usize>) {
        let phase = self.rng.random_range(0..4) * STEP;
        self.nodes.push(Host::new(settings, seeds, phase));
    }

    /// Begins the next life of a node that is down.
    pub(crate) fn restart(&mut self, n: usize) {
        let Host { settings, seeds, phase, .. } = &self.nodes[n];
        let mut settings = settings.clone();
        settings.generation += 1;
        self.nodes[n] = Host::new(settings, seeds.clone(), *phase);
    }

    pub(crate) fn cut(&mut self, left: &[usize], right: &[usize]) {
        for (&a, &b) in left.iter().flat_map(|a| right.iter().map(move |b| (a, b))) {
            self.cuts.extend([(a, b), (b, a)]);
        }
    }

    pub(crate) fn now(&self) -> Instant {
        self.start + self.ms as u32 * MS
    }

    pub(crate) fn run(&mut self, ms: u64) {
        for _ in 0..ms / STEP {
            self.ms += STEP;
            for n in 0..self.nodes.len() {
                let host = &self.nodes[n];
                if !host.is_up || host.paused_until > self.ms {
                    continue;
                }
                let period = host.settings.heartbeat.as_millis() as u64;
                let is_due = |every| (self.ms + host.phase).is_multiple_of(every);
                let (gossips, resumes) = (is_due(period), host.paused_until == self.ms);
                let looks = resumes || is_due(period / 2);
                if gossips {
                    self.gossip(n);
                }
                if looks {
                    let (ms, now) = (self.ms, self.now());
                    self.nodes[n].look(ms, now);
                }
            }
        }
    }

    fn gossip(&mut self, n: usize) {
        let host = &mut self.nodes[n];
        if let Some(own) = host.state.get_mut(&host.id) {
            own.heartbeat += 1;
        }
        let known: BTreeSet<usize> = host.state.keys().map(|id| number(id)).collect();
        let known: Vec<_> =
            known.into_iter().chain(host.seeds.clone()).filter(|i| *i != n).collect();
        let chosen: Vec<_> = known.sample(&mut self.rng, 3).copied().collect();
        for peer in chosen {
            self.exchange(n, peer);
        }
    }

    fn exchange(&mut self, from: usize, to: usize) {
        if !self.arrives(from, to) {
            return;
        }
        self.hand_over(from, to, false);
        if self.arrives(to, from) {
            self.hand_over(to, from, true);
            if self.arrives(from, to) {
                self.hand_over(from, to, true);
            }
        }
    }

    fn hand_over(&mut self, from: usize, to: usize, with_pairs: bool) {
        let state = std::mem::take(&mut self.nodes[from].state);
        self.nodes[to].merge(&state, with_pairs);
        self.nodes[from].state = state;
    }

    fn arrives(&mut self, from: usize, to: usize) -> bool {
        let hears = self.nodes[to].is_up && self.nodes[to].paused_until <= self.ms;
        hears && !self.cuts.contains(&(from, to)) && !self.rng.random_bool(self.loss)
    }

    /// The nodes that would accept writes now.
    pub(crate) fn writable(&self) -> Vec<usize> {
        let writes = |n: &usize| self.nodes[*n].is_up && self.nodes[*n].refusal.is_none();
        (0..self.nodes.len()).filter(writes).collect()
    }

    /// When `n` noticed, since the start.
    pub(crate) fn when(&self, n: usize, is_it: impl Fn(&Event) -> bool) -> Vec<u64> {
        let events = self.nodes[n].events.iter();
        events.filter(|(_, event)| is_it(event)).map(|(ms, _)| *ms).collect()
    }

    pub(crate) fn forget_events(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.events.clear());
    }
}

fn number(id: &str) -> usize {
    id[1..].parse().unwrap()
}

// === impl Host ===

impl Host {
    fn new(settings: Settings<String>, seeds: Vec<usize>, phase: u64) -> Self {
        let address = settings.address.iter();
        let pairs: Vec<_> = address.map(|at| (ADDRESS.to_owned(), at.clone())).collect();
        let mut host = Self {
            id: settings.node_id.clone(),
            view: View::new(settings.clone(), !seeds.is_empty()),
            is_up: true,
            paused_until: 0,
            events: Vec::new(),
            refusal: Some("new".into()),
            resyncs: Vec::new(),
            resyncs_at_once: true,
            settings,
            state: BTreeMap::new(),
            seeds,
            phase,
            external: External::default(),
        };
        host.set(pairs);
        host
    }

    /// Gossip shows a node of the same id.
    pub(crate) fn meets_itself(&mut self, is_earlier: bool) {
        self.external.twin = Some(Twin { address: None, is_earlier });
    }

    pub(crate) fn set(&mut self, more: impl IntoIterator<Item = (String, String)>) {
        if self.settings.observer {
            return;
        }
        let generation = self.settings.generation;
        let own = self.state.entry(self.id.clone()).or_insert_with(|| Row {
            generation,
            heartbeat: 1,
            version: 0,
            pairs: Arc::default(),
            facts: Arc::default(),
        });
        let pairs = Arc::make_mut(&mut own.pairs);
        pairs.extend(more);
        let all = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        own.facts = Arc::new(Facts::parse(all, None));
        own.version += 1;
    }

    fn merge(&mut self, other: &BTreeMap<String, Row>, with_pairs: bool) {
        for (id, theirs) in other.iter().filter(|(id, _)| **id != self.id) {
            let empty = || {
                let (pairs, facts) = (Arc::default(), Arc::default());
                Row { version: 0, pairs, facts, ..theirs.clone() }
            };
            let Some(ours) = self.state.get_mut(id) else {
                self.state.insert(id.clone(), empty());
                continue;
            };
            if theirs.generation > ours.generation {
                *ours = empty();
            }
            if theirs.generation == ours.generation {
                ours.heartbeat = ours.heartbeat.max(theirs.heartbeat);
                if with_pairs && theirs.version > ours.version {
                    let heartbeat = ours.heartbeat;
                    *ours = Row { heartbeat, ..theirs.clone() };
                }
            }
        }
    }

    fn look(&mut self, ms: u64, now: Instant) {
        let seen = |(id, row): (&String, &Row)| Seen {
            id: id.clone(),
            generation: row.generation,
            heartbeat: row.heartbeat,
            gossip: Some(([10, 0, 0, 0], number(id) as u16).into()),
            facts: row.facts.clone(),
        };
        let others = self.state.iter().filter(|(id, _)| **id != self.id);
        let seen: Vec<_> = others.map(seen).collect();
        let outcome = self.view.look(&seen, self.external, now);
        self.events.extend(outcome.events.into_iter().map(|event| (ms, event)));
        if let Some(number) = outcome.resync {
            self.resyncs.push(number);
            if self.resyncs_at_once {
                self.view.resynced(number, true);
            }
        }
        if !outcome.publish.is_empty() {
            self.set(outcome.publish);
        }
        self.refusal = outcome.permission.refusal(now).map(|reason| reason.into_owned());
    }
}
