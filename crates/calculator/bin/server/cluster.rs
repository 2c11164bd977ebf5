//! The server as a node of a cluster.

use crate::resolve::resolve;
use calculator::cluster::{own_ip, secrets, tag};
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

/// Which cluster it joins, and as whom.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of a node in a cluster")]
#[command(group = ArgGroup::new("member").args(["join", "gossip"]).multiple(true))]
pub(crate) struct Membership {
    /// Join a cluster through the gossip addresses of some of its nodes.
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',')]
    join: Vec<String>,

    /// Where gossip is received, by UDP; it is never encrypted, and authenticated only with
    /// --gossip-secret-file, so it belongs into a private network. Without --join, this node begins
    /// a cluster [default: any port, where --join is given].
    #[arg(long, value_name = "HOST:PORT", value_parser = resolve)]
    gossip: Option<SocketAddr>,

    /// The secrets that all nodes share, one in each line: gossip is sealed with the first, and
    /// dropped where it is sealed with none of them.
    #[arg(long, value_name = "FILE", requires = "member")]
    gossip_secret_file: Option<PathBuf>,

    /// Unique in the cluster, and the same after a restart, such as the name of a pod [default:
    /// where it listens].
    #[arg(long, value_name = "ID")]
    node_id: Option<String>,

    /// Nodes of another cluster are refused.
    #[arg(long, value_name = "ID", default_value = "calculator")]
    cluster_id: String,

    /// What clients select nodes by; capacity is a weight.
    #[arg(long, value_name = "NAME=VALUE,...", value_delimiter = ',', value_parser = tag)]
    #[arg(default_value = "role=worker")]
    tags: Vec<(String, String)>,

    /// How many nodes found the cluster: no writes are taken until more than half of them hear each
    /// other.
    #[arg(long, value_name = "N", default_value_t = 1)]
    expect: usize,

    /// How many nodes run at most, whatever they are called: writes are taken where more than half
    /// of this number hear each other. For pods, which come back under other names.
    #[arg(long, value_name = "N", conflicts_with = "expect", requires = "member")]
    expected: Option<usize>,
}

/// How long a node that leaves goes on serving: by then others have heard it.
const DRAIN: Duration = Duration::from_secs(1);

impl Membership {
    /// Joins, if it is to, as the node that serves at `serves`.
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

    /// What it is called there, as the node that serves at `serves`.
    pub(crate) fn id(&self, serves: SocketAddr) -> String {
        self.node_id.clone().unwrap_or_else(|| serves.to_string())
    }
}

/// Leaves, so that no call is lost.
pub(crate) async fn leave(cluster: &Cluster) {
    cluster.leave(DRAIN).await;
}

/// Says how many calls are in progress, when that changes, for ever.
pub(crate) async fn tell_load(cluster: Cluster, shed: ShedLayer) {
    let mut told = None;
    loop {
        let load = shed.in_progress();
        if told.replace(load) != Some(load) {
            _ = cluster.set_tag("load", &load.to_string());
        }
        sleep(Duration::from_secs(1)).await;
    }
}
