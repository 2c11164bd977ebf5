//! `calculator-server` as a function: its command line, and all that it does until it ends.
//!
//! Another program that has something around the server's stack is this one with an [`Around`].

mod cluster;
mod ending;
mod faults;
mod watch;

use crate::{
    around::Around,
    logs::{Logs, Telemetry},
    methods,
    options::resolve,
    server::{Layers, dedup_settings, health, listen, serve},
    state::State,
};
use cinchona::{
    cluster::QuorumGuardLayer,
    core::{BoxError, Mode, Secret, Switch},
    fault::{FaultIo, FaultSettings, Rules},
    idempotency::{MemoryStore, Store},
    redb::{Options, RedbStore},
    redis::RedisStore,
    shed::{Limit, RateLimitLayer, ShedLayer},
};
use cinchona_plumbing::Trust;
use clap::{Command, ValueEnum, error::ErrorKind};
use cluster::Membership;
use ending::{Ending, Signals};
use faults::Injected;
use http::HeaderValue;
use humantime::parse_duration;
use std::{
    fmt,
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    process::ExitCode,
    str::FromStr,
    time::Duration,
};
use tokio::sync::{oneshot, watch::Receiver};
use tokio_stream::StreamExt;
use watch::Page;

/// The options of the server.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The address to listen on; port 0 takes any free port. The server prints the address to
    /// stdout.
    #[arg(long, default_value = "127.0.0.1:50051")]
    #[arg(value_name = "HOST:PORT", value_parser = resolve)]
    addr: SocketAddr,

    /// The condition of the server: normal, degraded (each answer says so in a header), or failure
    /// (every answer is UNAVAILABLE).
    #[arg(long, value_enum, default_value = "normal")]
    mode: Condition,

    /// The limit on requests in progress: a number, adaptive (found from latencies), or none.
    /// Requests above it wait for at most 100 ms, and are then refused.
    #[arg(long, value_name = "LIMIT", default_value = "none")]
    limit: AtOnce,

    /// The most requests per second of one client address [default: no quota]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    quota: Option<u32>,

    /// The store of the counter, the values, and the answers by which the server recognises
    /// repeated calls: memory, redb:PATH (a file), redis:URL (shared by servers), or none (in
    /// memory, without recognising repeated calls).
    #[arg(long, default_value = "memory")]
    store: Secret,

    /// The most answers that the store keeps, in memory or in a file. Redis has limits of its own.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    cache_size: u32,

    /// How long the store keeps an answer.
    #[arg(long, value_name = "TIME", default_value = "300s", value_parser = parse_duration)]
    cache_ttl: Duration,

    /// The longest execution of one call; after a crash, repetitions of the call wait for so long.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    lease: Duration,

    #[command(flatten)]
    injected: Injected,

    #[command(flatten)]
    membership: Membership,

    #[command(flatten)]
    page: Page,

    #[command(flatten)]
    ending: Ending,

    #[command(flatten)]
    logs: Logs,
}

/// The store of the state and the answers.
#[derive(Clone, Debug)]
enum Place {
    Memory,
    Redb(PathBuf),
    Redis(Secret),
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Condition {
    Normal,
    Degraded,
    Failure,
}

/// The limit on requests in progress, if there is one.
#[derive(Clone, Copy, Debug)]
struct AtOnce(Option<Limit>);

const PLACES: &str = "is memory, redb:PATH, redis:URL or none";

/// Runs the server as `args` say, until it has ended, with `around` outermost in its stack. A wrong
/// command line ends the process, with 2 and the usage of `command`, whose name a collector of its
/// spans and metrics is given as that of the service.
pub fn run(args: &Args, command: Command, around: Option<Around>) -> ExitCode {
    ending::run(program(args, command, around))
}

async fn program(args: &Args, mut command: Command, around: Option<Around>) -> ExitCode {
    let name = command.get_name().to_owned();
    let mut refuse =
        |why: &dyn fmt::Display| -> ! { command.error(ErrorKind::ValueValidation, why).exit() };
    let place = args.store.expose().parse();
    let place = place.unwrap_or_else(|why: &str| refuse(&format!("--store {why}")));
    let telemetry = args.logs.begin(&name).unwrap_or_else(|invalid| refuse(&invalid));
    let faults = args.injected.settings(args.mode == Condition::Failure);
    let faults = faults.unwrap_or_else(|invalid| refuse(&invalid));
    let code = match serve_from(place, args, &telemetry, faults, around).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    };
    ending::unless_signalled(telemetry.flush()).await;
    code
}

/// Serves with the store of the options.
async fn serve_from(
    place: Place,
    args: &Args,
    telemetry: &Telemetry,
    faults: FaultSettings,
    around: Option<Around>,
) -> Result<(), BoxError> {
    let ttl = args.cache_ttl;
    match place {
        Place::Redb(path) => {
            let entries = u64::from(args.cache_size);
            // Every effect is in the store itself, so a claim need not be.
            let options = Options { ttl, entries, durable_claims: false, ..Options::default() };
            let store = RedbStore::open(&path, options);
            let store =
                store.map_err(|error| format!("--store redb:{}: {error}", path.display()))?;
            let health = Some(health::of_store(&store));
            serve_over((store, health), args, telemetry, faults, around, Mode::Enforce).await
        }
        Place::Redis(url) => {
            let store = RedisStore::new(url.expose());
            let store = store.map_err(|error| format!("--store: {error}"))?.with_ttl(ttl)?;
            serve_over((store, None), args, telemetry, faults, around, Mode::Enforce).await
        }
        place => {
            let mode = if matches!(place, Place::None) { Mode::Off } else { Mode::Enforce };
            let store = MemoryStore::new().with_ttl(ttl)?;
            let store = store.with_caps(args.cache_size as usize, 256 << 20)?;
            serve_over((store, None), args, telemetry, faults, around, mode).await
        }
    }
}

