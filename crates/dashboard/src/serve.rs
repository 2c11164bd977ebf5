//! The connections of the page.

use crate::{guard::Peer, places::Places};
use axum::{Router, body::Body, extract::ConnectInfo, http::Request};
use cinchona_core::Listener;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
};
use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::{net::TcpStream, select, task::JoinSet, time::timeout};
use tower_service::Service;

/// How many connections there are, and how many of one address. A browser has six.
const CONNECTIONS: (usize, usize) = (256, 64);

/// How long the head of a request may take, and how long there may be none.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest head, in bytes; hyper takes 100 headers at most.
const LONGEST: usize = 32 * 1024;

/// Serves until `shutdown` is over, and the requests under way are answered, or late.
pub(crate) async fn serve(
    mut listener: Listener,
    routes: Router,
    shutdown: impl Future<Output = ()>,
) {
    let (places, ending) = (Places::new(CONNECTIONS), GracefulShutdown::new());
    // What is dropped with it ends.
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
        // Its end is the client's affair, whatever it is.
        _ = ending.watch(connection) => {}
        () = place.displaced() => {}
    }
}
