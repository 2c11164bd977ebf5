//! The cluster in which the client finds its servers.

use crate::cluster::{observe, secrets};
use cinchona::{cluster::Cluster, core::Secret};
use clap::Args;
use std::path::PathBuf;

/// The cluster, and the nodes of it that the client calls.
#[derive(Debug, Args)]
pub(crate) struct Gossip {
    /// Find the servers by gossip, through the gossip address of one of them, in place of
    /// --endpoints
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub(crate) cluster: Option<String>,

    /// Call the nodes of the cluster that have this role
    #[arg(long, global = true, value_name = "ROLE", default_value = "worker")]
    pub(crate) role: String,

    /// The name of the cluster; the client ignores nodes of other clusters
    #[arg(long, global = true, value_name = "ID", default_value = "calculator")]
    cluster_id: String,

    /// A file of the secrets that the nodes of the cluster share, one per line
    #[arg(long, global = true, value_name = "FILE")]
    gossip_secret_file: Option<PathBuf>,
}

impl Gossip {
    /// Joins as an observer, through the gossip address `seed` of a node.
    pub(crate) async fn observe(&self, seed: &str) -> Result<Cluster, String> {
        let joined = observe(&self.cluster_id, seed, self.secrets()?).await;
        joined.map_err(|error| format!("--cluster {seed}: {error}"))
    }

    fn secrets(&self) -> Result<Vec<Secret>, String> {
        let Some(file) = &self.gossip_secret_file else { return Ok(Vec::new()) };
        secrets(file).map_err(|error| format!("--gossip-secret-file {error}"))
    }
}
