//! The handle of a node that has joined.

use crate::{
    Config, Datagrams, Events, Health, Node, Status,
    config::{named, tagged},
    gossip,
    lookup::{self, LookUp},
    node,
    permission::{Permission, Quorum},
    seeds::Seeds,
    shared::{self, Shared},
};
use cinchona_core::{BoxError, Invalid, Target};
use std::{fmt, future::Future, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::UdpSocket,
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
    ticking: AbortHandle,
    gossiping: AbortHandle,
    looking: AbortHandle,
    address: SocketAddr,
}

// === impl Cluster ===

impl Cluster {
    /// Joins by UDP gossip through `seeds`: `host:port` of any nodes of the cluster. While this
    /// node hears nobody, all of them are asked and names are looked up each second; otherwise one
    /// is asked each second, and names are looked up each 60 s. A node without seeds begins a
    /// cluster.
    ///
    /// # Errors
    /// [`Invalid`] when a setting is outside its range, or an I/O error when the address cannot be
    /// bound.
    pub async fn join(config: Config, seeds: &[&str]) -> Result<Self, BoxError> {
        let (config, found) = (config.checked()?, Seeds::new(seeds)?);
        let socket = UdpSocket::bind(config.listen).await?;
        Self::over(config, found, !seeds.is_empty(), socket, lookup::resolver())
    }

    /// [`join`](Self::join) by other datagrams, such as those of a network in memory in a test in
    /// virtual time. They are received where `datagrams` say, and not at [`Config::listen`].
    ///
    /// # Errors
    /// As those of `join`.
    pub fn join_over(
        config: Config,
        seeds: &[&str],
        datagrams: impl Datagrams,
    ) -> Result<Self, BoxError> {
        let (config, found) = (config.checked()?, Seeds::new(seeds)?);
        Self::over(config, found, !seeds.is_empty(), datagrams, lookup::resolver())
    }

    /// For a checked config.
    pub(crate) fn over(
        mut config: Config,
        seeds: Seeds,
        has_seeds: bool,
        datagrams: impl Datagrams,
        look_up: LookUp,
    ) -> Result<Self, BoxError> {
        // Half of it is enough to tell a few lives apart, and goes into each datagram.
        let drawn = || uuid::Uuid::new_v4().as_u64_pair().1 & u64::from(u32::MAX);
        config.generation.get_or_insert_with(drawn);
        let address = datagrams.address()?;
        let advertised = config.advertise.unwrap_or(address);
        let shared = Arc::new(Shared::new(config, seeds, has_seeds, advertised));
        let ticking = tokio::spawn(shared::tick(shared.clone())).abort_handle();
        let gossiping = tokio::spawn(gossip::run(shared.clone(), datagrams)).abort_handle();
        let looking = tokio::spawn(lookup::run(shared.clone(), look_up)).abort_handle();
        Ok(Self(Arc::new(Joined { shared, ticking, gossiping, looking, address })))
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
    /// spreads to all, and the node joins again only after a restart. An onlooker
    /// ([`Config::observer`]) tells others for 5 s, for which it must not be dropped. Whether the
    /// node was known, and expected until now.
    pub fn forget(&self, node: &str) -> bool {
        self.0.shared.forget(node)
    }

    /// The nodes that are ready and have all of these tags, for a balancer: their addresses, each
    /// with its `capacity` as its weight. A node is ready that serves, has
    /// not failed and does not drain.
    ///
    /// No node is removed while this node hears none: then it is its own gossip that is cut,
    /// and its connections may live. The balancer sends no calls to endpoints that it cannot
    /// reach. Once others are heard again, nodes that are still silent are removed.
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
    /// When `name`, `value` or all tags together are more than [`Config::tags`] may be; then
    /// nothing has changed.
    pub fn set_tag(&self, name: &str, value: &str) -> Result<(), Invalid> {
        named("tag", name)?;
        let mut tags = self.0.shared.tags();
        let mut changed = tags.clone();
        changed.insert(name.to_owned(), value.to_owned());
        tagged(&changed)?;
        *tags = changed;
        self.0.shared.say(&node::tag_key(name), value);
        Ok(())
    }

    /// Does not say this of the node any more.
    pub fn remove_tag(&self, name: &str) {
        let mut tags = self.0.shared.tags();
        tags.remove(name);
        self.0.shared.store().remove(&node::tag_key(name));
    }

    /// Leaves, so that no call is lost: says `draining=true`, serves for `drain`, by when others
    /// have heard it and sent their last calls, then says that it has left, and ends gossip after
    /// five heartbeats. Others expect it no more. 1 s is enough to be heard on a LAN.
    pub async fn leave(&self, drain: Duration) {
        let shared = &self.0.shared;
        shared.tags().insert("draining".into(), "true".into());
        shared.say(&node::tag_key("draining"), "true");
        sleep(drain).await;
        shared.say(node::LEFT, "1");
        self.0.ticking.abort();
        self.quorum().set(Permission::refused("this node has left the cluster".into()));
        sleep(shared.config.heartbeat.saturating_mul(5)).await;
        self.0.end();
    }

    /// How many datagrams came to the gossip port that are no gossip.
    pub fn garbage(&self) -> u64 {
        self.0.shared.ignored.garbage()
    }

    /// How many messages came from other clusters, or were sent to one and refused there.
    pub fn strangers(&self) -> u64 {
        self.0.shared.ignored.strangers()
    }

    /// How many datagrams were sealed with none of [`Config::secrets`], and how many claims were
    /// ignored since they cannot be, such as a heartbeat of the far future.
    pub fn forged(&self) -> u64 {
        self.0.shared.ignored.forged()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    pub(crate) fn quorum(&self) -> Quorum {
        self.0.shared.quorum.clone()
    }

    /// Finds it for as long as somebody else has it.
    pub(crate) fn weak(&self) -> impl Fn() -> Option<Self> + Send + Sync + use<> + 'static {
        let joined = Arc::downgrade(&self.0);
        move || joined.upgrade().map(Self)
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
        self.gossiping.abort();
        self.looking.abort();
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.end();
    }
}
