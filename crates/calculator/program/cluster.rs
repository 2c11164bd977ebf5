//! The server as a node of a cluster.

use crate::{
    cluster::{own_ip, secrets, tag},
    options::resolve,
};
use cinchona::{
    cluster::{Cluster, Config},
    core::BoxError,
    shed::ShedLayer,
};
use clap::{ArgGroup, Args};
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};
use tokio::time::sleep;

/// The cluster that the server joins, and its name there.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of a node in a cluster")]
#[command(group = ArgGroup::new("member").args(["join", "gossip"]).multiple(true))]
pub(crate) struct Membership {
    /// Join a cluster through the gossip addresses of some of its nodes.
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',')]
    join: Vec<String>,

    /// The UDP address that receives gossip. Gossip is never encrypted, and authenticated only with
    /// --gossip-secret-file, so use it in a private network. Without --join, this node starts a
    /// cluster [default: any port, with --join].
    #[arg(long, value_name = "HOST:PORT", value_parser = resolve)]
    gossip: Option<SocketAddr>,

    /// A file of the secrets that all nodes share, one per line: the node seals gossip with the
    /// first, and drops gossip that is sealed with none of them.
    #[arg(long, value_name = "FILE", requires = "member")]
    gossip_secret_file: Option<PathBuf>,

    /// The node's name: unique in the cluster and the same after a restart, such as the name of a
    /// pod [default: the address that it listens on].
    #[arg(long, value_name = "ID")]
    node_id: Option<String>,

    /// The name of the cluster; the node ignores nodes of other clusters.
    #[arg(long, value_name = "ID", default_value = "calculator")]
    cluster_id: String,

    /// The node's tags, by which clients select nodes; capacity is a weight.
    #[arg(long, value_name = "NAME=VALUE,...", value_delimiter = ',', value_parser = tag)]
    #[arg(default_value = "role=worker")]
    tags: Vec<(String, String)>,

    /// The number of nodes that found the cluster: the servers refuse writes until more than half
    /// of them hear each other.
    #[arg(long, value_name = "N", default_value_t = 1)]
    expect: usize,

    /// The largest number of running nodes, by whatever names: servers accept writes where more
    /// than half of this number hear each other. For pods, which restart under other names.
    #[arg(long, value_name = "N", conflicts_with = "expect", requires = "member")]
    expected: Option<usize>,
}

/// How long a node that leaves goes on serving: long enough for the others to hear of it.
const DRAIN: Duration = Duration::from_secs(1);

impl Membership {
    /// Joins as the node that serves at `serves`, if the options name a cluster.
    pub(crate) async fn join(&self, serves: SocketAddr) -> Result<Option<Cluster>, BoxError> {
        let Self { join, gossip, cluster_id, tags, expect, expected, .. } = self;
        let gossip = match (gossip, join.first()) {
            (Some(gossip), _) => *gossip,
            (None, Some(_)) => SocketAddr::new(self.own_ip()?, 0),
            (None, None) => return Ok(None),
        };
        let mut config = Config::new(cluster_id, self.id(serves), gossip);
        let host = if serves.ip().is_unspecified() { gossip.ip() } else { serves.ip() };
        config.address = Some(format!("http://{}", SocketAddr::new(host, serves.port())).parse()?);
        config.tags = tags.iter().cloned().collect();
        config.expect = *expect;
        config.expected = expected.map(Into::into);
        if let Some(file) = &self.gossip_secret_file {
            config.secrets =
                secrets(file).map_err(|error| format!("--gossip-secret-file {error}"))?;
        }
        let seeds: Vec<&str> = join.iter().map(String::as_str).collect();
        Cluster::join(config, &seeds).await.map(Some)
    }

    /// The address of this machine from which a seed is reached: any, as some may not be there yet.
    fn own_ip(&self) -> Result<IpAddr, BoxError> {
        let mut refused = Vec::new();
        for seed in &self.join {
            match own_ip(seed) {
                Ok(address) => return Ok(address),
                Err(error) => refused.push(format!("--join {seed}: {error}")),
            }
        }
        Err(format!("{}; with --gossip it waits for them", refused.join("; ")).into())
    }

    /// The name of the node that serves at `serves`.
    pub(crate) fn id(&self, serves: SocketAddr) -> String {
        self.node_id.clone().unwrap_or_else(|| serves.to_string())
    }
}

/// Leaves, so that no call is lost.
pub(crate) async fn leave(cluster: &Cluster) {
    cluster.leave(DRAIN).await;
}

/// Publishes the number of calls in progress when it changes; never ends.
pub(crate) async fn publish_load(cluster: Cluster, shed: ShedLayer) {
    let mut published = None;
    loop {
        let load = shed.counters().in_progress;
        if published.replace(load) != Some(load) {
            _ = cluster.set_tag("load", &load.to_string());
        }
        sleep(Duration::from_secs(1)).await;
    }
}
