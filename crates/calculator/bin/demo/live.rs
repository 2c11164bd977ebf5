//! The whole story on one page: three servers that find each other, a client that calls them, and
//! faults that come and go.

mod load;
mod server;
mod story;

use calculator::{
    client::{Layers, Settings, Stack, stack},
    cluster::{endpoints, look_on},
    pb::calculator_client::CalculatorClient,
    watch::{
        calls::Calls,
        client::Client,
        map::map,
        server::FaultConsole,
        story::{follow, follow_cluster},
    },
};
use cinchona::{
    balance::{Balance, Options, Picker, State},
    breaker::BreakerPolicy,
    cluster::Cluster,
    core::{BoxError, PerMethod},
    dashboard::{Console, Dashboard, Feed},
    observe::Metrics,
    retry::{Backoff, HedgePolicy, Policy, RetryPolicy},
};
use clap::{Args, value_parser};
use load::Load;
use server::Server;
use std::{
    future::pending,
    io::{self, IsTerminal, Write},
    net::SocketAddr,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpListener,
    runtime,
    time::{Instant, sleep},
};
use tonic::Code;

/// Whether there is a page, and for how long.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "The whole story on one page")]
pub(crate) struct Page {
    /// Run three servers and a client that calls them, and show all of them on a page, until Ctrl-C
    #[arg(long, value_name = "HOST:PORT", num_args = 0..=1)]
    #[arg(default_missing_value = "127.0.0.1:9090")]
    dashboard: Option<SocketAddr>,

    /// End after this long
    #[arg(long, value_name = "N", requires = "dashboard")]
    seconds: Option<u32>,

    /// Inject no faults but those that are set on the page
    #[arg(long, requires = "dashboard")]
    no_story: bool,

    /// Let each step of the story last so many seconds
    #[arg(long, value_name = "N", default_value_t = 18, requires = "dashboard")]
    #[arg(value_parser = value_parser!(u32).range(1..=3600), conflicts_with = "no_story")]
    each: u32,
}

/// All that there is.
struct Site {
    servers: Vec<Arc<Server>>,
    client: Client,
    metrics: Metrics,
    cluster: Cluster,
    console: FaultConsole,
    load: Arc<Load>,
    feed: Feed,
}

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
const CLUSTER: &str = "demo";

impl Page {
    /// Where the page is to be, if there is to be one.
    pub(crate) const fn address(&self) -> Option<SocketAddr> {
        self.dashboard
    }
}

/// Runs until it is ended, which is as it should be.
pub(crate) fn run(args: &Page, address: SocketAddr) -> Result<bool, BoxError> {
    let runtime = runtime::Builder::new_multi_thread().enable_all().build()?;
    let ran = runtime.block_on(show(args, address));
    runtime.shutdown_background();
    ran.map(|()| true)
}

async fn show(args: &Page, address: SocketAddr) -> Result<(), BoxError> {
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|error| format!("--dashboard {address}: {error}"))?;
    let url = format!("http://{}", listener.local_addr()?);
    let site = Site::start().await?;
    tokio::spawn(site.page()?.serve(listener, pending()));
    writeln!(io::stdout(), "dashboard on {url}")?;
    open(&url);
    let ended = async {
        match args.seconds {
            Some(seconds) => sleep(seconds * SECOND).await,
            None => pending().await,
        }
    };
    let told = async {
        match args.no_story {
            true => pending().await,
            false => story::tell(&site, args.each * SECOND).await,
        }
    };
    tokio::select! {
        () = load::run(&site.load) => {}
        told = told => told?,
        () = ended => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    site.servers.iter().for_each(|server| server.crash());
    Ok(())
}

/// In a browser, if somebody is there to look.
fn open(url: &str) {
    if io::stdout().is_terminal() {
        let mut command = Command::new("xdg-open");
        command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // Where there is none, the address has been printed.
        _ = command.spawn();
    }
}

// === impl Site ===

