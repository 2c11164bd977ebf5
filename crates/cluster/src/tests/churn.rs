//! Nodes on loopback that join, leave, crash and are renamed: a few for a few seconds, or thirty
//! for as many as `CINCHONA_CHURN` says, from `CINCHONA_SEED`.

use super::memory::Memory;
use crate::{Cluster, Config, State};
use cinchona_core::Rng;
use rand::{RngExt, rngs::SmallRng};
use std::{collections::BTreeSet, env, net::SocketAddr, time::Duration};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};

const SECOND: Duration = Duration::from_secs(1);
/// A node has joined within this time, also on a loaded machine.
const SETTLED: Duration = Duration::from_secs(15);

/// The nodes of a run of a few seconds.
const FEW: usize = 6;

struct Host {
    cluster: Cluster,
    id: String,
    since: Instant,
}

struct Churn {
    most: usize,
    /// The most nodes that are down at once: a majority always lives.
    most_down: usize,
    up: Vec<Host>,
    /// The crashed node, and its address.
    down: Vec<(String, SocketAddr)>,
    leaving: Vec<tokio::task::JoinHandle<()>>,
    names: usize,
    counts: [usize; 5],
    rng: SmallRng,
}

// === impl Churn ===

impl Churn {
    fn new(most: usize, seed: u64) -> Self {
        let (up, down, leaving) = (Vec::new(), Vec::new(), Vec::new());
        let (most_down, rng) = (most / 5, Rng::seeded(seed).draw());
        Self { most, most_down, up, down, leaving, names: 0, counts: [0; 5], rng }
    }

    /// Why writes were refused meanwhile by nodes that had had time to join.
    async fn run(&mut self, time: Duration) -> Vec<(String, String)> {
        let began = Instant::now();
        let mut refusals = Vec::new();
        while Instant::now() - began < time {
            self.step().await;
            for _ in 0..3 {
                // real clock: the datagrams go through sockets of the machine.
                sleep(SECOND / 10).await;
                refusals.extend(self.refusals());
            }
        }
        refusals
    }

    /// Starts all again; returns how long it takes until they agree.
    async fn end(&mut self) -> Duration {
        while let Some((id, at)) = self.down.pop() {
            self.start(Some(id), Some(at)).await;
        }
        while self.up.len() < self.most {
            self.start(None, None).await;
        }
        self.agree().await
    }

    /// Nodes that are gone are removed, and nothing keeps growing.
    async fn forgets(&self) {
        let mut memory = Vec::new();
        for _ in 0..8 {
            // real clock: the datagrams go through sockets of the machine.
            sleep(20 * SECOND).await;
            memory.push(self.memory());
        }
        println!("lives that are known, and pages, each 20 s: {memory:?}");
        let [.., (_, earlier), (lives, last)] = memory[..] else { return };
        assert_eq!(lives, self.most * (self.most - 1));
        assert!(last <= earlier + earlier / 20, "{memory:?}");
        assert!(self.leaving.iter().all(tokio::task::JoinHandle::is_finished));
        // Two each, and this test.
        assert!(Handle::current().metrics().num_alive_tasks() <= 2 * self.most + 1);
    }

    async fn start(&mut self, id: Option<String>, at: Option<SocketAddr>) {
        self.names += usize::from(id.is_none());
        let id = id.unwrap_or_else(|| format!("n{}", self.names));
        let at = at.unwrap_or_else(|| ([127, 0, 0, 1], 0).into());
        let mut config = Config::new("churn", &id, at);
        config.expect = self.most / 2;
        if self.most > FEW {
            // All of them share the cores of one machine with other programs.
            config.heartbeat = SECOND / 2;
            config.reachable_within = 5 * SECOND;
            config.phi.acceptable_pause = 3 * SECOND;
        }
        config.tags.insert("role".into(), "worker".into());
        let seeds: Vec<_> =
            self.up.iter().take(3).map(|host| host.cluster.gossip_address().to_string()).collect();
        let seeds: Vec<_> = seeds.iter().map(String::as_str).collect();
        // The socket of the earlier node may not be closed yet.
        let began = Instant::now();
        let cluster = loop {
            match Cluster::join(config.clone(), &seeds).await {
                Ok(cluster) => break cluster,
                Err(error) => assert!(Instant::now() - began < 5 * SECOND, "{error}"),
            }
            // real clock: the datagrams go through sockets of the machine.
            sleep(SECOND / 100).await;
        };
        self.up.push(Host { cluster, id, since: Instant::now() });
    }

    fn crash(&mut self) {
        // The first is a seed of all that start.
        let host = self.up.remove(self.rng.random_range(1..self.up.len()));
        self.down.push((host.id, host.cluster.gossip_address()));
    }

    fn leave(&mut self) {
        let host = self.up.remove(self.rng.random_range(1..self.up.len()));
        let leave = async move { host.cluster.leave(SECOND / 2).await };
        self.leaving.push(tokio::spawn(leave));
    }

