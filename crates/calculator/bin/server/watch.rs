//! The server's page: what its layers are doing, and a console for its faults.

use calculator::{
    server::Layers,
    watch::{
        map::map,
        server::{FaultConsole, Server},
        story::{follow, follow_cluster},
    },
};
use cinchona::{
    cluster::Cluster,
    core::BoxError,
    dashboard::{Dashboard, Feed},
    idempotency::Store,
};
use clap::Args;
use std::{
    io::{self, Write},
    net::SocketAddr,
};
use tokio::net::TcpListener;

use crate::resolve::resolve;

/// Whether there is a page, and where.
#[derive(Debug, Args)]
#[command(next_help_heading = "What can be seen of it")]
pub(crate) struct Page {
    /// Serve a page of what the server is doing, and Prometheus metrics (/metrics), at this
    /// address, to whoever reaches it; and a console for its faults, which are changed from this
    /// machine only, and not through a proxy, or with --fault-token by whoever says that, from
    /// wherever. It opens nothing at --addr.
    #[arg(long, value_name = "HOST:PORT", value_parser = resolve)]
    dashboard: Option<SocketAddr>,
}

impl Page {
    /// Whether the faults of the server are to be changed on the page.
    pub(crate) const fn is_wanted(&self) -> bool {
        self.dashboard.is_some()
    }

    /// Serves the page, if there is to be one, until the program ends.
    pub(crate) async fn serve<S: Store>(
        &self,
        layers: &Layers<S>,
        node: Option<(String, &Cluster)>,
    ) -> Result<(), BoxError> {
        let Some(address) = self.dashboard else { return Ok(()) };
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|error| format!("--dashboard {address}: {error}"))?;
        let (metrics, feed) = (layers.metrics.clone(), Feed::new());
        let server = Server::new("this server", layers);
        let mut page = Dashboard::new()
            .tiles(move || vec![server.tile()])
            .events(feed.clone())
            .metrics(move || metrics.render());
        if let Some((id, cluster)) = node {
            follow_cluster(feed.clone(), cluster);
            let members = [(id, cluster.clone())];
            page = page.map(move || map(&members));
        }
        if let Some((rules, token)) = &layers.rules {
            let console = FaultConsole::new(vec![("this server".into(), rules.clone())]);
            let told = console.clone();
            follow(feed, move || told.conditions());
            page = page.faults(console);
            if let Some(token) = token {
                page = page.with_token(token.clone());
            }
        }
        writeln!(io::stdout(), "dashboard on {}", listener.local_addr()?)?;
        tokio::spawn(page.serve(listener, std::future::pending()));
        Ok(())
    }
}