impl Site {
    /// Three servers that hear each other, and a client that is connected to all of them.
    async fn start() -> Result<Self, BoxError> {
        let mut servers: Vec<Arc<Server>> = Vec::new();
        for n in 1..=3 {
            let seed = servers.first().map(|first| first.gossip().to_string());
            servers.push(Arc::new(Server::start(&format!("server-{n}"), seed).await?));
        }
        let seed = servers[0].gossip().to_string();
        let cluster = look_on(CLUSTER, &seed, Vec::new()).await?;
        let layers = layers()?;
        // A server that fails at once looks idle to it: so the breakers have something to do.
        let options = Options { picker: Picker::LeastRequest, ..Options::default() };
        let balance = endpoints(&cluster, "worker", &layers, options)?;
        layers.register()?;
        layers.metrics.register(&balance, &[("grpc.target", CLUSTER)])?;
        let calls = Calls::new();
        let names = servers.iter().map(|server| (server.addr().to_string(), server.name()));
        let client =
            Client::new(&layers, balance.clone(), calls.clone()).with_names(names.collect());
        let rules = servers.iter().map(|server| (server.name(), server.rules().clone()));
        let console = FaultConsole::new(rules.collect());
        ready(&balance, &servers).await?;
        let stack: Stack<Balance> = stack(balance, &layers);
        let load = Arc::new(Load::new(CalculatorClient::new(stack), calls));
        let metrics = layers.metrics.clone();
        Ok(Self { servers, client, metrics, cluster, console, load, feed: Feed::new() })
    }

    /// The page, and the tasks that tell its events.
    fn page(&self) -> Result<Dashboard, BoxError> {
        follow_cluster(self.feed.clone(), &self.cluster);
        let (client, console) = (self.client.clone(), self.console.clone());
        follow(self.feed.clone(), move || [client.conditions(), console.conditions()].concat());
        let (client, servers) = (self.client.clone(), self.servers.clone());
        let tiles = move || {
            let mut tiles = client.tiles();
            tiles.extend(servers.iter().map(|server| server.tile()));
            tiles
        };
        let (servers, metrics) = (self.servers.clone(), self.metrics.clone());
        let members = move || -> Vec<_> {
            servers.iter().filter_map(|server| Some((server.name(), server.cluster()?))).collect()
        };
        Ok(Dashboard::new()
            .tiles(tiles)
            .map(move || map(&members()))
            .events(self.feed.clone())
            .metrics(move || metrics.render())
            .faults(self.console.clone()))
    }

    /// The rules of the story in place of those before; a rule is its name and itself.
    fn set(&self, rules: &[(&str, &str)]) -> Result<(), String> {
        let old = self.console.list().into_iter().filter(|rule| rule.id.ends_with(story::RULE));
        for rule in old {
            self.console.remove(&rule.id)?;
        }
        rules.iter().try_for_each(|(id, rule)| self.console.set(id, rule))
    }
}

/// The client's stack with all that it has.
fn layers() -> Result<Layers, BoxError> {
    let retry = RetryPolicy::default()
        .with_codes([Code::Unavailable, Code::DeadlineExceeded])?
        .with_backoff(Backoff::new(20 * MS, 2.0, SECOND / 5)?);
    let breaker =
        BreakerPolicy::default().with_failure_rate(0.5)?.with_open_for(2 * SECOND, 8 * SECOND)?;
    let mut layers = Layers::from(Settings {
        deadline: Some(3 * SECOND / 2),
        timeout: 400 * MS,
        retry,
        breaker: Some(breaker),
        ..Settings::default()
    });
    let hedge = HedgePolicy::default().with_max_attempts(2).with_delay(50 * MS);
    let mut policies = PerMethod::from(Policy::from(retry));
    policies.insert("calculator.Calculator", "Multiply", hedge.into())?;
    layers.retry.set_policies(policies)?;
    layers.retry.set_throttle(Some((1000.0, 0.5)))?;
    layers.fallback =
        layers.fallback.with_default("calculator.Calculator", "Subtract", load::answer(0.0))?;
    layers.watched = Some(Default::default());
    Ok(layers)
}

/// Until all servers are connected, and take writes.
async fn ready(balance: &Balance, servers: &[Arc<Server>]) -> Result<(), BoxError> {
    let began = Instant::now();
    while Instant::now() < began + 20 * SECOND {
        let states = balance.states();
        let connected = states.iter().filter(|seen| seen.state == State::Ready).count();
        let clusters = servers.iter().filter_map(|server| server.cluster());
        let writable = clusters.filter(|cluster| cluster.refusal().is_none()).count();
        if connected == servers.len() && writable == servers.len() {
            return Ok(());
        }
        sleep(20 * MS).await;
    }
    Err(format!("not {} servers after 20 s", servers.len()).into())
}
