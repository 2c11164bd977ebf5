//! The server's stack.

pub mod health;

use crate::{
    DESCRIPTORS,
    incoming::Incoming,
    methods,
    pb::{CounterResult, calculator_server::CalculatorServer, store_server::StoreServer},
    rest::RestLayer,
    service::{Calculator, Values},
    state::State,
};
use cinchona::{
    cluster::{Cluster, QuorumGuardLayer},
    core::{BoxError, DEGRADED, Invalid, Mode, PerMethod, Secret, Switch},
    drain::Drain,
    fault::{FaultLayer, Rules},
    idempotency::{DedupLayer, Guarantee, Store},
    observe::Metrics,
    server,
    shed::{RateLimitLayer, ShedLayer},
};
use http::HeaderValue;
use prost::Message;
use std::{future::Future, io, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};
use tokio_stream::Stream;
use tonic::{
    service::Routes,
    transport::server::{Connected, Server},
};
use tonic_reflection::server::{
    self as reflection,
    v1::{ServerReflection, ServerReflectionServer},
};
use tower::util::option_layer;
use tower_http::set_header::SetResponseHeaderLayer;

/// The layers that a server can be run with.
#[derive(Clone, Debug)]
pub struct Layers<S> {
    /// Whether the same calls can be made as JSON over HTTP.
    pub rest: bool,
    /// What is counted of calls, and of the layers: see [`register`](Self::register).
    pub metrics: Metrics,
    /// How it ends.
    pub drain: Drain,
    /// Whether its store is well, for its health; `None` where that has no part in it.
    pub store: Option<watch::Receiver<bool>>,
    /// What each caller may ask for.
    pub quota: RateLimitLayer,
    /// Turns away what is too much.
    pub shed: ShedLayer,
    /// What the server says of itself where its answers are less than they could be.
    pub degraded: Option<HeaderValue>,
    /// Failures and delays.
    pub faults: FaultLayer,
    /// More of them, that can be changed while the server runs, and the token of those who may.
    pub rules: Option<(Rules, Option<Secret>)>,
    /// Whether they are listed and changed by gRPC (`cinchona.fault.v1.FaultControl`).
    pub fault_control: bool,
    /// Recognises repeated calls.
    pub dedup: DedupLayer<S>,
    /// Refuses writes where the cluster has no quorum; `None` for a server alone.
    pub quorum: Option<QuorumGuardLayer>,
}

/// How many calls a connection has at a time: more than a proxy sends, which stands for many
/// clients (Envoy: 1024), and so few that each may buffer its window.
const MOST_STREAMS: u32 = 1024;

/// Recognises repeated calls by `store`, which is their state as well: so each has its effect
/// exactly once, whatever crashes.
pub fn dedup<S: Store + State>(store: S) -> DedupLayer<S> {
    let duplicate = CounterResult { was_duplicate: true, ..CounterResult::default() };
    let mut fragments = PerMethod::new();
    let named =
        fragments.insert("calculator.Calculator", "IncrementCounter", duplicate.encode_to_vec());
    debug_assert!(named.is_ok(), "one name is given once");
    DedupLayer::new(store, methods())
        .with_guarantee(Guarantee::AtLeastOnce)
        .with_fragments(fragments)
}

impl<S: Store + State> Layers<S> {
    /// These faults, recognised calls, and neither quota nor limit.
    pub fn new(faults: FaultLayer, dedup: DedupLayer<S>) -> Self {
        let off = || Switch::new(Mode::Off);
        let quota = RateLimitLayer::default().with_switch(off());
        let shed = ShedLayer::default().with_switch(off());
        let metrics = Metrics::new(methods());
        Self {
            rest: false,
            metrics,
            drain: Drain::default(),
            store: None,
            quota,
            shed,
            degraded: None,
            faults,
            rules: None,
            fault_control: false,
            dedup,
            quorum: None,
        }
    }

    /// Those of the library, in its order.
    fn stack(&self) -> Result<server::Layers<S>, Invalid> {
        let mut stack = server::Settings::new(methods())
            .with_metrics(&self.metrics)
            .with_drain(self.drain.clone())
            .with_dedup(self.dedup.clone())
            .layers()?;
        // Theirs are watched from elsewhere.
        (stack.quota, stack.shed) = (self.quota.clone(), self.shed.clone());
        (stack.faults, stack.dedup) = (self.faults.clone(), self.dedup.clone());
        if let Some((rules, _)) = &self.rules {
            stack.faults = stack.faults.with_rules(rules.clone());
        }
        stack.register()?;
        Ok(stack)
    }

