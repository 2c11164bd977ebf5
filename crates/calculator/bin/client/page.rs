//! The client's dashboard: the state of its layers.

use calculator::{
    client::Layers,
    endpoints::Endpoints,
    watch::{calls::Calls, client::Client, story::follow},
};
use cinchona::{
    balance::Balance,
    dashboard::{Dashboard, Feed},
    observe::Metrics,
};
use std::{
    future::pending,
    io,
    net::{SocketAddr, ToSocketAddrs},
};
use tokio::net::TcpListener;
use tonic::Status;

/// What is on the page.
pub(crate) struct Page {
    client: Client,
    calls: Calls,
    metrics: Metrics,
}

impl Page {
    pub(crate) fn new(layers: &Layers, endpoints: Balance, watched: Endpoints) -> Self {
        let (calls, metrics) = (Calls::new(), layers.metrics.clone());
        Self { client: Client::new(layers, endpoints, calls.clone(), watched), calls, metrics }
    }

    /// Serves the dashboard until the program ends; the callers note each call in the result.
    pub(crate) async fn serve(self, address: SocketAddr) -> Result<Calls, Status> {
        let refused = |error: io::Error| {
            Status::failed_precondition(format!("--dashboard {address}: {error}"))
        };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        eprintln!("dashboard on http://{}", listener.local_addr().map_err(refused)?);
        let (feed, client) = (Feed::new(), self.client.clone());
        follow(feed.clone(), move || client.conditions());
        let page = Dashboard::new()
            .tiles(move || self.client.tiles())
            .events(feed)
            .metrics(move || self.metrics.render());
        tokio::spawn(page.serve(listener, pending()));
        Ok(self.calls)
    }
}

/// The first address of that name.
pub(crate) fn resolve(address: &str) -> Result<SocketAddr, String> {
    let mut found = address.to_socket_addrs().map_err(|error| error.to_string())?;
    found.next().ok_or_else(|| "the host has no address".to_owned())
}
