//! What the rows put a setting into, and the calls that they make through it.

use bytes::Bytes;
use cinchona::{
    balance::{Balance, Options, OutlierDetection, Picker, Utilization},
    breaker::{BreakerPolicy, BreakerSettings},
    cluster::{Cluster, Config, Datagrams},
    config::{MethodConfig, MethodEntry, Name, Policy, ServiceConfig},
    core::{BoxError, IDEMPOTENCY_KEY, Invalid, Methods, PerMethod, Rng, Target},
    deadline::{AttemptTimeoutLayer, CallDeadlineLayer, ServerDeadlineLayer},
    drain::Drain,
    fallback::{Cache, FallbackSettings},
    fault::{FaultLayer, Faults},
    idempotency::{DedupSettings, InFlight, MemoryStore},
    observe::Metrics,
    retry::{self, HedgePolicy, RetryLayer, RetryPolicy, RetrySettings},
    shed::{Adaptive, BulkheadLayer, Limit, Queue, ShedSettings},
};
use cinchona_plumbing::status;
use cinchona_testkit::{Answer, Network, ScriptedServer, Serving, encode};
use http::{Request, Response, Uri};
use http_body_util::BodyExt;
use prost::Message;
use prost_types::{
    FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto,
};
use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    sync::{Mutex, mpsc},
    time::{sleep, timeout},
};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service, ServiceExt, service_fn};

pub(crate) type Ended = Result<(), BoxError>;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long the callers wait.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn ok() -> Answer {
    Answer::Ok(encode(&1_u32))
}

pub(crate) fn unavailable() -> Answer {
    Answer::Status(Status::unavailable("scripted"))
}

/// A server that takes a second for each answer.
pub(crate) fn slow() -> ScriptedServer {
    ScriptedServer::new([Answer::After(SECOND, Box::new(ok()))])
}

pub(crate) fn request() -> Request<Body> {
    Request::post("http://any/calculator.Calculator/Add").body(Body::empty()).unwrap()
}

/// `Add` is unary and has effects.
pub(crate) fn methods() -> Methods {
    let add = MethodDescriptorProto { name: Some("Add".into()), ..Default::default() };
    let service = ServiceDescriptorProto {
        name: Some("Calculator".into()),
        method: vec![add],
        ..Default::default()
    };
    let file = FileDescriptorProto {
        package: Some("calculator".into()),
        service: vec![service],
        ..Default::default()
    };
    let set = FileDescriptorSet { file: vec![file] }.encode_to_vec();
    Methods::from_file_descriptor_set(&set).unwrap()
}

/// How a call ends, read to its end; `None` where its caller's patience ends first.
pub(crate) async fn send<S, B>(service: &S, request: Request<Body>) -> Option<Code>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let ended = timeout(PATIENCE, async {
        let response = match service.clone().oneshot(request).await {
            Ok(response) => response,
            Err(error) => return cinchona::core::Verdict::status_of(error.into()).code(),
        };
        let head = status::code(response.headers());
        let end = match response.into_body().collect().await {
            Ok(body) => body.trailers().and_then(status::code),
            Err(error) => Some(cinchona::core::Verdict::status_of(error.into()).code()),
        };
        head.or(end).unwrap_or(Code::Unknown)
    });
    ended.await.ok()
}

pub(crate) async fn call<S, B>(service: &S) -> Option<Code>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    send(service, request()).await
}

/// A few calls, sequential and concurrent, each of which ends with a plausible code.
pub(crate) async fn calls<S, B>(service: &S) -> Ended
where
    S: Service<Request<Body>, Response = Response<B>> + Clone,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    for _ in 0..2 {
        honest(call(service).await)?;
    }
    let (one, other, third) = tokio::join!(call(service), call(service), call(service));
    [one, other, third].into_iter().try_for_each(honest)
}

/// The codes of a layer that has lost its way are `CANCELLED` and `INTERNAL`.
pub(crate) fn honest(code: Option<Code>) -> Ended {
    match code {
        Some(Code::Cancelled | Code::Internal) => Err(format!("a call ended by {code:?}").into()),
        _ => Ok(()),
    }
}

