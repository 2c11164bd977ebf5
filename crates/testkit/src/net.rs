//! The in-memory network, its controls, and the server on it.

use crate::wire::{Connection, Shared, Side, State, Wire};
use bytes::Bytes;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::sleep,
};
use tokio_stream::Stream;
use tonic::{
    body::Body,
    codegen::StdError,
    transport::{Channel, Endpoint},
};
use tower::{Service, ServiceExt};

/// An in-memory network with one server; clones share it.
///
/// It starts without latency, hold or listener: until [`incoming`](Self::incoming) or
/// [`serve_service`](Self::serve_service) is called, connections are refused.
#[derive(Clone, Debug, Default)]
pub struct Network {
    shared: Arc<Shared>,
}

/// The connections that reach the server: for `serve_with_incoming`.
///
/// Dropping it stops the listener; accepted connections remain.
#[derive(Debug)]
pub struct Incoming {
    accepted: mpsc::UnboundedReceiver<Connection>,
}

/// Connects to the network's server, whatever the URI: for `connect_with_connector_lazy`.
#[derive(Clone, Debug)]
pub struct Connector {
    net: Network,
}

/// A running server; dropping it ends the server and closes its connections.
#[derive(Debug)]
#[must_use = "dropping it ends the server"]
pub struct Serving {
    accepting: AbortHandle,
}

/// Practically never, and can be added to an instant.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

// === impl Network ===

impl Network {
    /// A network without latency, and without a server yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts to listen, replacing an earlier listener.
    pub fn incoming(&self) -> Incoming {
        let (listener, accepted) = mpsc::unbounded_channel();
        let before = self.shared.lock().listener.replace(listener);
        drop(before);
        Incoming { accepted }
    }

    /// A connector to the server, for `Endpoint::connect_with_connector_lazy`.
    pub fn connector(&self) -> Connector {
        Connector { net: self.clone() }
    }

    /// A lazy tonic channel to the server, with tonic's defaults.
    pub fn channel(&self) -> Channel {
        Endpoint::from_static("http://in.memory").connect_with_connector_lazy(self.connector())
    }

    /// Opens a connection: one round trip, then bytes.
    ///
    /// # Errors
    ///
    /// `ConnectionRefused` when there is no listener or the network [refuses](Self::refuse).
    pub async fn connect(&self) -> io::Result<Connection> {
        let (id, round_trip) = {
            let mut state = self.shared.lock();
            state.connects += 1;
            (state.connects, state.latency * 2)
        };
        if round_trip > Duration::ZERO {
            sleep(round_trip).await;
        }
        self.shared.open().await;
        self.accept(id)
    }

    /// Serves `service` over HTTP/2 to every connection, without any layer.
    ///
    /// Unlike tonic's own server it handles neither `grpc-timeout` nor panics: a service that
    /// panics resets its stream.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn serve_service<S, B>(&self, service: S) -> Serving
    where
        S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + 'static,
        S::Error: Into<StdError>,
        S::Future: Send,
        B: http_body::Body<Data = Bytes, Error: Into<StdError>> + Send + 'static,
    {
        let accepting = tokio::spawn(accept(self.incoming(), service));
        Serving { accepting: accepting.abort_handle() }
    }

    /// Sets the one-way latency from now on; a connect takes twice that. Zero at first; more than
    /// ten years are ten.
    ///
    /// Bytes in transit keep the latency with which they were sent, and none overtakes another.
    pub fn set_latency(&self, one_way: Duration) {
        self.shared.lock().latency = one_way.min(FOR_EVER);
    }

    /// Stops bytes and connects both ways, until [`release`](Self::release). Nothing is lost.
    pub fn hold(&self) {
        self.turn(|state| state.held = true);
    }

    /// Releases what [`hold`](Self::hold) stopped.
    pub fn release(&self) {
        self.turn(|state| state.held = false);
    }

    /// Fails every live connection with `ConnectionReset` on both ends, immediately, even while
    /// held.
    pub fn reset(&self) {
        self.turn(|state| state.wires.values_mut().for_each(Wire::reset));
    }

    /// Silently drops all bytes of the live connections, both ways, permanently: like a peer that
    /// has vanished. New connections work.
    pub fn freeze(&self) {
        self.turn(|state| state.wires.values_mut().for_each(Wire::freeze));
    }

