//! `nodes` lists the nodes of the cluster; `forget` removes one that has crashed for good.

use cinchona::{
    cluster::{Cluster, Node, State},
    core::BoxError,
};
use std::{
    io::{self, Write},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// The longest time that it listens, and how long gossip must have brought nothing new.
const LONGEST: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_millis(1500);

/// How long it gossips the name to forget, so that all nodes receive it.
const SAID: Duration = Duration::from_secs(5);

/// Prints a line for each node; returns whether there was one.
pub(crate) async fn run(cluster: &Cluster) -> Result<bool, BoxError> {
    let nodes = heard(cluster).await;
    let rows: Vec<_> = nodes.iter().map(row).collect();
    let headings = ["node", "address", "state", "phi", "reachable", "load", "tags"];
    let rows = [vec![headings.map(str::to_owned)], rows].concat();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..headings.len()).filter_map(width).collect();
    let mut out = io::stdout().lock();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    let health = cluster.health().to_string();
    // An observer is on no side of a partition.
    let (counts, _) = health.split_once(';').unwrap_or((&health, ""));
    writeln!(out, "\n{counts}")?;
    Ok(!nodes.is_empty())
}

/// Makes the nodes forget `node`; returns whether one of them received that.
pub(crate) async fn forget(cluster: &Cluster, node: &str) -> Result<bool, BoxError> {
    let nodes = heard(cluster).await;
    if nodes.is_empty() {
        return Err("no node of the cluster was heard in 5 s".into());
    }
    if nodes.iter().any(|other| other.id == node && other.state == State::Alive) {
        return Err(format!("{node}: is alive; end it, and it leaves").into());
    }
    if !cluster.forget(node) {
        return Err(format!("{node}: no node that is expected has this id").into());
    }
    sleep(SAID).await;
    writeln!(io::stdout(), "{node}: forgotten")?;
    Ok(true)
}

/// The other nodes, when gossip brings nothing new about them.
async fn heard(cluster: &Cluster) -> Vec<Node> {
    let (began, mut since, mut known) = (Instant::now(), Instant::now(), Vec::new());
    while Instant::now() < began + LONGEST {
        let nodes: Vec<Node> =
            cluster.nodes().into_iter().filter(|node| node.address.is_some()).collect();
        let ids: Vec<_> = nodes.iter().map(|node| (node.id.clone(), node.reachable)).collect();
        if ids != known {
            (since, known) = (Instant::now(), ids);
        } else if !known.is_empty() && Instant::now() > since + QUIET {
            return nodes;
        }
        sleep(Duration::from_millis(100)).await;
    }
    cluster.nodes().into_iter().filter(|node| node.address.is_some()).collect()
}

fn row(node: &Node) -> [String; 7] {
    let Node { id, address, tags, state, phi, reachable, .. } = node;
    let state = match state {
        State::Alive => "alive",
        State::Suspected => "suspected",
        State::Failed => "failed",
        State::Left => "left",
        _ => "unknown",
    };
    let load = tags.get("load").cloned().unwrap_or_default();
    let tags = tags.iter().filter(|(name, _)| *name != "load");
    let tags: Vec<_> = tags.map(|(name, value)| format!("{name}={value}")).collect();
    [
        id.clone(),
        address
            .as_ref()
            .and_then(|uri| uri.authority())
            .map(ToString::to_string)
            .unwrap_or_default(),
        state.to_owned(),
        format!("{phi:.1}"),
        if *reachable { "yes" } else { "no" }.to_owned(),
        load,
        tags.join(","),
    ]
}
