//! `/metrics` with every layer of a client and a server in it, for each panel of the Grafana
//! dashboard beside the crate `cinchona-observe` (`grafana.json`).
//!
//! `cargo run -p cinchona --example observed` makes calls for two seconds, and prints the page;
//! with `-- 600` at its end it makes them for ten minutes, for a Prometheus that scrapes the
//! address it prints.

use axum::routing::get;
use cinchona::{
    client,
    core::Methods,
    fallback::{Cache, FallbackSettings},
    fault::{FaultSettings, Rules},
    idempotency::MemoryStore,
    observe::Metrics,
    retry::HedgePolicy,
    server,
};
use cinchona_cluster::{Cluster, Config};
use example_proto::{
    DESCRIPTORS,
    counter::{
        AddRequest, GetRequest, Total,
        counter_client::CounterClient,
        counter_server::{Counter, CounterServer},
    },
};
use std::{
    env,
    error::Error,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};
use tonic::{Request, Response, Status, service::Routes};

#[derive(Default)]
struct Counts(AtomicU64);

#[tonic::async_trait]
impl Counter for Counts {
    async fn add(&self, request: Request<AddRequest>) -> Result<Response<Total>, Status> {
        let amount = request.into_inner().amount;
        let value = self.0.fetch_add(amount, Ordering::Relaxed) + amount;
        Ok(Response::new(Total { value }))
    }

    async fn get(&self, _: Request<GetRequest>) -> Result<Response<Total>, Status> {
        Ok(Response::new(Total { value: self.0.load(Ordering::Relaxed) }))
    }
}

/// A server that loses replies, refuses calls and is sometimes slow. It is counted in `metrics`,
/// and serves them.
async fn serve(methods: Methods, metrics: &Metrics) -> Result<SocketAddr, Box<dyn Error>> {
    let unsteady = Rules::new(7)
        .with("lost", "method=/counter.Counter/Add every=5 when=after status=UNAVAILABLE".parse()?)
        .with("refused", "method=/counter.Counter/Get every=9 reset=REFUSED_STREAM".parse()?)
        .with("slow", "method=/counter.Counter/Get every=8 delay=200ms".parse()?);
    let layers = server::Settings::new(methods)
        .with_metrics(metrics)
        .with_quota(1000, 1000)?
        .with_store(MemoryStore::new())
        .with_fault_settings(FaultSettings::default().with_rules(unsteady))
        .layers()?;
    let page = metrics.clone();
    let router = Routes::new(CounterServer::new(Counts::default()))
        .into_axum_router()
        .layer(layers)
        // Outside of the layers: scrapes are not counted as calls.
        .route("/metrics", get(move || async move { page.render() }));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

/// Every layer that a client can have, counted in `metrics`.
fn connect(
    methods: Methods,
    metrics: &Metrics,
    address: SocketAddr,
) -> Result<cinchona::Channel, Box<dyn Error>> {
    let hedge = HedgePolicy::default().with_delay(Duration::from_millis(50));
    let settings = client::Settings::new(methods.clone())
        .with_target("counters")
        .with_metrics(metrics)
        .with_keys()
        .with_policy_of("counter.Counter", "Get", hedge)?
        .with_fallback(FallbackSettings::new(methods).with_cache(Cache::default())?);
    Ok(settings.connect(format!("http://{address}"))?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let seconds = env::args().nth(1).map_or(Ok(2), |seconds| seconds.parse())?;
    let methods = Methods::from_file_descriptor_set(DESCRIPTORS)?;
    // One page for all layers of this process.
    let metrics = Metrics::new(methods.clone());
    let address = serve(methods.clone(), &metrics).await?;
    let cluster = Cluster::join(Config::new("counters", "one", "127.0.0.1:0".parse()?), &[]).await;
    let cluster = cluster.map_err(|error| error.to_string())?;
    metrics.register(&cluster, &[])?;
    println!("# http://{address}/metrics");

    let channel = connect(methods, &metrics, address)?;
    let mut counter = CounterClient::new(channel);
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        // Failures are counted.
        _ = counter.add(AddRequest { amount: 1 }).await;
        _ = counter.get(GetRequest {}).await;
        sleep(Duration::from_millis(5)).await;
    }

    let mut scrape = TcpStream::connect(address).await?;
    let request = b"GET /metrics HTTP/1.0\r\n\r\n";
    scrape.write_all(request).await?;
    let mut page = String::new();
    scrape.read_to_string(&mut page).await?;
    println!("{}", page.split_once("\r\n\r\n").map_or(&*page, |(_, page)| page));
    Ok(())
}
