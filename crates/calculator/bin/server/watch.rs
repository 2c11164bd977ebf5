//! The server's page: what its layers are doing, and a console for its faults.

use calculator::{methods, server::Layers};
use cinchona::{
    cluster::{Cluster, State},
    core::{BoxError, Invalid},
    dashboard::{Console, Dashboard, FaultRule, Feed, Health, Tile},
    fault::{Counters, Rule, Rules},
    idempotency::{DedupLayer, Store},
    observe::Metrics,
    shed::ShedLayer,
};
use clap::Args;
use std::{
    io::{self, Write},
    net::SocketAddr,
};
use tokio::net::TcpListener;

use crate::resolve;

/// Whether there is a page, and where.
#[derive(Debug, Args)]
#[command(next_help_heading = "What can be seen of it")]
pub(crate) struct Page {
    /// Serve a page of what the server is doing, with a console for its faults, and Prometheus
    /// metrics (/metrics), at this address; faults are changed from this machine only, or by
    /// --fault-token.
    #[arg(long, value_name = "HOST:PORT", value_parser = resolve)]
    dashboard: Option<SocketAddr>,
}

/// What the page is made of.
#[derive(Clone)]
struct Seen<S> {
    shed: ShedLayer,
    dedup: DedupLayer<S>,
    faults: Counters,
    cluster: Option<Cluster>,
}

/// The rules as the page changes them.
struct FaultConsole(Rules);

impl Page {
    /// Whether the faults of the server are to be changed on the page.
    pub(crate) const fn is_wanted(&self) -> bool {
        self.dashboard.is_some()
    }

    /// Serves the page, if there is to be one, until the program ends.
    pub(crate) async fn serve<S: Store>(
        &self,
        layers: &Layers<S>,
        cluster: Option<&Cluster>,
    ) -> Result<(), BoxError> {
        let Some(address) = self.dashboard else { return Ok(()) };
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|error| format!("--dashboard {address}: {error}"))?;
        let seen = Seen {
            shed: layers.shed.clone(),
            dedup: layers.dedup.clone(),
            faults: layers.faults.counters(),
            cluster: cluster.cloned(),
        };
        let (metrics, feed) = (seen.metrics()?, Feed::new());
        if let Some(cluster) = cluster {
            let (mut events, feed) = (cluster.events(), feed.clone());
            tokio::spawn(async move {
                while let Some(event) = events.next().await {
                    feed.push(format!("{event:?}"));
                }
            });
        }
        let mut page = Dashboard::new()
            .tiles(move || seen.tiles())
            .events(feed)
            .metrics(move || metrics.render());
        if let Some((rules, token)) = &layers.rules {
            page = page.faults(FaultConsole(rules.clone()));
            if let Some(token) = token {
                page = page.with_token(token.clone());
            }
        }
        writeln!(io::stdout(), "dashboard on {}", listener.local_addr()?)?;
        tokio::spawn(page.serve(listener, std::future::pending()));
        Ok(())
    }
}

// === impl Seen ===

impl<S: Store> Seen<S> {
    fn tiles(&self) -> Vec<Tile> {
        let (limit, shed) = (self.shed.limit(), self.shed.shed());
        let in_progress = f64::from(self.shed.in_progress());
        let mut tiles = vec![Tile {
            health: if self.shed.waiting() > 0 { Health::Warn } else { Health::Good },
            numbers: vec![
                ("waiting".into(), f64::from(self.shed.waiting()), ""),
                ("turned away".into(), shed as f64, ""),
            ],
            spark: in_progress,
            spark_of: "in progress".into(),
            gauge: (limit < u32::MAX).then(|| in_progress / f64::from(limit)),
            ..Tile::new("limit", "requests")
        }];
        let dedup = self.dedup.snapshot();
        let all = (dedup.executed + dedup.replayed).max(1);
        tiles.push(Tile {
            numbers: vec![
                ("executed".into(), dedup.executed as f64, ""),
                ("replayed".into(), dedup.replayed as f64, ""),
                ("hit rate".into(), 100.0 * dedup.replayed as f64 / all as f64, "%"),
            ],
            ..Tile::new("dedup", "calls with a key")
        });
        let faults = self.faults.snapshot();
        let injected = faults.injected() as f64;
        tiles.push(Tile {
            health: if injected > 0.0 { Health::Warn } else { Health::Good },
            numbers: vec![
                ("requests".into(), faults.matched as f64, ""),
                ("injected".into(), injected, ""),
            ],
            ..Tile::new("faults", "injected")
        });
        tiles.extend(self.cluster.iter().flat_map(nodes));
        tiles
    }

    fn metrics(&self) -> Result<Metrics, Invalid> {
        let metrics = Metrics::new(methods());
        let (shed, away) = (self.shed.clone(), self.shed.clone());
        metrics.gauge("cinchona.shed.in_progress", &[], move || shed.in_progress().into())?;
        metrics.counter("cinchona.shed.turned_away", &[], move || away.shed() as f64)?;
        let dedup = self.dedup.clone();
        metrics
            .counter("cinchona.dedup.replayed", &[], move || dedup.snapshot().replayed as f64)?;
        let faults = self.faults.clone();
        metrics.counters("cinchona.fault.injected", move |samples| {
            for (kind, count) in faults.snapshot().kinds() {
                samples.add(&[("kind", kind)], count as f64);
            }
        })?;
        if let Some(cluster) = self.cluster.clone() {
            metrics.gauges("cinchona.cluster.phi", move |samples| {
                for node in cluster.nodes() {
                    samples.add(&[("node", node.id.as_str())], node.phi);
                }
            })?;
        }
        Ok(metrics)
    }
}

/// A tile for each node.
fn nodes(cluster: &Cluster) -> Vec<Tile> {
    let tile = |node: cinchona::cluster::Node| Tile {
        state: format!("{:?}", node.state).to_lowercase(),
        health: match node.state {
            State::Alive if node.reachable => Health::Good,
            State::Alive | State::Suspected => Health::Warn,
            State::Failed | State::Left => Health::Bad,
        },
        spark: node.phi,
        spark_of: "phi".into(),
        ..Tile::new("node", node.id)
    };
    cluster.nodes().into_iter().map(tile).collect()
}

// === impl FaultConsole ===

impl Console for FaultConsole {
    fn list(&self) -> Vec<FaultRule> {
        let rule = |listed: cinchona::fault::Listed| FaultRule {
            id: listed.id,
            rule: listed.rule.to_string(),
            matched: listed.matched,
            injected: listed.injected,
            age: listed.age,
        };
        self.0.list().into_iter().map(rule).collect()
    }

    fn set(&self, id: &str, rule: &str) -> Result<(), String> {
        let rule: Rule =
            rule.parse().map_err(|error: cinchona::fault::Malformed| error.to_string())?;
        self.0.set(id, rule).map_err(|invalid| invalid.to_string())
    }

    fn remove(&self, id: &str) -> Result<(), String> {
        self.0.remove(id).then_some(()).ok_or_else(|| format!("there is no rule {id}"))
    }

    fn clear(&self) -> Result<(), String> {
        self.0.clear();
        Ok(())
    }

    fn switch(&self) -> Option<&cinchona::core::Switch> {
        Some(self.0.switch())
    }
}
