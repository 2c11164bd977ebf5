//! The command line of what calls the calculator: servers, layers and logs.

mod gossip;
mod protect;

use crate::{
    client::{Layers, Settings},
    cluster,
    endpoints::Endpoints,
    logs::Logs,
};
use cinchona::{
    balance::{self, Balance, Picker},
    cluster::Cluster,
    config::ServiceConfig,
    core::{Invalid, Target},
    deadline::AttemptTimeoutLayer,
    retry::{Backoff, Budget, Jitter, RetryPolicy},
};
use cinchona_plumbing::code;
use clap::{Args, Command, error::ErrorKind};
use gossip::Gossip;
use http::Uri;
use humantime::parse_duration;
use protect::{Breaker, Fallback};
use std::{
    fmt::Display,
    fs, iter,
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
    process::ExitCode,
    str::FromStr,
    time::Duration,
};
use tokio::time::timeout;
use tonic::{Code, Request, Status, metadata::AsciiMetadataValue};
use tower::Layer;

/// Which servers are called, and through which layers.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every operation")]
pub struct Options {
    /// The addresses of the servers, separated by commas
    #[arg(long, visible_alias = "addr", global = true, default_value = "127.0.0.1:50051")]
    #[arg(value_name = "HOST:PORT,...", value_delimiter = ',')]
    endpoints: Vec<String>,

    #[command(flatten)]
    gossip: Gossip,

    /// The policy that picks a server: p2c-ewma (by latency and calls in flight), least-request,
    /// random, round-robin, weighted:3,1 (a weight for each server; in a cluster just weighted, by
    /// capacity) or pick-first
    #[arg(long, global = true, default_value = "p2c-ewma")]
    lb: Lb,

    /// When the breaker of a server opens: after an outage:N:TIME, which is N failures without a
    /// success over at least TIME (20:1500ms); after consecutive:N failures; at a rate:RATE of
    /// failures, or slow:TIME:RATE of slow calls, in a window:TIME or window:CALLS. It stays open
    /// for open:TIME at first; per-method makes one breaker for each method; shadow only counts.
    /// Separated by commas, or default [default: no breaker]
    #[arg(long, global = true, value_name = "RULES")]
    breaker: Option<Breaker>,

    /// The second answer of a failed call without side effects: that of another server
    /// (alternate:HOST:PORT), the last answer to the same call (cached, or cached:TIME for the
    /// greatest age), or default:NUMBER; separated by commas
    #[arg(long, global = true, value_name = "ANSWERS")]
    fallback: Option<Fallback>,

    /// The time limit of one attempt, such as 250ms or 2s
    #[arg(long, global = true, default_value = "2s")]
    #[arg(value_name = "TIME", value_parser = parse_duration)]
    timeout: Duration,

    /// The deadline of the call, with its retries and waits [default: unlimited]
    #[arg(long, global = true, value_name = "TIME", value_parser = parse_duration)]
    deadline: Option<Duration>,

    /// The most retries of a call
    #[arg(long, global = true, value_name = "N", default_value_t = 3)]
    max_retries: u32,

    /// The wait before the first retry; it doubles with each one, up to 120s
    #[arg(long, global = true, default_value = "1s")]
    #[arg(value_name = "TIME", value_parser = parse_duration)]
    backoff: Duration,

    /// The most that chance adds to each wait
    #[arg(long, global = true, default_value = "1s")]
    #[arg(value_name = "TIME", value_parser = parse_duration)]
    jitter: Duration,

    /// The status codes that are retried, separated by commas
    #[arg(long, global = true, default_value = "deadline-exceeded")]
    #[arg(value_name = "CODES", value_delimiter = ',', value_parser = parse_code)]
    retry_on: Vec<Code>,

    /// Retry without a budget: retries then grow with failures
    #[arg(long, global = true)]
    no_retry_budget: bool,

    /// Draw the attempts of the call, the waits between them, and the server of each
    #[arg(long, global = true)]
    pub explain: bool,

    /// The idempotency key of the call: the server answers a repetition as it answered the first
    #[arg(long, global = true, value_name = "ID")]
    pub request_id: Option<String>,

    /// A gRPC service config (JSON), in place of --max-retries, --backoff, --jitter, --retry-on and
    /// --lb
    #[arg(long, global = true, value_name = "FILE")]
    service_config: Option<PathBuf>,

    /// The logs, and a collector of spans and metrics.
    #[command(flatten)]
    pub logs: Logs,
}

/// The policy that picks servers, and their weights where it uses them.
#[derive(Clone, Debug)]
struct Lb {
    picker: Picker,
    weights: Vec<u32>,
}

