//! What servers and clients in a cluster have in common.

use crate::client::Layers;
use cinchona::{
    balance::{self, Balance},
    cluster::{Cluster, Config},
    core::{BoxError, Invalid, Secret, Target},
};
use http::Uri;
use std::{
    collections::HashMap,
    fmt::Display,
    fs, io,
    net::{IpAddr, ToSocketAddrs, UdpSocket},
    path::Path,
    time::Duration,
};
use tokio::time::sleep;

/// Joins as an observer, through the gossip address of a node. The secrets are those of the nodes;
/// none if they have none.
///
/// # Errors
/// When the seed is no address, no port is free, or a secret has fewer than 16 bytes.
pub async fn observe(
    cluster_id: &str,
    seed: &str,
    secrets: Vec<Secret>,
) -> Result<Cluster, BoxError> {
    let gossip = (own_ip(seed)?, 0).into();
    let id = format!("client-{}", uuid::Uuid::new_v4());
    let config = Config { observer: true, secrets, ..Config::new(cluster_id, id, gossip) };
    Cluster::join(config, &[seed]).await
}

/// The secrets of a file, one per line; blank lines are skipped. The first seals what is sent, and
/// what any of them has sealed is accepted.
///
/// # Errors
/// When the file cannot be read, or no line has a secret.
pub fn secrets(file: &Path) -> Result<Vec<Secret>, BoxError> {
    let refused = |why: &dyn Display| format!("{}: {why}", file.display());
    let text = fs::read_to_string(file).map_err(|error| refused(&error))?;
    // A blank line is no secret.
    let secrets: Vec<Secret> =
        text.lines().filter_map(|line| Secret::new(line.trim()).ok()).collect();
    if secrets.is_empty() {
        return Err(refused(&"the file has no secret").into());
    }
    Ok(secrets)
}

/// A channel over the nodes of this role, which reports the outcomes of its calls to the cluster.
///
/// # Errors
/// When an option is outside its range.
pub fn endpoints(
    cluster: &Cluster,
    role: &str,
    layers: &Layers,
    options: balance::Options,
) -> Result<Balance, Invalid> {
    let workers = cluster.workers(&[("role", role)]);
    let reported = cluster.clone();
    let layers =
        layers.clone().with_gate(move |server: &Target, gate| reported.gate(server, Some(gate)));
    let balance = layers.balance(workers, options)?;
    tokio::spawn(watch_connections(cluster.clone(), balance.watcher()));
    Ok(balance)
}

/// Reports failed connections to the cluster, as long as the balancer exists.
async fn watch_connections(cluster: Cluster, states: impl Fn() -> Option<Vec<balance::Snapshot>>) {
    loop {
        sleep(Duration::from_millis(200)).await;
        let Some(states) = states() else { return };
        let ids = ids(&cluster);
        for server in states {
            if server.state == balance::State::TransientFailure
                && let Some(id) = ids.get(&server.target.uri)
            {
                cluster.report_failure(id);
            }
        }
    }
}

fn ids(cluster: &Cluster) -> HashMap<Uri, String> {
    let nodes = cluster.nodes().into_iter();
    nodes.filter_map(|node| Some((node.address?, node.id))).collect()
}

/// The address of this machine from which `seed` is reached.
///
/// # Errors
/// When `seed` is no address, or the system has no route to it.
pub fn own_ip(seed: &str) -> io::Result<IpAddr> {
    let addr = seed.to_socket_addrs()?.next();
    let addr = addr.ok_or_else(|| io::Error::other(format!("{seed}: the host has no address")))?;
    let any: IpAddr = if addr.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
    let socket = UdpSocket::bind((any, 0))?;
    // A UDP socket sends nothing when it connects; the system only looks the route up.
    socket.connect(addr)?;
    Ok(socket.local_addr()?.ip())
}

/// Reads `NAME=VALUE`.
///
/// # Errors
/// When there is no `=`.
pub fn tag(said: &str) -> Result<(String, String), String> {
    let tag = said.split_once('=').ok_or_else(|| format!("{said:?} is not NAME=VALUE"))?;
    Ok((tag.0.to_owned(), tag.1.to_owned()))
}