pub(crate) fn expect(what: &str, holds: bool) -> Ended {
    if holds { Ok(()) } else { Err(format!("{what}: it does not hold").into()) }
}

/// `server` at `http://any`, behind a balancer; and its network.
pub(crate) struct Place {
    pub(crate) network: Network,
    server: ScriptedServer,
    serving: Option<Serving>,
}

impl Place {
    pub(crate) fn new(server: ScriptedServer) -> Self {
        let network = Network::new();
        let serving = Some(network.serve_service(server.clone()));
        Self { network, server, serving }
    }

    pub(crate) fn balance(&self, options: Options) -> Result<Balance, Invalid> {
        let target: Target = Uri::from_static("http://any").into();
        let network = self.network.clone();
        let connector = service_fn(move |uri: Uri| network.connector().oneshot(uri));
        let options = Options { rng: Rng::seeded(1), ..options };
        Balance::with_connector(vec![target], connector, options)
    }

    pub(crate) fn kill(&mut self) {
        self.serving = None;
        self.network.refuse(true);
        self.network.reset();
    }

    pub(crate) fn revive(&mut self) {
        self.network.refuse(false);
        self.serving = Some(self.network.serve_service(self.server.clone()));
    }
}

/// Calls while the endpoint is there, while it is gone, and when it is back.
pub(crate) async fn balanced(options: Options) -> Ended {
    let mut place = Place::new(ScriptedServer::new([ok()]));
    let balance = place.balance(options)?;
    expect("the first call is answered", call(&balance).await == Some(Code::Ok))?;
    // Long enough for a few pings.
    sleep(2 * SECOND).await;
    calls(&balance).await?;
    place.kill();
    calls(&balance).await?;
    place.revive();
    // The backoff between connections is at most 120 s.
    sleep(300 * SECOND).await;
    _ = balance.states();
    expect("the endpoint is found again", call(&balance).await == Some(Code::Ok))
}

/// Calls that fail until their endpoint is ejected, and others after that.
pub(crate) async fn ejected(outlier: OutlierDetection) -> Ended {
    let outlier =
        OutlierDetection { consecutive_failures: Some(2), max_ejection_percent: 100, ..outlier };
    let failing = [unavailable(), unavailable(), ok()];
    let place = Place::new(ScriptedServer::new(failing));
    let balance = place.balance(Options { outlier, panic_threshold: 50, ..Options::default() })?;
    for _ in 0..3 {
        calls(&balance).await?;
        _ = balance.states();
        sleep(10 * SECOND).await;
    }
    expect("its last endpoint is used all the same", call(&balance).await == Some(Code::Ok))
}

/// Calls to an endpoint that reports its load.
pub(crate) async fn weighed(utilization: Utilization) -> Ended {
    // cpu_utilization, rps_fractional and eps of an `OrcaLoadReport`.
    let fields = [(0x09, 0.5_f64), (0x31, 100.0), (0x39, 10.0)];
    let report: Vec<u8> = fields
        .into_iter()
        .flat_map(|(tag, value)| std::iter::once(tag).chain(value.to_le_bytes()))
        .collect();
    let mut status = Status::new(Code::Ok, "");
    let report = tonic::metadata::MetadataValue::from_bytes(&report);
    status.metadata_mut().insert_bin("endpoint-load-metrics-bin", report);
    let answer = Answer::MessageThenStatus(encode(&1_u32), status);
    let place = Place::new(ScriptedServer::new([answer]));
    let picker = Picker::WeightedRoundRobin;
    let balance = place.balance(Options { picker, utilization, ..Options::default() })?;
    for _ in 0..3 {
        calls(&balance).await?;
        sleep(SECOND).await;
    }
    expect("its endpoint is used", call(&balance).await == Some(Code::Ok))
}

/// More concurrent calls than the limit.
pub(crate) async fn shed(settings: Result<ShedSettings, Invalid>) -> Ended {
    let layer = settings?.layer();
    let service = layer.layer(slow());
    calls(&service).await?;
    sleep(SECOND).await;
    calls(&service).await?;
    let seen = layer.counters();
    let none = seen.in_progress == 0 && seen.waiting <= 3;
    expect("what has ended is not in progress", none)
}

