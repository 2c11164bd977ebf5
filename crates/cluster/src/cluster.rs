//! The handle of a node that has joined.

use crate::{
    Config, Events, Health, Node, Status,
    config::named,
    gossip::{Counted, Guarded, Ignored, Opened},
    node,
    permission::{Permission, Quorum},
    shared::{self, Shared},
};
use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, ProtocolVersion,
    spawn_chitchat, transport::Transport,
};
use cinchona_core::{BoxError, Invalid, Target};
use std::{fmt, future::Future, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{Instant, sleep},
};

/// A node that has joined a cluster; it gossips until the last clone of this is dropped.
///
/// ```
/// use cinchona_cluster::{Cluster, Config, Status};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let config = Config::new("orders", "orders-1", ([127, 0, 0, 1], 0).into());
/// let cluster = Cluster::join(config, &[]).await.unwrap();
/// assert_eq!(cluster.nodes()[0].id, "orders-1");
/// cluster.leave(std::time::Duration::ZERO).await;
/// # }
/// ```
#[derive(Clone)]
pub struct Cluster(Arc<Joined>);

struct Joined {
    shared: Arc<Shared>,
    /// Gossip ends when it is dropped.
    gossip: ChitchatHandle,
    ticking: AbortHandle,
    watching: AbortHandle,
    address: SocketAddr,
}

// === impl Cluster ===

impl Cluster {
    /// Joins by UDP gossip through `seeds`: `host:port` of any nodes of the cluster, looked up anew
    /// each 60 s. A node without seeds begins a cluster.
    ///
    /// # Errors
    /// [`Invalid`] when a setting is outside its range, or an I/O error when the address cannot be
    /// bound.
    pub async fn join(config: Config, seeds: &[&str]) -> Result<Self, BoxError> {
        let ignored = Ignored::default();
        Self::over(config, seeds, Counted(ignored.clone()), ignored).await
    }

    /// [`join`](Self::join) by another transport of chitchat's, such as its `ChannelTransport` in a
    /// test in virtual time.
    ///
    /// # Errors
    /// As those of `join`.
    pub async fn join_over(
        config: Config,
        seeds: &[&str],
        transport: impl Transport,
    ) -> Result<Self, BoxError> {
        Self::over(config, seeds, transport, Ignored::default()).await
    }

    async fn over(
        config: Config,
        seeds: &[&str],
        transport: impl Transport,
        ignored: Ignored,
    ) -> Result<Self, BoxError> {
        let mut config = config.checked()?;
        // The time that a v7 id begins with: milliseconds since 1970.
        let now = (uuid::Uuid::now_v7().as_u128() >> 80) as u64;
        let generation = *config.generation.get_or_insert(now);
        let (cluster_id, counts) = (config.cluster_id.clone(), ignored.clone());
        let guarded = Guarded { inner: transport, cluster_id, ignored: counts };
        let opened = Opened::new(guarded.open(config.listen).await?)?;
        let address = opened.address;
        let advertised = config.advertise.unwrap_or(address);
        let id = ChitchatId::new(config.node_id.as_str(), generation, advertised);
        let told = chitchat_config(&config, id, seeds);
        let gossip = spawn_chitchat(told, shared::pairs(&config), &opened).await?;
        let ended = gossip.termination_watcher();
        // Until it is ended on purpose.
        let watching = tokio::spawn(async move {
            if let Err(error) = ended.await {
                tracing::error!(%error, "gossip has ended");
            }
        });
        let shared = Shared::new(config, gossip.chitchat(), ignored, !seeds.is_empty());
        let shared = Arc::new(shared);
        let ticking = tokio::spawn(shared::tick(shared.clone())).abort_handle();
        let watching = watching.abort_handle();
        Ok(Self(Arc::new(Joined { shared, gossip, ticking, watching, address })))
    }

    /// Where it receives gossip: a seed for others.
    pub fn gossip_address(&self) -> SocketAddr {
        self.0.address
    }

    /// What happens from now on.
    pub fn events(&self) -> Events {
        Events::of(&self.0.shared.events)
    }

    /// All that are known, this node among them, by their ids; observers are not.
    pub fn nodes(&self) -> Vec<Node> {
        self.0.shared.nodes(Instant::now())
    }

    /// What this node holds of the whole.
    pub fn status(&self) -> Status {
        self.0.shared.view().status()
    }

    /// How many members are reachable, this node among them, of how many that are expected.
    pub fn reachable(&self) -> (usize, usize) {
        self.0.shared.view().quorum()
    }

    /// Why this node takes no writes, if it takes none.
    pub fn refusal(&self) -> Option<String> {
        self.quorum().refusal(Instant::now()).map(|reason| reason.into_owned())
    }

    /// How many nodes are in which condition.
    pub fn health(&self) -> Health {
        Health::of(&self.nodes(), self.status())
    }

    /// How sure one can be that another node is gone, see [`Phi`](crate::Phi); `None` where it is
    /// not known.
    pub fn phi(&self, node: &str) -> Option<f64> {
        self.0.shared.view().phi(node, Instant::now())
    }