    /// Whether new connections fail with `ConnectionRefused`, after their round trip.
    pub fn refuse(&self, refusing: bool) {
        self.turn(|state| state.refusing = refusing);
    }

    /// Whether new connects wait without an answer. When it ends, those still waiting go on.
    pub fn blackhole(&self, blackholed: bool) {
        self.turn(|state| state.blackholed = blackholed);
    }

    /// How many connects were begun.
    pub fn connects(&self) -> u64 {
        self.shared.lock().connects
    }

    /// How many connections are open at both ends.
    pub fn live(&self) -> usize {
        self.shared.lock().wires.values().filter(|wire| wire.is_live()).count()
    }

    fn accept(&self, id: u64) -> io::Result<Connection> {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let listener = {
            let mut state = self.shared.lock();
            let listener = state.listener.clone().filter(|_| !state.refusing);
            let listener = listener.ok_or_else(refused)?;
            state.wires.insert(id, Wire::default());
            listener
        };
        // Outside the lock, as dropping either end takes it.
        let [client, server] = [Side::Client, Side::Server]
            .map(|side| Connection::new(Arc::clone(&self.shared), id, side));
        listener.send(server).map_err(|_| refused())?;
        Ok(client)
    }

    fn turn(&self, knob: impl FnOnce(&mut State)) {
        let readers: Vec<_> = {
            let mut state = self.shared.lock();
            knob(&mut state);
            state.wires.values_mut().flat_map(Wire::readers).collect()
        };
        readers.into_iter().for_each(Waker::wake);
        self.shared.turned.notify_waiters();
    }
}

/// Serves connections until stopped; ending it ends the connections.
async fn accept<S, B>(mut incoming: Incoming, service: S)
where
    S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + 'static,
    S::Error: Into<StdError>,
    S::Future: Send,
    B: http_body::Body<Data = Bytes, Error: Into<StdError>> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(connection) = incoming.accepted.recv() => {
                let service = service.clone();
                let service = hyper::service::service_fn(move |request: http::Request<_>| {
                    service.clone().oneshot(request.map(Body::new))
                });
                // A wall clock's date would make two runs differ.
                let http = http2::Builder::new(TokioExecutor::new())
                    .timer(TokioTimer::new())
                    .auto_date_header(false)
                    .serve_connection(TokioIo::new(connection), service);
                connections.spawn(async { drop(http.await) });
            }
            Some(_) = connections.join_next() => {}
            else => return,
        }
    }
}

// === impl Incoming ===

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.accepted.poll_recv(cx).map(|connection| connection.map(Ok))
    }
}

// === impl Connector ===

impl Service<http::Uri> for Connector {
    type Response = TokioIo<Connection>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: http::Uri) -> Self::Future {
        let net = self.net.clone();
        Box::pin(async move { net.connect().await.map(TokioIo::new) })
    }
}

// === impl Serving ===

impl Drop for Serving {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;
    use tokio::time::{Instant, timeout};
    use tonic::{Code, Status, transport::Server};
    use tonic_health::{
        ServingStatus,
        pb::{HealthCheckRequest, health_client::HealthClient},
        server::health_reporter,
    };

    const LATENCY: Duration = Duration::from_millis(10);
    const MINUTE: Duration = Duration::from_secs(60);

    /// A real tonic server that answers health checks.
    async fn serve(net: &Network) {
        let (reporter, health) = health_reporter();
        reporter.set_service_status("", ServingStatus::Serving).await;
        tokio::spawn(Server::builder().add_service(health).serve_with_incoming(net.incoming()));
    }

    async fn check(channel: &Channel) -> Result<i32, Status> {
        let mut client = HealthClient::new(channel.clone());
        let response = client.check(HealthCheckRequest::default()).await?;
        Ok(response.into_inner().status)
    }