/// Servers that can be called, and the layers of the calls.
#[derive(Clone, Debug)]
pub struct Callable {
    /// The servers.
    pub endpoints: Balance,
    /// The layers.
    pub layers: Layers,
}

/// Why nothing can be called.
#[derive(Debug)]
pub enum Refused {
    /// The command line is wrong.
    Usage(String),
    /// The cluster does not answer.
    Failed(String),
}

// === impl Options ===

impl Options {
    /// The servers and the layers; with `watched`, it sees the attempts at each server.
    ///
    /// # Errors
    /// When an option is wrong, or the cluster does not answer.
    pub async fn connect(&self, watched: Option<&Endpoints>) -> Result<Callable, Refused> {
        let config = service_config(self).map_err(Refused::Usage)?;
        let config = config.as_ref();
        // First, so that the config knows that its part in it acts.
        let balanced = balanced(self, config);
        let layers = layers(self, config).map_err(Refused::Usage)?;
        let layers = match watched {
            Some(watched) => watched.watching(layers),
            None => layers,
        };
        let endpoints = endpoints(self, balanced, &layers).await;
        let endpoints = endpoints.map_err(|error| match self.gossip.cluster {
            // That is no mistake in the command line.
            Some(_) => Refused::Failed(error),
            None => Refused::Usage(error),
        })?;
        Ok(Callable { endpoints, layers })
    }

    /// The cluster, seen by an observer.
    ///
    /// # Errors
    /// When no cluster is named, or it cannot be joined.
    pub async fn observe(&self) -> Result<Cluster, Refused> {
        let Some(seed) = &self.gossip.cluster else {
            return Err(Refused::Usage("this operation needs --cluster".to_owned()));
        };
        self.gossip.observe(seed).await.map_err(Refused::Failed)
    }

    /// A request that carries `--request-id`, if there is one; else the stack gives it a fresh key.
    ///
    /// # Errors
    /// When the id is not printable ASCII.
    pub fn request<T>(&self, message: T) -> Result<Request<T>, Status> {
        let mut request = Request::new(message);
        if let Some(id) = &self.request_id {
            let id: AsciiMetadataValue = id
                .parse()
                .map_err(|_| Status::invalid_argument("--request-id: is not printable ASCII"))?;
            request.metadata_mut().insert("idempotency-key", id);
        }
        Ok(request)
    }
}

// === impl Refused ===

impl Refused {
    /// Says why on standard error. A wrong command line ends the process, with 2.
    pub fn report(&self, mut command: Command) -> ExitCode {
        match self {
            Self::Usage(why) => command.error(ErrorKind::ValueValidation, why).exit(),
            Self::Failed(why) => {
                eprintln!("{why}");
                ExitCode::FAILURE
            }
        }
    }
}

/// The first address of that name.
///
/// # Errors
/// When it has none.
pub fn resolve(address: &str) -> Result<SocketAddr, String> {
    let mut found = address.to_socket_addrs().map_err(|error| error.to_string())?;
    found.next().ok_or_else(|| "the host has no address".to_owned())
}

/// The servers as the options say.
async fn endpoints(
    options: &Options,
    balanced: balance::Options,
    layers: &Layers,
) -> Result<Balance, String> {
    let Options { endpoints, lb, .. } = options;
    if let Some(seed) = &options.gossip.cluster {
        return in_cluster(options, seed, layers, balanced).await;
    }
    if !lb.weights.is_empty() && lb.weights.len() != endpoints.len() {
        let (weights, servers) = (lb.weights.len(), endpoints.len());
        return Err(format!("--lb weighted: {weights} weights for {servers} servers"));
    }
    let weights = lb.weights.iter().copied().chain(iter::repeat(1));
    let target = |(address, weight): (&String, u32)| {
        let uri = uri("--endpoints", address)?;
        Ok(Target::from(uri).with_weight(weight))
    };
    let targets: Vec<Target> =
        endpoints.iter().zip(weights).map(target).collect::<Result<_, String>>()?;
    layers.balance(targets, balanced).map_err(|invalid| invalid.to_string())
}

/// The nodes of the role, when gossip has brought at least one.
async fn in_cluster(
    options: &Options,
    seed: &str,
    layers: &Layers,
    balanced: balance::Options,
) -> Result<Balance, String> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let Gossip { role, .. } = &options.gossip;
    let joined = options.gossip.observe(seed).await?;
    let mut workers = joined.workers(&[("role", role)]);
    let heard = timeout(PATIENCE, workers.wait_for(|workers| !workers.is_empty()));
    if heard.await.is_err() {
        return Err(format!("--cluster {seed}: heard of no node with role={role} in 5 s"));
    }
    cluster::endpoints(&joined, role, layers, balanced).map_err(|invalid| invalid.to_string())
}

