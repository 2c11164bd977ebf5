//! A server with all its layers, which can crash and come back.

use calculator::{
    methods,
    server::{Layers, dedup, listen, serve},
    state::Memory,
    watch,
};
use cinchona::{
    cluster::{Cluster, Config, QuorumGuardLayer},
    core::BoxError,
    dashboard::{Health, Tile},
    fault::{FaultIo, FaultLayer, Rules},
    shed::{Limit, ShedLayer},
};
use std::{
    future::pending,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::runtime;
use tokio_stream::StreamExt;

/// A node of the cluster, on loopback sockets and in a runtime of its own. When the runtime is
/// dropped, the node vanishes like a killed process.
pub(super) struct Server {
    name: String,
    addr: SocketAddr,
    gossip: SocketAddr,
    seed: Option<String>,
    state: Memory,
    layers: Layers<Memory>,
    rules: Rules,
    shown: watch::server::Server<Memory>,
    running: Mutex<Option<(runtime::Runtime, Cluster)>>,
}

pub(super) const CLUSTER: &str = "demo";

/// The most calls that it has in progress.
const LIMIT: u32 = 12;

// === impl Server ===

impl Server {
    /// A server that joins through `seed`, or starts the cluster.
    pub(super) async fn start(name: &str, seed: Option<String>) -> Result<Self, BoxError> {
        let (state, rules, any) =
            (Memory::new(), Rules::new(1), SocketAddr::from(([127, 0, 0, 1], 0)));
        let faults = FaultLayer::from(rules.clone());
        let mut layers = Layers::new(faults, dedup(state.clone()));
        layers.shed = ShedLayer::new(Limit::Fixed(LIMIT))?;
        layers.rules = Some((rules.clone(), None));
        let shown = watch::server::Server::new(name, &layers);
        let (name, running) = (name.to_owned(), Mutex::default());
        let mut server =
            Self { name, addr: any, gossip: any, seed, state, layers, rules, shown, running };
        (server.addr, server.gossip) = server.run().await?;
        Ok(server)
    }

    /// Starts again at its addresses.
    pub(super) async fn restart(&self) -> Result<(), BoxError> {
        self.run().await.map(drop)
    }

    /// Crashes: its connections break.
    pub(super) fn crash(&self) {
        if let Some((runtime, _)) = self.running().take() {
            runtime.shutdown_background();
        }
    }

    /// Its addresses: of gRPC, and of gossip.
    async fn run(&self) -> Result<(SocketAddr, SocketAddr), BoxError> {
        let runtime =
            runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (addr, mut layers, state) = (self.addr, self.layers.clone(), self.state.clone());
        let mut config = Config::new(CLUSTER, &*self.name, self.gossip);
        config.expect = 3;
        config.tags.insert("role".into(), "worker".into());
        let seed = self.seed.clone();
        let started = runtime.spawn(async move {
            let incoming = listen(addr)?;
            let addr = incoming.local_addr()?;
            config.address = Some(format!("http://{addr}").parse()?);
            let seeds: Vec<&str> = seed.iter().map(String::as_str).collect();
            let cluster = Cluster::join(config, &seeds).await?;
            layers.quorum = Some(QuorumGuardLayer::new(&cluster, methods()));
            let incoming = incoming.map(|io| io.map(FaultIo::new));
            tokio::spawn(serve(incoming, state, layers, pending()));
            Ok::<_, BoxError>((addr, cluster))
        });
        let (addr, cluster) = match started.await? {
            Ok(started) => started,
            Err(error) => {
                runtime.shutdown_background();
                return Err(error);
            }
        };
        let gossip = cluster.gossip_address();
        *self.running() = Some((runtime, cluster));
        Ok((addr, gossip))
    }

    fn running(&self) -> MutexGuard<'_, Option<(runtime::Runtime, Cluster)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn name(&self) -> String {
        self.name.clone()
    }

    pub(super) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(super) const fn gossip(&self) -> SocketAddr {
        self.gossip
    }

    pub(super) const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Its view of the cluster, while it runs.
    pub(super) fn cluster(&self) -> Option<Cluster> {
        self.running().as_ref().map(|(_, cluster)| cluster.clone())
    }

    pub(super) fn tile(&self) -> Tile {
        let tile = self.shown.tile();
        match self.running().is_some() {
            true => tile,
            false => Tile { state: "crashed".into(), health: Health::Bad, ..tile },
        }
    }
}
