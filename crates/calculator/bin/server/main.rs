//! `calculator-server`: the calculator behind its server stack.

mod cluster;
mod ending;
mod faults;
mod resolve;
mod watch;

use calculator::{
    logs::{Logs, Told},
    methods,
    server::{Layers, dedup, health, listen, serve},
    state::State,
};
use cinchona::{
    cluster::QuorumGuardLayer,
    core::{BoxError, Invalid, Mode, Secret, Switch},
    fault::{FaultIo, FaultLayer},
    idempotency::{MemoryStore, Store},
    redb::{Options, RedbStore},
    redis::RedisStore,
    shed::{Limit, RateLimitLayer, ShedLayer},
};
use cinchona_plumbing::Trust;
use clap::{CommandFactory, Parser, ValueEnum, error::ErrorKind};
use cluster::Membership;
use ending::Ending;
use faults::Injected;
use http::HeaderValue;
use humantime::parse_duration;
use resolve::resolve;
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

/// Serves a gRPC calculator, and injects faults into it when asked to.
///
/// Beside the calculator it serves grpc.health.v1.Health and server reflection, which are never
/// made to fail. Whoever reaches an address of it may call what is served there, without TLS; by
/// default all are of loopback. SIGTERM and Ctrl-C end it once the calls that have begun are done,
/// after --grace at the latest. The log goes to stderr; RUST_LOG sets its level.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Where to listen; port 0 takes any free one. The address is printed to stdout.
    #[arg(long, default_value = "127.0.0.1:50051")]
    #[arg(value_name = "HOST:PORT", value_parser = resolve)]
    addr: SocketAddr,

    /// How the server is: normal, degraded (it says so with each answer), or failure (it answers
    /// nothing but UNAVAILABLE).
    #[arg(long, value_enum, default_value = "normal")]
    mode: Condition,

    /// How many requests are in progress at once: a number, adaptive (as many as it can do), or
    /// none for no limit. What is more waits for up to 100 ms, and is then turned away.
    #[arg(long, value_name = "LIMIT", default_value = "none")]
    limit: AtOnce,

    /// How many requests each caller, by its address, may make in a second [default: no quota]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    quota: Option<u32>,

    /// Where the counter and the values are kept, and the answers by which repeated calls are
    /// recognised: memory, redb:PATH (a file), redis:URL (shared by servers), or none (in memory,
    /// and no repeated call is recognised).
    #[arg(long, default_value = "memory")]
    store: Secret,

    /// How many answers are kept, in memory or in a file. Redis has limits of its own.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    cache_size: u32,

    /// How long they are kept.
    #[arg(long, value_name = "TIME", default_value = "300s", value_parser = parse_duration)]
    cache_ttl: Duration,

    /// How long a call may be executed; if its server crashes, others wait for so long.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    lease: Duration,

    /// Answer the same calls as JSON over HTTP/1.1 and HTTP/2 too, at the same address: POST
    /// /v1/add {"a": 10, "b": 5}.
    #[arg(long)]
    rest: bool,

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

/// Where state and answers are kept.
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

fn main() -> ExitCode {
    ending::run(program())
}

async fn program() -> ExitCode {
    let args = Args::parse();
    let refuse = |why: &dyn fmt::Display| -> ! {
        Args::command().error(ErrorKind::ValueValidation, why).exit()
    };
    let usage = |invalid: Invalid| -> ! { refuse(&invalid) };
    let place = args.store.expose().parse();
    let place = place.unwrap_or_else(|why: &str| refuse(&format!("--store {why}")));
    let told = args.logs.begin("calculator-server").unwrap_or_else(|invalid| usage(invalid));
    let faults = args.injected.layer(args.mode == Condition::Failure);
    let faults = faults.unwrap_or_else(|invalid| usage(invalid));
    let code = match run(place, &args, &told, faults).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    };
    ending::unless_signalled(told.flush()).await;
    code
}

