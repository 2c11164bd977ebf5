//! Thirty nodes on loopback that join, leave, crash and are renamed for a minute.

use crate::{Cluster, Config, State};
use cinchona_core::Rng;
use rand::{RngExt, rngs::SmallRng};
use std::{collections::BTreeSet, env, net::SocketAddr, time::Duration};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};

const SECOND: Duration = Duration::from_secs(1);
const MOST: usize = 30;
/// So many are down at once at most: a majority always lives.
const MOST_DOWN: usize = 6;
/// By then a node has joined.
const SETTLED: Duration = Duration::from_secs(6);

struct Host {
    cluster: Cluster,
    id: String,
    since: Instant,
}

struct Churn {
    up: Vec<Host>,
    /// Who has crashed, and where it was.
    down: Vec<(String, SocketAddr)>,
    leaving: Vec<tokio::task::JoinHandle<()>>,
    names: usize,
    counts: [usize; 5],
    rng: SmallRng,
}

// === impl Churn ===

impl Churn {
    async fn start(&mut self, id: Option<String>, at: Option<SocketAddr>) {
        self.names += usize::from(id.is_none());
        let id = id.unwrap_or_else(|| format!("n{}", self.names));
        let at = at.unwrap_or_else(|| ([127, 0, 0, 1], 0).into());
        let mut config = Config::new("churn", &id, at);
        config.expect = MOST / 2;
        config.tags.insert("role".into(), "worker".into());
        let seeds: Vec<_> =
            self.up.iter().take(3).map(|host| host.cluster.gossip_address().to_string()).collect();
        let seeds: Vec<_> = seeds.iter().map(String::as_str).collect();
        // The socket of who was there before may not be closed yet.
        let began = Instant::now();
        let cluster = loop {
            match Cluster::join(config.clone(), &seeds).await {
                Ok(cluster) => break cluster,
                Err(error) => assert!(Instant::now() - began < 5 * SECOND, "{error}"),
            }
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
        let is_full = self.up.len() + self.down.len() >= MOST;
        match kind {
            0 if !is_full => self.start(None, None).await,
            1 if self.up.len() > MOST / 2 + MOST_DOWN => self.leave(),
            2 if self.down.len() < MOST_DOWN && self.up.len() > MOST / 2 => self.crash(),
            3 | 4 if !self.down.is_empty() => {
                let (id, at) = self.down.remove(0);
                let id = (kind == 3).then_some(id);
                self.start(id, Some(at)).await;
            }
            _ => return,
        }
        self.counts[kind] += 1;
    }

    /// Why those who have had time to join take no writes.
    fn refusals(&self) -> Vec<(String, String)> {
        let now = Instant::now();
        let settled = self.up.iter().filter(|host| now - host.since > SETTLED);
        settled.filter_map(|host| Some((host.id.clone(), host.cluster.refusal()?))).collect()
    }

    /// Who does not see exactly those who are up.
    fn wrong(&self) -> Vec<String> {
        let up: BTreeSet<_> = self.up.iter().map(|host| host.id.clone()).collect();
        let is_wrong = |host: &&Host| {
            let nodes = host.cluster.nodes();
            let alive = nodes.iter().filter(|node| node.state == State::Alive && node.reachable);
            let known = nodes.iter().filter(|node| node.state != State::Left);
            let alive: BTreeSet<_> = alive.map(|node| node.id.clone()).collect();
            let known: BTreeSet<_> = known.map(|node| node.id.clone()).collect();
            let reachable = host.cluster.reachable();
            alive != up || known != up || reachable != (up.len(), up.len())
        };
        self.up.iter().filter(is_wrong).map(|host| host.id.clone()).collect()
    }

    /// Lives that the nodes know, and the pages that this process takes.
    fn memory(&self) -> (usize, usize) {
        let rows = |host: &Host| host.cluster.shared().store().others().count();
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
        (self.up.iter().map(rows).sum(), pages.unwrap_or(0))
    }
}

// real clock: the datagrams go through sockets of the machine.
#[ignore = "takes three minutes; CINCHONA_SEED is its seed, CINCHONA_CHURN how many seconds it takes"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_minute_of_churn_all_see_exactly_who_lives_and_writes_were_taken_throughout() {
    let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (seed, seconds) = (number("CINCHONA_SEED").unwrap_or(30), number("CINCHONA_CHURN"));
    let rng = Rng::seeded(seed).draw();
    let (up, down, leaving) = (Vec::new(), Vec::new(), Vec::new());
    let mut churn = Churn { up, down, leaving, names: 0, counts: [0; 5], rng };
    for _ in 0..MOST {
        churn.start(None, None).await;
    }
    sleep(2 * SETTLED).await;
    assert_eq!(churn.wrong(), [""; 0], "before");
    let before = (churn.memory(), Handle::current().metrics().num_alive_tasks());
    let began = Instant::now();
    let mut refusals = Vec::new();
    while Instant::now() - began < SECOND * seconds.unwrap_or(60) as u32 {
        churn.step().await;
        for _ in 0..3 {
            sleep(SECOND / 10).await;
            refusals.extend(churn.refusals());
        }
    }
    let most = churn.memory();
    while let Some((id, at)) = churn.down.pop() {
        churn.start(Some(id), Some(at)).await;
    }
    while churn.up.len() < MOST {
        churn.start(None, None).await;
    }
    let began = Instant::now();
    while !churn.wrong().is_empty() {
        assert!(Instant::now() - began < 30 * SECOND, "{:?}", churn.wrong());
        sleep(SECOND / 10).await;
    }
    let took = Instant::now() - began;
    // Until those who are gone are forgotten.
    sleep(75 * SECOND).await;
    let after = (churn.memory(), Handle::current().metrics().num_alive_tasks());
    println!(
        "seed {seed}: {:?} joins, leaves, crashes, restarts, renames; all agreed {took:?} after \
         them; lives known, pages and tasks: {before:?}, {most:?}, {after:?}",
        churn.counts
    );
    assert_eq!(refusals, [], "writes where a majority lives");
    assert_eq!(churn.wrong(), [""; 0], "after");
    assert_eq!(after.0.0, before.0.0, "lives that are known");
    let finished = churn.leaving.iter().filter(|task| task.is_finished()).count();
    assert_eq!(finished, churn.leaving.len());
    assert!(after.1 <= before.1, "tasks: {before:?} {after:?}");
    assert!(after.0.1 <= before.0.1 + before.0.1 / 3, "pages: {before:?} {after:?}");
}
