//! The connections of the page.

use crate::{Dashboard, dashboard::Served, guard::Peer, http::routes, places::Places};
use axum::{Router, body::Body, extract::ConnectInfo, http::Request};
use cinchona_plumbing::Listener;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
};
use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    select,
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tower_service::Service;

/// The most event streams, in all and from one address.
const WATCHERS: (usize, usize) = (32, 16);

/// The most connections, in all and from one address. A browser opens six.
const CONNECTIONS: (usize, usize) = (256, 64);

/// How long the head of a request may take, and how long a connection may be idle.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest head, in bytes; hyper takes at most 100 headers.
const LONGEST: usize = 32 * 1024;

// === impl Dashboard ===

impl Dashboard {
    /// Serves until `shutdown` completes and the requests in flight are answered, which takes at
    /// most 10 s; streams of events end immediately. Dropping the future closes all connections
    /// immediately.
    ///
    /// # Errors
    /// When the listener has no address; later errors of it are retried.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let address = listener.local_addr()?;
        let changed = self.console().map(|_| tracing::field::display(self.trust()));
        tracing::info!(
            %address,
            read_by = "every client that reaches it",
            faults_changed_by = changed,
            "serving the dashboard"
        );
        let (stop, is_over) = watch::channel(false);
        let watchers = Places::new(WATCHERS);
        let served = Served::new(self, watchers, is_over);
        let stopped = async move {
            shutdown.await;
            stop.send_replace(true);
        };
        serve(Listener::new(listener), routes(served), stopped).await;
        Ok(())
    }
}

/// Serves until `shutdown` completes, and the requests in flight are answered or late.
async fn serve(mut listener: Listener, routes: Router, shutdown: impl Future<Output = ()>) {
    let (places, ending) = (Places::new(CONNECTIONS), GracefulShutdown::new());
    // Dropping it aborts all connections.
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        select! {
            biased;
            () = shutdown.as_mut() => break,
            Some(_) = connections.join_next() => {}
            (stream, peer) = listener.accept() => {
                let (routes, places) = (routes.clone(), places.clone());
                connections.spawn(connection(stream, peer, routes, places, ending.watcher()));
            }
        }
    }
    drop(listener);
    _ = timeout(PATIENCE, ending.shutdown()).await;
}

async fn connection(
    stream: TcpStream,
    remote: SocketAddr,
    routes: Router,
    places: Arc<Places>,
    ending: Watcher,
) {
    let mut place = places.take(remote.ip());
    let (peer, number) = (Peer { local: stream.local_addr().ok(), remote }, place.number());
    let service = service_fn(move |mut request: Request<Incoming>| {
        places.asked(number);
        request.extensions_mut().insert(ConnectInfo(peer));
        routes.clone().call(request.map(Body::new))
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    http.max_buf_size(LONGEST);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    select! {
        // How the connection ended does not matter here.
        _ = ending.watch(connection) => {}
        () = place.displaced() => {}
    }
}
