//! The server's stack.

pub mod health;

use crate::{
    DESCRIPTORS,
    around::{Around, AroundLayer},
    incoming::Incoming,
    methods,
    pb::{CounterResult, calculator_server::CalculatorServer, store_server::StoreServer},
    service::{Calculator, Values},
    state::State,
};
use cinchona::{
    cluster::{Cluster, QuorumGuardLayer},
    core::{BoxError, DEGRADED, Invalid, Mode, PerMethod, Secret, Switch},
    drain::Drain,
    fault::{FaultLayer, Rules},
    idempotency::{DedupLayer, DedupSettings, Guarantee, Store},
    observe::Metrics,
    server,
    shed::{RateLimitLayer, RateLimitSettings, ShedLayer, ShedSettings},
};
use http::HeaderValue;
use prost::Message;
use std::{future::Future, io, net::SocketAddr};
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
    /// What stands around all other layers; `None` for gRPC alone.
    pub around: Option<Around>,
    /// The metrics of calls and layers: see [`register`](Self::register).
    pub metrics: Metrics,
    /// The graceful end of the server.
    pub drain: Drain,
    /// Whether its store is well, for its health; `None` for a store that has no part in it.
    pub store: Option<watch::Receiver<bool>>,
    /// The quota of each caller.
    pub quota: RateLimitLayer,
    /// The limit on calls in progress.
    pub shed: ShedLayer,
    /// The value of the `degraded` header of each answer; `None` for no such header.
    pub degraded: Option<HeaderValue>,
    /// Failures and delays.
    pub faults: FaultLayer,
    /// The rules of `faults`, if they can be changed while the server runs, and the token of the
    /// callers that may change them.
    pub rules: Option<(Rules, Option<Secret>)>,
    /// Whether the rules can be listed and changed by gRPC (`cinchona.fault.v1.FaultControl`).
    pub fault_control: bool,
    /// Recognises repeated calls.
    pub dedup: DedupLayer<S>,
    /// Refuses writes where the cluster has no quorum; `None` for a server alone.
    pub quorum: Option<QuorumGuardLayer>,
}

/// The most calls in progress on one connection: as many as a proxy sends for all its clients
/// (Envoy: 1024), and few enough that each may buffer its window.
const MOST_STREAMS: u32 = 1024;

/// Recognises repeated calls by `store`, which is their state as well: so each has its effect
/// exactly once, whatever crashes.
pub fn dedup<S: Store + State>(store: S) -> DedupLayer<S> {
    dedup_settings().layer(store)
}

/// At least once, as the store is the state: what has no record has had no effect.
pub fn dedup_settings() -> DedupSettings {
    let duplicate = CounterResult { was_duplicate: true, ..CounterResult::default() };
    let mut fragments = PerMethod::new();
    let named =
        fragments.insert("calculator.Calculator", "IncrementCounter", duplicate.encode_to_vec());
    debug_assert!(named.is_ok(), "one name is given once");
    DedupSettings::new(methods()).with_guarantee(Guarantee::AtLeastOnce).with_fragments(fragments)
}

impl<S: Store + State> Layers<S> {
    /// These faults, recognised calls, and neither quota nor limit.
    pub fn new(faults: FaultLayer, dedup: DedupLayer<S>) -> Self {
        let off = || Switch::new(Mode::Off);
        let quota = RateLimitSettings::default().with_switch(off()).layer();
        let shed = ShedSettings::default().with_switch(off()).layer();
        let metrics = Metrics::new(methods());
        Self {
            around: None,
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

    /// The layers of the library, in its order.
    fn stack(&self) -> Result<server::Layers<S>, Invalid> {
        let mut stack = server::Settings::new(methods())
            .with_metrics(&self.metrics)
            .with_drain(self.drain.clone())
            .with_store(self.dedup.store().clone())
            .layers()?;
        // These are shared with the dashboard.
        (stack.quota, stack.shed) = (self.quota.clone(), self.shed.clone());
        (stack.faults, stack.dedup) = (self.faults.clone(), self.dedup.clone());
        stack.register()?;
        Ok(stack)
    }

    /// Registers in `metrics` what the layers count, and the server's view of its cluster.
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
    let Layers { around, drain, store, rules, degraded, quorum, .. } = layers;
    let control = rules.filter(|_| layers.fault_control);
    let (health, health_service) = tonic_health::server::health_reporter();
    // Before the first client can ask.
    health::say(&health, store.as_ref().is_none_or(|store| *store.borrow())).await;
    let shutdown = health::until(shutdown, health, store);
    let mut routes = Routes::builder();
    routes.add_service(health_service).add_service(reflection()?);
    if let Some((rules, token)) = control {
        routes.add_service(rules.control(token));
    }
    routes.add_service(CalculatorServer::new(Calculator::new(state.clone())));
    routes.add_service(StoreServer::new(Values::new(state)));
    let serving = bounded()
        // Whatever protocol it may speak, to every other layer each call is one of gRPC.
        .accept_http1(around.is_some())
        .layer(AroundLayer(around))
        // What counts, limits and recognises calls, in the library's order. Authorization stands
        // above it: an answer that is given again does not reach the service.
        .layer(stack)
        // So that a caller can distinguish a full answer from a degraded one.
        .layer(SetResponseHeaderLayer::if_not_present(DEGRADED, degraded))
        // Innermost: a repeated write from before the partition still gets its recorded answer.
        .layer(option_layer(quorum))
        .add_routes(routes.routes())
        .serve_with_incoming_shutdown(drain.incoming(incoming), drain.begun());
    let served = drain.serve(shutdown, serving).await;
    Ok(served.ok_or("handlers block the runtime, and were left")??)
}

/// Settings of HTTP/2, and the limits of one connection.
fn bounded() -> Server {
    Server::builder()
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