    /// The intervals between the last heartbeats of another node, oldest first. Until there are
    /// enough of them, the first two are made up of `first_estimate`.
    pub fn heartbeat_history(&self, node: &str) -> Option<Vec<Duration>> {
        self.0.shared.view().history(node)
    }

    /// A call to this node could not be delivered, or its connection was lost: after three in a
    /// row, within 5 s of each other, it is convicted as soon as it is suspected.
    pub fn report_failure(&self, node: &str) {
        self.0.shared.view().report(node, true, Instant::now());
    }

    /// A call to this node was answered, however.
    pub fn report_success(&self, node: &str) {
        self.0.shared.view().report(node, false, Instant::now());
    }

    /// Expects this node no more: an operator's decision about one that will not come back. It
    /// spreads to all, and the node joins again only after a restart. Whether it was known.
    pub fn forget(&self, node: &str) -> bool {
        let event = self.0.shared.view().forget(node);
        let is_known = event.is_some();
        event.into_iter().for_each(|event| self.0.shared.tell(event));
        is_known
    }

    /// The nodes that are ready and have all of these tags, for a balancer: their addresses, each
    /// with its `capacity` as its weight. Ready is who serves, has not failed and does not drain.
    pub fn workers(&self, tags: &[(&str, &str)]) -> watch::Receiver<Vec<Target>> {
        let tags = tags.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        self.0.shared.watchers.add(tags, &self.nodes())
    }

    /// Lets `resync` finish each time before writes are taken, at the start and after a minority:
    /// it fetches what was missed. When it fails it is tried again after 1 s, and while it runs
    /// writes are refused.
    pub fn on_quorum<F, R>(&self, resync: F)
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.0.shared.set_on_quorum(Box::new(move || Box::pin(resync())));
    }

    /// Says something else of this node.
    ///
    /// # Errors
    /// When `name` is not 1 to 64 of `A-Z a-z 0-9 . _ : -`.
    pub async fn set_tag(&self, name: &str, value: &str) -> Result<(), Invalid> {
        named("tag", name)?;
        self.0.shared.tags().insert(name.to_owned(), value.to_owned());
        self.0.shared.say(&node::tag_key(name), value).await;
        Ok(())
    }

    /// Does not say this of the node any more.
    pub async fn remove_tag(&self, name: &str) {
        self.0.shared.tags().remove(name);
        self.0.shared.chitchat.lock().await.self_node_state().delete(&node::tag_key(name));
    }

    /// Leaves, so that no call is lost: says `draining=true`, serves for `drain`, by when others
    /// have heard it and sent their last calls, then says that it has left, and ends gossip after
    /// five heartbeats. Others expect it no more. 1 s is enough to be heard on a LAN.
    pub async fn leave(&self, drain: Duration) {
        let shared = &self.0.shared;
        shared.tags().insert("draining".into(), "true".into());
        shared.say(&node::tag_key("draining"), "true").await;
        sleep(drain).await;
        shared.say(node::LEFT, "1").await;
        self.0.ticking.abort();
        self.quorum().set(Permission::refused("this node has left the cluster".into()));
        sleep(5 * shared.config.heartbeat).await;
        self.0.end();
    }

    /// How many datagrams came to the gossip port that are no gossip; with
    /// [`join_over`](Self::join_over), that is the transport's affair.
    pub fn garbage(&self) -> u64 {
        self.0.shared.ignored.garbage()
    }

    /// How many messages came from other clusters, or were sent to one and refused there.
    pub fn strangers(&self) -> u64 {
        self.0.shared.ignored.strangers()
    }

    pub(crate) fn quorum(&self) -> Quorum {
        self.0.shared.quorum.clone()
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("config", &self.0.shared.config).finish_non_exhaustive()
    }
}

// === impl Joined ===

impl Joined {
    fn end(&self) {
        self.ticking.abort();
        self.watching.abort();
        self.gossip.abort();
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.end();
    }
}

fn chitchat_config(config: &Config, id: ChitchatId, seeds: &[&str]) -> ChitchatConfig {
    let heartbeat = config.heartbeat;
    let day = Duration::from_secs(24 * 3600);
    // Only decides whom chitchat gossips with how often; who is alive is ours to say.
    let detector = FailureDetectorConfig::new(8.0, 100, 10 * heartbeat, 2 * heartbeat, day);
    let listen_addr = id.gossip_advertise_addr;
    ChitchatConfig {
        chitchat_id: id,
        cluster_id: config.cluster_id.clone(),
        gossip_interval: heartbeat,
        listen_addr,
        seed_nodes: seeds.iter().map(|seed| (*seed).to_owned()).collect(),
        failure_detector_config: detector,
        marked_for_deletion_grace_period: Duration::from_secs(3600),
        catchup_callback: None,
        extra_liveness_predicate: None,
        protocol_version: ProtocolVersion::V1,
    }
}