pub(crate) fn queued(queue: Queue) -> Result<ShedSettings, Invalid> {
    Ok(ShedSettings::new(Limit::Fixed(1))?.with_queue(queue))
}

pub(crate) fn adaptive(adaptive: Adaptive) -> Result<ShedSettings, Invalid> {
    ShedSettings::new(Limit::Adaptive(Adaptive { samples: 1, ..adaptive }))
}

pub(crate) async fn bulkhead(layer: Result<BulkheadLayer, Invalid>) -> Ended {
    let service = layer?.layer(slow());
    calls(&service).await?;
    expect("it has room again", call(&service).await == Some(Code::Ok))
}

/// Calls with keys: a first, its repetition while it is executed, and after it.
pub(crate) async fn deduplicated(settings: DedupSettings) -> Ended {
    let service = settings.layer(MemoryStore::new()).layer(service_fn(answered));
    let keyed = |key: &'static str| {
        let mut request = request();
        request.headers_mut().insert(IDEMPOTENCY_KEY, key.parse().unwrap());
        request
    };
    for key in ["one", "other"] {
        let (first, second) = tokio::join!(send(&service, keyed(key)), send(&service, keyed(key)));
        honest(first)?;
        honest(second)?;
        honest(send(&service, keyed(key)).await)?;
        sleep(2 * SECOND).await;
        honest(send(&service, keyed(key)).await)?;
    }
    Ok(())
}

pub(crate) async fn answered(_: Request<Body>) -> Result<Response<Body>, std::convert::Infallible> {
    sleep(SECOND).await;
    let response: Response<http_body_util::Empty<Bytes>> = Status::new(Code::Ok, "").into_http();
    Ok(response.map(Body::new))
}

pub(crate) fn dedup(in_flight: InFlight) -> DedupSettings {
    DedupSettings::new(methods()).with_in_flight(in_flight)
}

pub(crate) async fn faulty(faults: Faults) -> Ended {
    let service = FaultLayer::new(faults)?.layer(service_fn(answered));
    calls(&service).await
}

/// One end of a wire, at its own port.
struct End {
    port: u16,
    to: mpsc::Sender<Vec<u8>>,
    from: Mutex<mpsc::Receiver<Vec<u8>>>,
}

/// Ends at the ports 1 and 2.
fn wire() -> (End, End) {
    let ((to_other, from_one), (to_one, from_other)) = (mpsc::channel(100), mpsc::channel(100));
    let one = End { port: 1, to: to_other, from: from_other.into() };
    (one, End { port: 2, to: to_one, from: from_one.into() })
}

impl Datagrams for End {
    fn address(&self) -> io::Result<SocketAddr> {
        Ok(([127, 0, 0, 1], self.port).into())
    }

    fn send(&self, datagram: &[u8], _: SocketAddr) -> io::Result<()> {
        self.to.try_send(datagram.to_vec()).map_err(io::Error::other)
    }

    async fn receive(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let datagram = self.from.lock().await.recv().await;
        let datagram = datagram.ok_or_else(|| io::Error::other("nobody is there"))?;
        into[..datagram.len()].copy_from_slice(&datagram);
        Ok((datagram.len(), ([127, 0, 0, 1], 3 - self.port).into()))
    }
}

/// Two nodes that gossip for some time.
pub(crate) async fn gossiped(change: impl Fn(&mut Config)) -> Ended {
    let (one_end, other_end) = wire();
    let join = |id: &str, end: End, seeds: &[&str]| {
        let mut config = Config::new("clocks", id, end.address()?);
        change(&mut config);
        Cluster::join_over(config, seeds, end)
    };
    let one = join("one", one_end, &[])?;
    let other = join("other", other_end, &["127.0.0.1:1"])?;
    sleep(60 * SECOND).await;
    expect("they know each other", one.nodes().len() == 2)?;
    _ = (one.phi("other"), one.heartbeat_history("other"), other.health());
    Ok(())
}