    fn io_kind(status: &Status) -> Option<io::ErrorKind> {
        let mut source = status.source();
        while let Some(err) = source {
            if let Some(err) = err.downcast_ref::<io::Error>() {
                return Some(err.kind());
            }
            source = err.source();
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn a_warm_unary_call_takes_exactly_one_round_trip() {
        let net = Network::new();
        net.set_latency(LATENCY);
        serve(&net).await;
        let channel = net.channel();
        let cold = Instant::now();
        assert_eq!(check(&channel).await.unwrap(), ServingStatus::Serving as i32);
        let warm = Instant::now();
        assert_eq!(check(&channel).await.unwrap(), ServingStatus::Serving as i32);
        assert_eq!(warm - cold, 4 * LATENCY, "a round trip to connect, one to call");
        assert_eq!(Instant::now() - warm, 2 * LATENCY);
        assert_eq!((net.connects(), net.live()), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_latency_without_an_end_lets_nothing_arrive() {
        let net = Network::new();
        net.set_latency(Duration::MAX);
        serve(&net).await;
        assert!(timeout(MINUTE, check(&net.channel())).await.is_err());
        net.set_latency(Duration::ZERO);
        let channel = net.channel();
        check(&channel).await.unwrap();
        net.set_latency(Duration::MAX);
        assert!(timeout(MINUTE, check(&channel)).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_held_call_is_answered_after_the_release() {
        let net = Network::new();
        serve(&net).await;
        let channel = net.channel();
        check(&channel).await.unwrap();
        net.hold();
        let mut call = Box::pin(check(&channel));
        assert!(timeout(MINUTE, &mut call).await.is_err(), "nothing flows while held");
        net.release();
        assert_eq!(call.await.unwrap(), ServingStatus::Serving as i32);
        assert_eq!(net.connects(), 1, "the connection outlives the hold");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reset_fails_the_call_in_flight_and_not_the_next() {
        let net = Network::new();
        serve(&net).await;
        let channel = net.channel();
        check(&channel).await.unwrap();
        net.set_latency(LATENCY);
        let (failed, ()) = tokio::join!(timeout(MINUTE, check(&channel)), async {
            sleep(LATENCY / 2).await;
            net.reset();
        });
        assert_eq!(io_kind(&failed.unwrap().unwrap_err()), Some(io::ErrorKind::ConnectionReset));
        check(&channel).await.unwrap();
        assert_eq!((net.connects(), net.live()), (2, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_connect_is_in_the_sources_of_the_calls_error() {
        let net = Network::new();
        serve(&net).await;
        net.refuse(true);
        let refused = check(&net.channel()).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        assert_eq!(io_kind(&refused), Some(io::ErrorKind::ConnectionRefused));
        net.refuse(false);
        check(&net.channel()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_without_a_listener_refuses() {
        let net = Network::new();
        let unheard = net.connect().await.unwrap_err();
        drop(net.incoming());
        let stopped = net.connect().await.unwrap_err();
        assert_eq!(unheard.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(stopped.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!((net.connects(), net.live()), (2, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_blackholed_connect_waits_until_the_blackhole_ends() {
        let net = Network::new();
        serve(&net).await;
        net.blackhole(true);
        let channel = net.channel();
        let mut call = Box::pin(check(&channel));
        assert!(timeout(60 * MINUTE, &mut call).await.is_err());
        assert_eq!((net.connects(), net.live()), (1, 0));
        net.blackhole(false);
        assert_eq!(call.await.unwrap(), ServingStatus::Serving as i32);
    }

    #[tokio::test(start_paused = true)]
    async fn keep_alive_finds_a_held_connection_dead_on_the_dot() {
        let net = Network::new();
        serve(&net).await;
        let channel = Endpoint::from_static("http://in.memory")
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(1))
            .connect_with_connector_lazy(net.connector());
        check(&channel).await.unwrap();
        net.hold();
        let begun = Instant::now();
        assert_eq!(check(&channel).await.unwrap_err().code(), Code::Unavailable);
        assert_eq!(Instant::now() - begun, Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_channel_closes_its_connection_and_leaves_nothing_behind() {
        let net = Network::new();
        serve(&net).await;
        let channel = net.channel();
        check(&channel).await.unwrap();
        drop(channel);
        sleep(MINUTE).await;
        assert_eq!(net.live(), 0);
        assert!(net.shared.lock().wires.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn tonics_routes_are_served_too() {
        let net = Network::new();
        let (reporter, health) = health_reporter();
        reporter.set_service_status("", ServingStatus::Serving).await;
        let _serving = net.serve_service(tonic::service::Routes::new(health).prepare());
        assert_eq!(check(&net.channel()).await.unwrap(), ServingStatus::Serving as i32);
    }
}