fn uri(option: &str, address: &str) -> Result<Uri, String> {
    if address.contains('@') {
        return Err(format!("{option}: an address has no user and no password"));
    }
    let uri = format!("http://{address}").parse();
    uri.map_err(|error| format!("{option} {address}: {error}"))
}

/// What the file says, if there is one.
fn service_config(options: &Options) -> Result<Option<ServiceConfig>, String> {
    let Some(file) = &options.service_config else { return Ok(None) };
    let refused = |error: &dyn Display| format!("--service-config {}: {error}", file.display());
    let json = fs::read_to_string(file).map_err(|error| refused(&error))?;
    ServiceConfig::parse(&json).map(Some).map_err(|errors| refused(&errors))
}

/// How endpoints are picked, as the option says, or the service config where it does.
fn balanced(options: &Options, config: Option<&ServiceConfig>) -> balance::Options {
    let balanced = balance::Options { picker: options.lb.picker, ..balance::Options::default() };
    config.map_or(balanced.clone(), |config| config.balance(balanced))
}

/// The layers as the options say, or the service config where there is one.
fn layers(options: &Options, config: Option<&ServiceConfig>) -> Result<Layers, String> {
    let mut settings = settings(options).map_err(|invalid| invalid.to_string())?;
    if let Some(fallback) = &options.fallback {
        let second = fallback.settings().map_err(|invalid| invalid.to_string())?;
        settings.fallback = match &fallback.alternate {
            None => second,
            Some(address) => {
                let target = vec![Target::from(uri("--fallback alternate", address)?)];
                let alternate = Balance::new(target, balance::Options::default());
                let alternate = alternate.map_err(|invalid| invalid.to_string())?;
                second.with_alternate(AttemptTimeoutLayer::new(options.timeout).layer(alternate))
            }
        };
    }
    let mut layers = settings.layers().map_err(|invalid| invalid.to_string())?;
    if let Some(breaker) = &options.breaker {
        layers.breaker = breaker.layer();
    }
    if let Some(config) = config {
        // What does not act has been logged.
        layers.apply(config).map_err(|invalid| format!("--service-config: {invalid}"))?;
    }
    // Again, as some layers were replaced.
    layers.register().map_err(|invalid| invalid.to_string())?;
    Ok(layers)
}

/// What the layers are set to.
fn settings(options: &Options) -> Result<Settings, Invalid> {
    let backoff = Backoff::new(options.backoff, 2.0, Duration::from_secs(120))?
        .with_jitter(Jitter::Additive(options.jitter));
    let retry = RetryPolicy::default()
        .with_max_retries(options.max_retries)
        .with_backoff(backoff)
        .with_codes(options.retry_on.iter().copied())?;
    let Options { deadline, timeout, explain: explained, .. } = *options;
    let budget = Some(Budget::default()).filter(|_| !options.no_retry_budget);
    let target = target(options);
    Ok(Settings { deadline, timeout, retry, budget, explained, target, ..Settings::default() })
}

/// What the calls are to.
fn target(options: &Options) -> String {
    let seed = options.gossip.cluster.as_ref().map(|seed| format!("cluster:{seed}"));
    seed.unwrap_or_else(|| options.endpoints.join(","))
}

// === impl Lb ===

impl FromStr for Lb {
    type Err = String;

    fn from_str(lb: &str) -> Result<Self, String> {
        let plain = |picker| Ok(Self { picker, weights: Vec::new() });
        match lb.split_once(':') {
            None if lb == "p2c-ewma" => plain(Picker::PeakEwma),
            None if lb == "round-robin" => plain(Picker::RoundRobin),
            None if lb == "random" => plain(Picker::Random),
            None if lb == "least-request" => plain(Picker::LeastRequest),
            None if lb == "weighted" => plain(Picker::WeightedRoundRobin),
            None if lb == "pick-first" => plain(Picker::PickFirst),
            Some(("weighted", weights)) => {
                let weight = |weight: &str| match weight.parse() {
                    Ok(weight) if weight > 0 => Ok(weight),
                    _ => Err(format!("{weight:?} is no weight; weights are at least 1")),
                };
                let weights = weights.split(',').map(weight).collect::<Result<_, _>>()?;
                Ok(Self { picker: Picker::WeightedRoundRobin, weights })
            }
            _ => {
                Err("is p2c-ewma, least-request, random, round-robin, weighted, weighted:N,... or \
                      pick-first"
                    .to_owned())
            }
        }
    }
}

fn parse_code(name: &str) -> Result<Code, String> {
    code::from_name(name).ok_or_else(|| "not a gRPC code".to_owned())
}
