//! Where the store keeps its data, and how the current server is found.

use crate::{
    connect::connected,
    place::{self, Place},
    question::probe,
    scripts::Source,
    sentinels::{Named, Sentinels, named},
    tls::Certificates,
};
use cinchona_core::Invalid;
use redis::{
    ConnectionAddr, ConnectionInfo, ErrorKind, RedisError, RedisResult, ServerErrorKind,
    aio::MultiplexedConnection,
};
use std::fmt;

/// Where Redis is: one server, a cluster, or the server that sentinels name.
///
/// ```
/// use cinchona_redis::Servers;
///
/// # fn main() -> Result<(), cinchona_core::Invalid> {
/// let one = Servers::one("redis://:hunter2@db.example:6379/0")?;
/// let cluster = Servers::cluster(&["redis://node1.example", "redis://node2.example"])?;
/// let sentinels = ["redis://s1.example:26379", "redis://s2.example", "redis://s3.example"];
/// let named = Servers::sentinel("redis://:hunter2@payments/0", &sentinels)?;
/// # drop((one, cluster, named));
/// # Ok(())
/// # }
/// ```
///
/// Its `Debug` output contains no part of a URL.
#[derive(Clone)]
pub struct Servers {
    pub(crate) route: Route,
    /// The server; nodes of the cluster; or the sentinels.
    pub(crate) known: Vec<ConnectionInfo>,
    pub(crate) place: Place,
    pub(crate) certificates: Certificates,
}

#[derive(Clone)]
pub(crate) enum Route {
    One,
    Cluster,
    /// The name of a service, and how its servers are reached.
    Sentinel {
        service: String,
        server: Box<ConnectionInfo>,
    },
}

/// Redirected from node to node of a cluster, until one has the slot.
const REDIRECTS: usize = 4;

const SENTINEL_PORT: u16 = 26379;

// === impl Servers ===

impl Servers {
    /// The Redis at `url`: `redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]` (default port 6379, default
    /// database 0), `rediss://` for TLS, or `unix:///PATH[?db=DB&user=USER&pass=PASSWORD]`.
    /// `valkey` is an alias of `redis`; special characters in a URL are percent-encoded.
    ///
    /// # Errors
    /// When `url` is invalid; [`Invalid`] names the wrong part, and does not repeat it.
    pub fn one(url: &str) -> Result<Self, Invalid> {
        let (info, place) = place::parse(url)?;
        Ok(Self::new(Route::One, vec![info], place))
    }

    /// The Redis Cluster with the nodes at `urls`, all or some: one that is up suffices to find the
    /// others.
    ///
    /// All keys of a store have its prefix as their hash tag, so they are in one slot, and a change
    /// of several of them is one script: of the cluster a store uses one primary, and its replicas
    /// after a failover. Stores with several prefixes spread over several.
    ///
    /// The store's [domain](cinchona_idempotency::Store::domain) is made from `urls`, in any order
    /// and spelling: give all servers the same, or set their domain with
    /// `DedupSettings::with_domain`.
    ///
    /// # Errors
    /// When `urls` is empty, one is invalid, or has a database other than 0, the only one of a
    /// cluster.
    pub fn cluster(urls: &[&str]) -> Result<Self, Invalid> {
        let (known, places) = all(urls, None)?;
        if known.iter().any(|info| info.redis_settings().db() != 0) {
            return Err(Invalid::new("urls", "a database other than 0", "the database 0"));
        }
        Ok(Self::new(Route::Cluster, known, Place::of_many("cluster", "", places, 0)))
    }

    /// The server that the sentinels at `sentinels` (default port 26379) currently name. They are
    /// asked again each second: a primary that more than half of them have replaced is left, though
    /// it may still acknowledge what will be lost. The host in `url` is the name of the service, as
    /// in the sentinels' configuration; the rest of it is how its servers are reached. The
    /// sentinels' URLs have their own passwords, if any.
    ///
    /// The store's [domain](cinchona_idempotency::Store::domain) is made from the name and
    /// `sentinels`, in any order and spelling: give all servers the same, or set their domain with
    /// `DedupSettings::with_domain`.
    ///
    /// # Errors
    /// When there is no sentinel, one URL is invalid, or `url` has no host.
    pub fn sentinel(url: &str, sentinels: &[&str]) -> Result<Self, Invalid> {
        let (server, _) = place::parse(url)?;
        let (ConnectionAddr::Tcp(service, _) | ConnectionAddr::TcpTls { host: service, .. }) =
            server.addr()
        else {
            return Err(place::refused("a path"));
        };
        let service = service.clone();
        let (known, places) = all(sentinels, Some(SENTINEL_PORT))?;
        let database = server.redis_settings().db();
        let place = Place::of_many("sentinel", &service, places, database);
        let server = Box::new(server);
        Ok(Self::new(Route::Sentinel { service, server }, known, place))
    }

