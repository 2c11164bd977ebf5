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
    deadline::ServerDeadlineLayer,
    drain::Drain,
    fault::{FaultLayer, Rules},
    idempotency::{DedupLayer, Guarantee, Store},
    observe::{Metrics, ServerLayer},
    shed::{RateLimitLayer, ShedLayer, StatusLimitLayer},
};
use cinchona_plumbing::Seldom;
use http::HeaderValue;
use prost::Message;
use std::{any::Any, future::Future, io, net::SocketAddr, sync::LazyLock, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::Instant,
};
use tokio_stream::Stream;
use tonic::{
    Status,
    body::Body,
    service::Routes,
    transport::server::{Connected, Server},
};
use tonic_reflection::server::{
    self as reflection,
    v1::{ServerReflection, ServerReflectionServer},
};
use tower::util::option_layer;
use tower_http::{
    catch_panic::{CatchPanicLayer, ResponseForPanic},
    set_header::SetResponseHeaderLayer,
};

/// Makes a response of a panic's payload.
#[derive(Clone, Copy, Debug)]
pub struct Panicked;

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

static PANICKED: LazyLock<Seldom> =
    LazyLock::new(|| Seldom::new(|more| tracing::error!(more, "the service panicked")));

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
    let Layers { rest, metrics, drain, store, rules, .. } = layers;
    let Layers { quota, shed, degraded, faults, dedup, quorum, .. } = layers;
    let faults = rules.iter().fold(faults, |faults, (rules, _)| faults.with_rules(rules.clone()));
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
        .layer(ServerLayer::new(&metrics))
        // A status that does not fit would cost its connection, with all other calls.
        .layer(StatusLimitLayer::new())
        // Nothing outlives the server.
        .layer(drain.layer())
        // A panic answers INTERNAL; without this it resets the stream and says nothing.
        .layer(catching_panics())
        // Before all that costs something: who is over its quota is told so, and no other pays.
        .layer(quota)
        // What is more than the server can do must not slow down the rest.
        .layer(shed)
        // Drops the work that nobody waits for any more, and tells the handler how long it has.
        .layer(ServerDeadlineLayer::new())
        // A caller can tell a full answer from what there is in bad times.
        .layer(SetResponseHeaderLayer::if_not_present(DEGRADED, degraded))
        // What is injected looks as if the service had done it.
        .layer(faults)
        // What fails above it after the service has answered is answered again. Whatever asks who
        // may call stands above: an answer that is given again does not reach the service.
        .layer(dedup)
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

/// Answers `INTERNAL` where the service below panics.
pub fn catching_panics() -> CatchPanicLayer<Panicked> {
    CatchPanicLayer::custom(Panicked)
}

impl ResponseForPanic for Panicked {
    type ResponseBody = Body;

    fn response_for_panic(&mut self, panic: Box<dyn Any + Send>) -> http::Response<Body> {
        let said = panic.downcast_ref::<&str>().copied();
        let said = said.or_else(|| panic.downcast_ref().map(String::as_str));
        if PANICKED.is_due(Instant::now()) {
            tracing::error!(panic = said, "the service panicked");
        }
        Status::internal("the service panicked").into_http()
    }
}