type Serving = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

async fn serve_over<S: Store + State>(
    (store, health): (S, Option<Receiver<bool>>),
    args: &Args,
    telemetry: &Telemetry,
    faults: FaultSettings,
    around: Option<Around>,
    mode: Mode,
) -> Result<(), BoxError> {
    let dedup = dedup_settings().with_switch(Switch::new(mode)).with_lease(args.lease)?;
    let dedup = dedup.layer(store.clone());
    let rules = args.injected.rules()?;
    let faults = faults.with_rules(rules.0.clone()).layer();
    let layers = Layers::new(faults.clone(), dedup.clone());
    let mut layers = as_asked(args, layers, rules.clone())?;
    (layers.store, layers.around) = (health, around);
    // Before anybody is told where it serves: a signal from then on ends it in order.
    let signals = Signals::new();
    let incoming = listen(args.addr)?;
    let addr = incoming.local_addr()?;
    writeln!(io::stdout(), "listening on {addr}")?;
    say_what_is_open(addr, &layers);
    let cluster = args.membership.join(addr).await?;
    if let Some(cluster) = &cluster {
        let gossip = cluster.gossip_address();
        writeln!(io::stdout(), "gossip on {gossip}")?;
        tracing::info!(address = %gossip, joined_by = "any node in reach", "gossiping by UDP");
        layers.quorum = Some(QuorumGuardLayer::new(cluster, methods()));
        tokio::spawn(cluster::publish_load(cluster.clone(), layers.shed.clone()));
    }
    layers.register(cluster.as_ref())?;
    telemetry.send(&layers.metrics)?;
    let node = cluster.as_ref().map(|cluster| (args.membership.id(addr), cluster));
    args.page.serve(&layers, node).await?;

    let (drain, (stop, stopped)) = (layers.drain.clone(), oneshot::channel());
    let stopped = async { _ = stopped.await };
    let serving: Serving = if layers.rules.is_some() {
        // Faults of the connection itself, which no layer can inject.
        let incoming = incoming.map(|io| io.map(FaultIo::new));
        Box::pin(serve(incoming, store, layers, stopped))
    } else {
        Box::pin(serve(incoming, store, layers, stopped))
    };
    tokio::select! {
        served = serving => served?,
        () = ending::follow(signals, drain, cluster.as_ref(), stop) => {}
        () = args.injected.follow(&rules.0) => {}
    }
    tracing::info!(faults = ?faults.counters(), dedup = ?dedup.counters(), "stopped");
    Ok(())
}

/// The layers as the options say.
fn as_asked<S: Store + State>(
    args: &Args,
    mut layers: Layers<S>,
    rules: (Rules, Option<Secret>),
) -> Result<Layers<S>, BoxError> {
    if args.mode == Condition::Degraded {
        layers.degraded = Some(HeaderValue::from_static("service"));
    }
    if let Some(quota) = args.quota {
        layers.quota = RateLimitLayer::new(quota, quota)?;
    }
    layers.drain = args.ending.drain();
    layers.fault_control = args.injected.has_control();
    layers.rules = (layers.fault_control || args.page.is_wanted()).then_some(rules);
    // It counts calls in progress without a limit as well.
    layers.shed = ShedLayer::new(args.limit.0.unwrap_or(Limit::Fixed(u32::MAX)))?;
    Ok(layers)
}

/// Logs what is served at the address, and which clients may call it.
fn say_what_is_open<S>(address: SocketAddr, layers: &Layers<S>) {
    let also = layers.around.as_ref().map_or("nothing", Around::opens);
    let trust =
        layers.rules.as_ref().map(|(_, token)| Trust::new(token.as_ref().map(Secret::expose)));
    let trust = trust.filter(|_| layers.fault_control).as_ref().map(Trust::to_string);
    tracing::info!(
        %address,
        grpc = "calculator, store, health and reflection, for any client that reaches it",
        also,
        fault_control = trust.as_deref().unwrap_or("not served"),
        "serving without TLS"
    );
}

// === impl Place ===

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(place: &str) -> Result<Self, Self::Err> {
        let named = match place.split_once(':') {
            None if place == "memory" => Ok(Self::Memory),
            None if place == "none" => Ok(Self::None),
            Some(("redb", path)) if !path.is_empty() => Ok(Self::Redb(path.into())),
            // redis://HOST, or another of its schemes; or redis: and a whole URL.
            Some((_, rest)) if rest.starts_with("//") => Secret::new(place).map(Self::Redis),
            Some(("redis", url)) => Secret::new(url).map(Self::Redis),
            _ => return Err(PLACES),
        };
        named.map_err(|_| PLACES)
    }
}

// === impl AtOnce ===

impl FromStr for AtOnce {
    type Err = &'static str;

    fn from_str(limit: &str) -> Result<Self, Self::Err> {
        match limit {
            "none" => Ok(Self(None)),
            "adaptive" => Ok(Self(Some(Limit::default()))),
            number => match number.parse() {
                Ok(limit) if limit > 0 => Ok(Self(Some(Limit::Fixed(limit)))),
                _ => Err("is adaptive, none, or a number of at least 1"),
            },
        }
    }
}
