//! The cluster that the client looks on.

use calculator::cluster::{look_on, secrets};
use cinchona::{cluster::Cluster, core::Secret};
use clap::Args;
use std::path::PathBuf;

/// Which cluster, and what of it.
#[derive(Debug, Args)]
pub(crate) struct Gossip {
    /// Find the servers by gossip, through the gossip address of one of them, in place of
    /// --endpoints
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub(crate) cluster: Option<String>,

    /// Which nodes of the cluster are called: those with this role
    #[arg(long, global = true, value_name = "ROLE", default_value = "worker")]
    pub(crate) role: String,

    /// Nodes of another cluster are not heard
    #[arg(long, global = true, value_name = "ID", default_value = "calculator")]
    cluster_id: String,

    /// The secrets that the nodes of the cluster share, one in each line
    #[arg(long, global = true, value_name = "FILE")]
    gossip_secret_file: Option<PathBuf>,
}

impl Gossip {
    /// Looks on, through the node whose gossip address is `seed`.
    pub(crate) async fn look_on(&self, seed: &str) -> Result<Cluster, String> {
        let joined = look_on(&self.cluster_id, seed, self.secrets()?).await;
        joined.map_err(|error| format!("--cluster {seed}: {error}"))
    }

    fn secrets(&self) -> Result<Vec<Secret>, String> {
        let Some(file) = &self.gossip_secret_file else { return Ok(Vec::new()) };
        secrets(file).map_err(|error| format!("--gossip-secret-file {error}"))
    }
}
