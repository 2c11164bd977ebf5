//! Three servers that find each other, and a client that calls them.

use super::{
    load::{Load, SECOND, answer},
    server::{CLUSTER, Server},
};
use calculator::{
    client::{Layers, Settings, Stack, stack},
    cluster::{endpoints, observe},
    endpoints::Endpoints,
    methods,
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
    fallback::FallbackSettings,
    observe::Metrics,
    retry::{Backoff, HedgePolicy, Policy, RetryPolicy},
};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};
use tonic::Code;

/// The servers, the client and the page.
pub(super) struct Site {
    pub(super) servers: Vec<Arc<Server>>,
    pub(super) client: Client,
    pub(super) metrics: Metrics,
    pub(super) cluster: Cluster,
    pub(super) console: FaultConsole,
    pub(super) load: Arc<Load>,
    pub(super) feed: Feed,
}

/// The end of the names of the story's rules.
pub(super) const RULE: &str = "story";

const MS: Duration = Duration::from_millis(1);

// === impl Site ===

impl Site {
    /// Three servers that hear each other, and a client that is connected to all of them.
    pub(super) async fn start() -> Result<Self, BoxError> {
        let mut servers: Vec<Arc<Server>> = Vec::new();
        for n in 1..=3 {
            let seed = servers.first().map(|first| first.gossip().to_string());
            servers.push(Arc::new(Server::start(&format!("server-{n}"), seed).await?));
        }
        let seed = servers[0].gossip().to_string();
        let cluster = observe(CLUSTER, &seed, Vec::new()).await?;
        let watched = Endpoints::default();
        let layers = watched.watching(layers()?);
        // By latency alone, a server that fails at once gets more calls, and so its breaker opens.
        let options = Options { picker: Picker::LeastRequest, ..Options::default() };
        let balance = endpoints(&cluster, "worker", &layers, options)?;
        layers.register()?;
        let calls = Calls::new();
        let names = servers.iter().map(|server| (server.addr().to_string(), server.name()));
        let client = Client::new(&layers, balance.clone(), calls.clone(), watched)
            .with_names(names.collect());
        let rules = servers.iter().map(|server| (server.name(), server.rules().clone()));
        let console = FaultConsole::new(rules.collect());
        ready(&balance, &servers).await?;
        let stack: Stack<Balance> = stack(balance, &layers);
        let load = Arc::new(Load::new(CalculatorClient::new(stack), calls));
        let metrics = layers.metrics.clone();
        Ok(Self { servers, client, metrics, cluster, console, load, feed: Feed::new() })
    }

    /// The page, and the tasks that add its events.
    pub(super) fn page(&self) -> Result<Dashboard, BoxError> {
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

    /// Replaces the rules of the story; each is a name and a rule.
    pub(super) fn set(&self, rules: &[(&str, &str)]) -> Result<(), String> {
        let old = self.console.list().into_iter().filter(|rule| rule.id.ends_with(RULE));
        for rule in old {
            self.console.remove(&rule.id)?;
        }
        rules.iter().try_for_each(|(id, rule)| self.console.set(id, rule))
    }
}

/// The client's stack, with every layer.
fn layers() -> Result<Layers, BoxError> {
    let retry = RetryPolicy::default()
        .with_codes([Code::Unavailable, Code::DeadlineExceeded])?
        .with_backoff(Backoff::new(20 * MS, 2.0, SECOND / 5)?);
    let breaker =
        BreakerPolicy::default().with_failure_rate(0.5)?.with_open_for(2 * SECOND, 8 * SECOND)?;
    let fallback = FallbackSettings::new(methods());
    let fallback = fallback.with_default("calculator.Calculator", "Subtract", answer(0.0))?;
    let layers = Settings {
        deadline: Some(3 * SECOND / 2),
        timeout: 400 * MS,
        retry,
        breaker: Some(breaker),
        fallback,
        ..Settings::default()
    }
    .layers()?;
    let hedge = HedgePolicy::default().with_max_attempts(2).with_delay(50 * MS);
    let mut policies = PerMethod::from(Policy::from(retry));
    policies.insert("calculator.Calculator", "Multiply", hedge.into())?;
    layers.retry.set_policies(policies)?;
    layers.retry.set_throttle(Some((1000.0, 0.5)))?;
    Ok(layers)
}

/// Waits until all servers are connected, and accept writes.
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
