//! The handle of a node that has joined.

use crate::{
    Config, Datagrams, Events, Health, Node, Status,
    config::{named, tagged},
    gossip,
    lookup::{self, LookUp},
    quorum::Quorum,
    seeds::Seeds,
    shared::{self, Shared},
};
use cinchona_core::{BoxError, Invalid, Target};
use cinchona_policy::cluster::{LEFT, Permission, tag_key};
use std::{fmt, future::Future, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::UdpSocket,
    sync::watch,
    task::AbortHandle,
    time::{Instant, sleep},
};

/// A node that has joined a cluster. It gossips until the last clone of this handle is dropped.
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
    /// node hears no other node, it asks all seeds and looks their names up each second; otherwise
    /// it asks one seed each second, and looks names up each 60 s. A node without seeds founds a
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

    /// [`join`](Self::join) over other datagrams, such as those of an in-memory network in a test
    /// in virtual time. They are received where `datagrams` is bound, not at [`Config::listen`].
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

    /// `config` must be checked.
    pub(crate) fn over(
        mut config: Config,
        seeds: Seeds,
        has_seeds: bool,
        datagrams: impl Datagrams,
        look_up: LookUp,
    ) -> Result<Self, BoxError> {
        // Half of the id distinguishes the lives of a node, and goes into each datagram.
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

    /// The address at which this node receives gossip, to be given to others as a seed.
    pub fn gossip_address(&self) -> SocketAddr {
        self.0.address
    }

    /// Subscribes to the events from now on.
    pub fn events(&self) -> Events {
        Events::of(&self.0.shared.events)
    }

    /// All known nodes, this one included, ordered by id; observers are not listed.
    pub fn nodes(&self) -> Vec<Node> {
        self.0.shared.nodes(Instant::now())
    }

    /// The state of the cluster as this node sees it.
    pub fn status(&self) -> Status {
        self.0.shared.view().status()
    }

    /// How many members are reachable, this node included, and how many are expected.
    pub fn reachable(&self) -> (usize, usize) {
        self.0.shared.view().quorum()
    }

    /// Why this node refuses writes; `None` if it accepts them.
    pub fn refusal(&self) -> Option<String> {
        self.quorum().refusal(Instant::now()).map(|reason| reason.into_owned())
    }

    /// How many nodes are in which condition.
    pub fn health(&self) -> Health {
        Health::of(&self.nodes(), self.status())
    }

    /// The phi of another node: how certain it is that the node is gone, see [`Phi`](crate::Phi).
    /// `None` for an unknown node.
    pub fn phi(&self, node: &str) -> Option<f64> {
        self.0.shared.view().phi(node, Instant::now())
    }

    /// The intervals between the last heartbeats of another node, oldest first. Until enough were
    /// received, the first two are derived from `first_estimate`.
    pub fn heartbeat_history(&self, node: &str) -> Option<Vec<Duration>> {
        self.0.shared.view().history(node)
    }

    /// Reports that a call to this node was not delivered, or that its connection was lost. After
    /// three such reports in a row, within 5 s of each other, the node is convicted as soon as it
    /// is suspected.
    pub fn report_failure(&self, node: &str) {
        self.0.shared.view().report(node, true, Instant::now());
    }

    /// Reports that a call to this node was answered; this resets the count of failures.
    pub fn report_success(&self, node: &str) {
        self.0.shared.view().report(node, false, Instant::now());
    }

    /// Removes this node from the expected members: an operator's decision about a node that will
    /// not come back. The decision spreads by gossip, and the node can join again only after a
    /// restart. An observer ([`Config::observer`]) passes the decision on for 5 s, during which it
    /// must not be dropped. Returns whether the node was known and expected.
    pub fn forget(&self, node: &str) -> bool {
        self.0.shared.forget(node)
    }

    /// The ready nodes that have all of these tags, for a balancer: their addresses, with
    /// `capacity` as the weight. A node is ready if it serves, has not failed and does not drain.
    ///
    /// While this node hears no other node, it removes none: its own gossip may be cut while its
    /// connections work, and the balancer avoids endpoints that it cannot reach. When it hears
    /// others again, it removes the nodes that are still silent.
    pub fn workers(&self, tags: &[(&str, &str)]) -> watch::Receiver<Vec<Target>> {
        let tags = tags.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        self.0.shared.watchers.add(tags, &self.nodes())
    }

    /// Runs `resync` before writes are accepted, at the start and after each minority: it fetches
    /// the writes that were missed. While it runs, writes are refused; when it fails, it is tried
    /// again after 1 s.
    pub fn on_quorum<F, R>(&self, resync: F)
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.0.shared.set_on_quorum(Box::new(move || Box::pin(resync())));
    }

    /// Sets a tag of this node.
    ///
    /// # Errors
    /// When `name`, `value` or all tags together exceed the limits of [`Config::tags`]; nothing is
    /// changed then.
    pub fn set_tag(&self, name: &str, value: &str) -> Result<(), Invalid> {
        named("tag", name)?;
        let mut tags = self.0.shared.tags();
        let mut changed = tags.clone();
        changed.insert(name.to_owned(), value.to_owned());
        tagged(&changed)?;
        *tags = changed;
        self.0.shared.say(&tag_key(name), value);
        Ok(())
    }

    /// Removes a tag of this node.
    pub fn remove_tag(&self, name: &str) {
        let mut tags = self.0.shared.tags();
        tags.remove(name);
        self.0.shared.store().remove(&tag_key(name));
    }

    /// Leaves without losing a call: sets `draining=true`, serves for `drain`, during which the
    /// others receive this and send their last calls, then announces that it has left, and stops
    /// gossip after five heartbeats. The others remove it from the expected members. 1 s is enough
    /// on a LAN.
    pub async fn leave(&self, drain: Duration) {
        let shared = &self.0.shared;
        shared.tags().insert("draining".into(), "true".into());
        shared.say(&tag_key("draining"), "true");
        sleep(drain).await;
        shared.say(LEFT, "1");
        self.0.ticking.abort();
        self.quorum().set(Permission::refused("this node has left the cluster".into()));
        sleep(shared.config.heartbeat.saturating_mul(5)).await;
        self.0.end();
    }

    /// How many datagrams received at the gossip port were not gossip.
    pub fn garbage(&self) -> u64 {
        self.0.shared.ignored.garbage()
    }

    /// How many messages came from other clusters, or were sent to another cluster and refused.
    pub fn strangers(&self) -> u64 {
        self.0.shared.ignored.strangers()
    }

    /// How many datagrams carried a seal of none of [`Config::secrets`], and how many impossible
    /// claims were ignored, such as a heartbeat of the far future.
    pub fn forged(&self) -> u64 {
        self.0.shared.ignored.forged()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    pub(crate) fn quorum(&self) -> Quorum {
        self.0.shared.quorum.clone()
    }

    /// Returns `Some` for as long as another handle exists.
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
