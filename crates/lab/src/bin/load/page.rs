//! The client's dashboard: the state of its layers.

use calculator::{
    endpoints::Endpoints,
    options::Callable,
    watch::{calls::Calls, client::Client, story::follow},
};
use cinchona::{
    core::BoxError,
    dashboard::{Dashboard, Feed},
    observe::Metrics,
};
use std::{future::pending, io, net::SocketAddr};
use tokio::net::TcpListener;

/// What is on the page.
pub(crate) struct Page {
    client: Client,
    calls: Calls,
    metrics: Metrics,
}

impl Page {
    pub(crate) fn new(Callable { endpoints, layers }: &Callable, watched: Endpoints) -> Self {
        let (calls, metrics) = (Calls::new(), layers.metrics.clone());
        let client = Client::new(layers, endpoints.clone(), calls.clone(), watched);
        Self { client, calls, metrics }
    }

    /// Serves the dashboard until the program ends; the callers note each call in the result.
    pub(crate) async fn serve(self, address: SocketAddr) -> Result<Calls, BoxError> {
        let refused = |error: io::Error| format!("--dashboard {address}: {error}");
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