    fn new(route: Route, known: Vec<ConnectionInfo>, place: Place) -> Self {
        Self { route, known, place, certificates: Certificates::default() }
    }

    /// A connection to the server that has `key`, if it accepts changes, and what sentinels call
    /// it. All known ones are asked for it in order, from `turn` on.
    pub(crate) async fn connect(
        &self,
        turn: usize,
        by: &Source,
        key: &[u8],
    ) -> RedisResult<(MultiplexedConnection, Option<Named>)> {
        let (before, from) = self.known.split_at(turn % self.known.len());
        let mut failed = None;
        for asked in from.iter().chain(before) {
            let connected = match &self.route {
                Route::One => usable(asked, by, key).await.map(|connection| (connection, None)),
                Route::Cluster => {
                    owner(asked.clone(), by, key).await.map(|connection| (connection, None))
                }
                Route::Sentinel { service, server } => match named(asked, service).await {
                    Ok(named) => {
                        let usable = usable(&at(server, &named.0, named.1), by, key).await;
                        usable.map(|connection| (connection, Some(named)))
                    }
                    Err(error) => Err(error),
                },
            };
            match connected {
                Ok(connected) => return Ok(connected),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| (ErrorKind::EmptySentinelList, "no server to ask").into()))
    }

    /// The sentinels; none without a service that they name.
    pub(crate) fn sentinels(&self) -> Sentinels<'_> {
        match &self.route {
            Route::Sentinel { service, .. } => Sentinels::new(service, &self.known),
            Route::One | Route::Cluster => Sentinels::new("", &[]),
        }
    }

    /// A connection to the node of a cluster with this name.
    pub(crate) async fn node(&self, node: &str) -> RedisResult<MultiplexedConnection> {
        let without = (ErrorKind::ClusterConnectionNotFound, "a node without an address");
        let info = at_node(&self.known[0], node).ok_or_else(|| RedisError::from(without))?;
        connected(&info).await
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let route = match self.route {
            Route::One => "one",
            Route::Cluster => "cluster",
            Route::Sentinel { .. } => "sentinel",
        };
        f.debug_struct("Servers")
            .field("route", &route)
            .field("certificates", &self.certificates)
            .finish_non_exhaustive()
    }
}

fn all(urls: &[&str], port: Option<u16>) -> Result<(Vec<ConnectionInfo>, Vec<Place>), Invalid> {
    if urls.is_empty() {
        return Err(Invalid::new("urls", "none", "at least 1"));
    }
    let parsed: Result<Vec<_>, _> = urls.iter().map(|url| place::parse_with(url, port)).collect();
    Ok(parsed?.into_iter().unzip())
}

async fn usable(
    info: &ConnectionInfo,
    by: &Source,
    key: &[u8],
) -> RedisResult<MultiplexedConnection> {
    let mut connection = connected(info).await?;
    probe(&mut connection, by, key).await?;
    Ok(connection)
}

/// The node of a cluster that has `key`, according to the others.
async fn owner(
    mut info: ConnectionInfo,
    by: &Source,
    key: &[u8],
) -> RedisResult<MultiplexedConnection> {
    for _ in 0..REDIRECTS {
        match usable(&info, by, key).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::Moved) => {
                let there = error.redirect_node().and_then(|(node, _)| at_node(&info, node));
                info = there.ok_or(error)?;
            }
            ended => return ended,
        }
    }
    Err(RedisError::from((ErrorKind::ClusterConnectionNotFound, "each node names another")))
}

/// As `info`, but at the node with this name.
fn at_node(info: &ConnectionInfo, node: &str) -> Option<ConnectionInfo> {
    let (host, port) = node.rsplit_once(':')?;
    Some(at(info, host, port.parse().ok()?))
}

/// As `info`, but at that address. An empty host means the same host.
fn at(info: &ConnectionInfo, host: &str, port: u16) -> ConnectionInfo {
    let there = |own: &str| if host.is_empty() { own.to_owned() } else { host.to_owned() };
    let addr = match info.addr().clone() {
        ConnectionAddr::TcpTls { host, insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host: there(&host), port, insecure, tls_params }
        }
        ConnectionAddr::Tcp(own, _) => ConnectionAddr::Tcp(there(&own), port),
        _ => ConnectionAddr::Tcp(there("localhost"), port),
    };
    info.clone().set_addr(addr)
}