/// Serves with the store that is asked for.
async fn run(place: Place, args: &Args, told: &Told, faults: FaultLayer) -> Result<(), BoxError> {
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
            serve_over((store, health), args, told, faults, Mode::Enforce).await
        }
        Place::Redis(url) => {
            let store = RedisStore::new(url.expose());
            let store = store.map_err(|error| format!("--store: {error}"))?.with_ttl(ttl)?;
            serve_over((store, None), args, told, faults, Mode::Enforce).await
        }
        place => {
            let mode = if matches!(place, Place::None) { Mode::Off } else { Mode::Enforce };
            let store = MemoryStore::new().with_ttl(ttl)?;
            let store = store.with_caps(args.cache_size as usize, 256 << 20)?;
            serve_over((store, None), args, told, faults, mode).await
        }
    }
}

type Serving = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

async fn serve_over<S: Store + State>(
    (store, health): (S, Option<Receiver<bool>>),
    args: &Args,
    told: &Told,
    faults: FaultLayer,
    mode: Mode,
) -> Result<(), BoxError> {
    let dedup = dedup(store.clone()).with_switch(Switch::new(mode)).with_lease(args.lease)?;
    let counters = faults.counters();
    let mut layers = as_asked(args, Layers::new(faults, dedup.clone()))?;
    layers.store = health;
    let incoming = listen(args.addr)?;
    let addr = incoming.local_addr()?;
    writeln!(io::stdout(), "listening on {addr}")?;
    say_what_is_open(addr, &layers);
    let rules = layers.rules.clone().unwrap_or_default().0;
    let cluster = args.membership.join(addr).await?;
    if let Some(cluster) = &cluster {
        let gossip = cluster.gossip_address();
        writeln!(io::stdout(), "gossip on {gossip}")?;
        tracing::info!(address = %gossip, joined_by = "whoever reaches it", "gossiping by UDP");
        layers.quorum = Some(QuorumGuardLayer::new(cluster, methods()));
        tokio::spawn(cluster::tell_load(cluster.clone(), layers.shed.clone()));
    }
    layers.register(cluster.as_ref())?;
    told.send(&layers.metrics)?;
    let node = cluster.as_ref().map(|cluster| (args.membership.id(addr), cluster));
    args.page.serve(&layers, node).await?;

    let (drain, (stop, stopped)) = (layers.drain.clone(), oneshot::channel());
    let stopped = async { _ = stopped.await };
    let serving: Serving = if layers.rules.is_some() {
        // What a layer cannot do to a connection, this does.
        let incoming = incoming.map(|io| io.map(FaultIo::new));
        Box::pin(serve(incoming, store, layers, stopped))
    } else {
        Box::pin(serve(incoming, store, layers, stopped))
    };
    tokio::select! {
        served = serving => served?,
        () = ending::follow(drain, cluster.as_ref(), stop) => {}
        () = args.injected.follow(&rules) => {}
    }
    tracing::info!(faults = ?counters.snapshot(), dedup = ?dedup.snapshot(), "stopped");
    Ok(())
}

/// The layers as the options say.
fn as_asked<S: Store + State>(args: &Args, mut layers: Layers<S>) -> Result<Layers<S>, BoxError> {
    if args.mode == Condition::Degraded {
        layers.degraded = Some(HeaderValue::from_static("service"));
    }
    if let Some(quota) = args.quota {
        layers.quota = RateLimitLayer::new(quota, quota)?;
    }
    layers.rest = args.rest;
    layers.drain = args.ending.drain();
    let rules = args.injected.rules()?;
    layers.fault_control = args.injected.has_control();
    layers.rules = (layers.fault_control || args.page.is_wanted()).then_some(rules);
    // Without a limit it counts what is in progress all the same.
    layers.shed = ShedLayer::new(args.limit.0.unwrap_or(Limit::Fixed(u32::MAX)))?;
    Ok(layers)
}

/// Says what is served at that address, and to whom.
fn say_what_is_open<S>(address: SocketAddr, layers: &Layers<S>) {
    let rest = if layers.rest { "the same calls as JSON" } else { "nothing" };
    let trust =
        layers.rules.as_ref().map(|(_, token)| Trust::new(token.as_ref().map(Secret::expose)));
    let trust = trust.filter(|_| layers.fault_control).as_ref().map(Trust::to_string);
    tracing::info!(
        %address,
        grpc = "calculator, store, health and reflection for whoever reaches it",
        rest,
        fault_control = trust.as_deref().unwrap_or("nobody: not served"),
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
