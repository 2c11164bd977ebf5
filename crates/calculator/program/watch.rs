//! The server's dashboard: the state of its layers, and a console for its faults.

use crate::{
    options::resolve,
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

/// Whether there is a dashboard, and where.
#[derive(Debug, Args)]
#[command(next_help_heading = "Dashboard")]
pub(crate) struct Page {
    /// Serve a dashboard of the server, and Prometheus metrics (/metrics), at this address, to any
    /// client that reaches it. The dashboard has a console for faults: without --fault-token only
    /// browsers on this machine may change them, and not through a proxy; with it, any client that
    /// sends the token. It opens nothing at --addr.
    #[arg(long, value_name = "HOST:PORT", value_parser = resolve)]
    dashboard: Option<SocketAddr>,
}

impl Page {
    /// Whether there is to be a dashboard.
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
            let followed = console.clone();
            follow(feed, move || followed.conditions());
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