    async fn step(&mut self) {
        let kind = self.rng.random_range(0..5);
        let is_full = self.up.len() + self.down.len() >= self.most;
        match kind {
            0 if !is_full => self.start(None, None).await,
            1 if self.up.len() > self.most / 2 + self.most_down => self.leave(),
            2 if self.down.len() < self.most_down && self.up.len() > self.most / 2 => self.crash(),
            3 | 4 if !self.down.is_empty() => {
                let (id, at) = self.down.remove(0);
                let id = (kind == 3).then_some(id);
                self.start(id, Some(at)).await;
            }
            _ => return,
        }
        self.counts[kind] += 1;
    }

    /// Why nodes that have had time to join refuse writes.
    fn refusals(&self) -> Vec<(String, String)> {
        let now = Instant::now();
        let settled = self.up.iter().filter(|host| now - host.since > SETTLED);
        settled.filter_map(|host| Some((host.id.clone(), host.cluster.refusal()?))).collect()
    }

    /// The nodes that do not see exactly the running ones, or refuse writes.
    fn wrong(&self) -> Vec<String> {
        let up: BTreeSet<_> = self.up.iter().map(|host| host.id.clone()).collect();
        let is_wrong = |host: &&Host| {
            let nodes = host.cluster.nodes();
            let alive = nodes.iter().filter(|node| node.state == State::Alive && node.reachable);
            let known = nodes.iter().filter(|node| node.state != State::Left);
            let alive: BTreeSet<_> = alive.map(|node| node.id.clone()).collect();
            let known: BTreeSet<_> = known.map(|node| node.id.clone()).collect();
            let reachable = host.cluster.reachable();
            let refuses = host.cluster.refusal().is_some();
            alive != up || known != up || reachable != (up.len(), up.len()) || refuses
        };
        let said = |host: &Host| {
            let cluster = &host.cluster;
            format!(
                "{}: {:?} {} {:?}",
                host.id,
                cluster.reachable(),
                cluster.health(),
                cluster.refusal()
            )
        };
        self.up.iter().filter(is_wrong).map(said).collect()
    }

    /// How long it takes until all see exactly the running ones, and accept writes.
    async fn agree(&self) -> Duration {
        let began = Instant::now();
        while !self.wrong().is_empty() {
            assert!(Instant::now() - began < 60 * SECOND, "{:?}", self.wrong());
            // real clock: the datagrams go through sockets of the machine.
            sleep(SECOND / 10).await;
        }
        Instant::now() - began
    }

    /// Lives that the nodes know, and the pages that this process takes.
    fn memory(&self) -> (usize, usize) {
        let rows = |host: &Host| host.cluster.shared().store().others().count();
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
        (self.up.iter().map(rows).sum(), pages.unwrap_or(0))
    }
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().and_then(|text| text.parse().ok())
}

// real clock: the datagrams go through sockets of the machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_churn_all_see_exactly_the_live_nodes_and_writes_were_never_refused() {
    let (seed, seconds) = (number("CINCHONA_SEED").unwrap_or(30), number("CINCHONA_CHURN"));
    let most = if seconds.is_some() { 30 } else { FEW };
    let mut churn = Churn::new(most, seed);
    for _ in 0..most {
        churn.start(None, None).await;
    }
    churn.agree().await;
    let refusals = churn.run(Duration::from_secs(seconds.unwrap_or(3))).await;
    let took = churn.end().await;
    println!(
        "seed {seed}: {:?} joins, leaves, crashes, restarts, renames; all agreed {took:?} after \
         them",
        churn.counts
    );
    assert_eq!(refusals, [], "writes where a majority lives");
    if seconds.is_some() {
        churn.forgets().await;
    }
}

/// How long after a crash the next life begins.
const SOON: Duration = Duration::from_millis(200);

#[tokio::test(start_paused = true)]
async fn a_life_that_leaves_before_all_have_met_it_leaves_none_before_it_behind() {
    for lives in (100..=400).step_by(50).map(Duration::from_millis) {
        let memory = Memory::default();
        let mut nodes = memory.cluster(6).await;
        drop(nodes.pop());
        sleep(SOON).await;
        let again = memory.join(5, |_| {});
        sleep(lives).await;
        again.leave(SECOND / 2).await;
        sleep(10 * SECOND).await;
        for node in &nodes {
            let all = node.nodes();
            let failed = all.iter().filter(|node| node.state == State::Failed).count();
            assert_eq!((node.reachable(), failed), ((5, 5), 0), "{lives:?}: {all:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_replaced_is_not_expected_for_a_later_life_that_none_has_met() {
    for lives in (600..=850).step_by(25).map(Duration::from_millis) {
        let memory = Memory::default();
        let mut nodes = memory.cluster(6).await;
        drop(nodes.pop());
        sleep(SOON).await;
        let again = memory.join(5, |_| {});
        sleep(lives).await;
        drop(again);
        sleep(SOON).await;
        nodes.push(memory.join(5, |config| config.node_id = "pod".into()));
        sleep(10 * SECOND).await;
        for node in &nodes {
            assert_eq!(node.reachable(), (6, 6), "{lives:?}: {:?}", node.nodes());
        }
    }
}