pub(crate) async fn left(drain: Duration) -> Ended {
    let config = Config::new("clocks", "one", ([127, 0, 0, 1], 1).into());
    let cluster = Cluster::join_over(config, &[], wire().0)?;
    _ = timeout(PATIENCE, cluster.leave(drain)).await;
    Ok(())
}

/// What a gauge or a counter of this value looks like.
pub(crate) fn shown(metrics: &Metrics) -> Ended {
    let text = metrics.render();
    expect("each sample is a line", text.lines().count() >= 2)?;
    drop(metrics.collect());
    Ok(())
}

/// Calls that fail at first, through a retry layer.
pub(crate) async fn retried(layer: RetryLayer) -> Ended {
    let script = [unavailable(), unavailable(), unavailable(), unavailable(), ok()];
    let service = layer.layer(ScriptedServer::new(script));
    calls(&service).await?;
    calls(&service).await
}

pub(crate) fn retry_settings() -> RetrySettings {
    RetrySettings::new(RetryPolicy::default(), Methods::all_idempotent()).with_rng(Rng::seeded(1))
}

pub(crate) fn retry() -> RetryLayer {
    retry_settings().layer()
}

/// Calls to a server that is slow, through a retry layer.
pub(crate) async fn hedged(policy: HedgePolicy) -> Ended {
    let layer =
        retry_settings().with_policies(PerMethod::from(retry::Policy::from(policy)))?.layer();
    let service = layer.layer(slow());
    for _ in 0..25 {
        calls(&service).await?;
    }
    Ok(())
}

/// Calls that open it, and probes; the circuit is made in the instant of its first answer.
pub(crate) async fn broken(policy: BreakerPolicy) -> Ended {
    let script = [unavailable(), unavailable(), unavailable(), unavailable(), ok()];
    let layer = BreakerSettings::new(policy.with_min_calls(1)?).with_rng(Rng::seeded(1)).layer();
    let server = ScriptedServer::new(script);
    let service = layer.layer(server.clone());
    for _ in 0..3 {
        calls(&service).await?;
        sleep(SECOND).await;
    }
    for circuit in layer.circuits() {
        circuit.close();
    }
    let before = server.attempts();
    honest(call(&service).await)?;
    expect("once closed it lets calls through", server.attempts() > before)
}

pub(crate) async fn limited_call(layer: CallDeadlineLayer) -> Ended {
    calls(&layer.layer(slow())).await
}

pub(crate) async fn limited_attempt(layer: AttemptTimeoutLayer) -> Ended {
    calls(&layer.layer(slow())).await
}

pub(crate) async fn drained(drain: Drain) -> Ended {
    calls(&drain.layer().layer(service_fn(answered))).await?;
    drain.serve(async {}, async {}).await.ok_or_else(|| "it has ended".into())
}

pub(crate) async fn limited_server(layer: ServerDeadlineLayer) -> Ended {
    calls(&layer.layer(service_fn(answered))).await
}

pub(crate) async fn kept(cache: Cache) -> Ended {
    let layer = FallbackSettings::new(Methods::all_idempotent()).with_cache(cache)?.layer();
    let script = [ok(), unavailable(), unavailable(), ok()];
    let service = layer.layer(ScriptedServer::new(script));
    calls(&service).await?;
    sleep(2 * SECOND).await;
    calls(&service).await
}

/// A service config with this for every method.
pub(crate) async fn configured(timeout: Option<Duration>, policy: Option<Policy>) -> Ended {
    let config = MethodConfig { timeout, policy, ..MethodConfig::default() };
    let entry = MethodEntry { index: 0, names: vec![Name::default()], config };
    let mut config = ServiceConfig::parse("{}")?;
    config.methods = vec![entry];
    let (deadline, retry) = (CallDeadlineLayer::new(), retry());
    config.apply(&deadline, &retry)?;
    let script = [unavailable(), unavailable(), ok()];
    let server = ScriptedServer::new(script);
    let service = deadline.layer(retry.layer(server.clone()));
    calls(&service).await?;
    // It is put right while the client runs.
    ServiceConfig::default().apply(&deadline, &retry)?;
    let before = server.attempts();
    honest(call(&service).await)?;
    expect("the client goes on", server.attempts() > before)
}