    /// Shows among `metrics` what they count, and what the server holds of the cluster that it is
    /// in.
    ///
    /// # Errors
    /// When one of the names was registered as something else.
    pub fn register(&self, cluster: Option<&Cluster>) -> Result<(), Invalid> {
        let Self { metrics, drain, quota, shed, faults, dedup, .. } = self;
        metrics.register(drain, &[])?;
        metrics.register(quota, &[])?;
        metrics.register(shed, &[])?;
        metrics.register(faults, &[])?;
        metrics.register(dedup, &[])?;
        cluster.map_or(Ok(()), |cluster| metrics.register(cluster, &[]))
    }
}

/// Serves the calculator, its store, health and reflection on `incoming` until `shutdown`; then
/// the calls that have begun end within the grace of `layers.drain`, and all else with them.
///
/// # Errors
/// When `incoming` fails for good, or handlers that block the runtime outlive the grace.
pub async fn serve<I, IO, S>(
    incoming: I,
    state: S,
    layers: Layers<S>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), BoxError>
where
    I: Stream<Item = io::Result<IO>>,
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    S: Store + State,
{
    let stack = layers.stack()?;
    let Layers { rest, drain, store, rules, degraded, quorum, .. } = layers;
    let control = rules.filter(|_| layers.fault_control);
    let (health, health_service) = tonic_health::server::health_reporter();
    // Before there is anybody to ask.
    health::say(&health, store.as_ref().is_none_or(|store| *store.borrow())).await;
    let shutdown = health::until(shutdown, health, store);
    let mut routes = Routes::builder();
    routes.add_service(health_service).add_service(reflection()?);
    if let Some((rules, token)) = control {
        routes.add_service(rules.control(token));
    }
    routes.add_service(CalculatorServer::new(Calculator::new(state.clone())));
    routes.add_service(StoreServer::new(Values::new(state)));
    let serving = bounded(rest)
        // Around all: what comes as JSON is a gRPC call to every other layer.
        .layer(RestLayer::new(rest))
        // What counts, limits and recognises calls, in the library's order. Whatever asks who may
        // call stands above: an answer that is given again does not reach the service.
        .layer(stack)
        // A caller can tell a full answer from what there is in bad times.
        .layer(SetResponseHeaderLayer::if_not_present(DEGRADED, degraded))
        // Innermost: what was written before the network was cut may still be told.
        .layer(option_layer(quorum))
        .add_routes(routes.routes())
        .serve_with_incoming_shutdown(drain.incoming(incoming), drain.begun());
    let served = drain.serve(shutdown, serving).await;
    Ok(served.ok_or("handlers block the runtime, and were left")??)
}

/// What is of HTTP/2, and what one connection may take of the server.
fn bounded(rest: bool) -> Server {
    Server::builder()
        // A client that has gone silently is noticed, and its calls are dropped.
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        // A stream that a handler does not read leaves room for the others of its connection.
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size((1 << 31) - 1)
        // What one connection may take: calls at a time, of which others wait in the client; the
        // bytes of a request's metadata (all peers' default); calls that it resets before they are
        // accepted (CVE-2023-44487), and those that are reset for its errors.
        .max_concurrent_streams(MOST_STREAMS)
        .http2_max_header_list_size(16 * 1024)
        .http2_max_pending_accept_reset_streams(Some(20))
        .http2_max_local_error_reset_streams(Some(1024))
        .accept_http1(rest)
}

fn reflection() -> Result<ServerReflectionServer<impl ServerReflection>, reflection::Error> {
    reflection::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
}

/// Listens on `addr` with `TCP_NODELAY`, so that no answer waits for an acknowledgement; where the
/// process has no descriptors left, it pauses, warns, and serves on.
///
/// # Errors
/// When the address cannot be bound; the error names it.
pub fn listen(addr: SocketAddr) -> io::Result<Incoming> {
    Incoming::bind(addr)
}
