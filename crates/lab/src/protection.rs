//! How breakers and shedding protect other calls, in virtual time: the layers, the balancer and its
//! connections are real; the servers are models.

use crate::{chart, report::Study};
use cinchona::{
    balance::{Balance, Options, Picker},
    breaker::{BreakerPolicy, BreakerSettings, State},
    core::{BoxError, Methods, Mode, Rng, Switch, Target},
    deadline::AttemptTimeoutLayer,
    retry::{RetryPolicy, RetrySettings},
    shed::{Limit, ShedSettings},
};
use cinchona_plumbing::status;
use cinchona_testkit::Network;
use http::{Request, Response, Uri};
use http_body_util::BodyExt;
use std::{
    collections::HashMap,
    convert::Infallible,
    future::pending,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

type Row = Vec<String>;

fn row<const N: usize>(cells: [&str; N]) -> Row {
    cells.map(str::to_owned).into()
}

fn request() -> Request<Body> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = Uri::from_static("http://any/calculator.Calculator/Add");
    request
}

/// Whether a call has been answered, and with `OK`.
async fn is_ok<S, B>(service: S) -> bool
where
    S: Service<Request<Body>, Response = Response<B>>,
    B: http_body::Body,
{
    let Ok(response) = service.oneshot(request()).await else { return false };
    let head = status::code(response.headers());
    let body = response.into_body().collect().await.ok();
    let end = body.and_then(|body| body.trailers().and_then(status::code));
    head.or(end) == Some(Code::Ok)
}

/// 1,000 calls, one after the other, to a payment service that hangs; then it is back.
pub(crate) async fn payment(seed: u64) -> Result<Study, BoxError> {
    let (bare, _) = waited(seed, Mode::Off).await;
    let (kept, states) = waited(seed, Mode::Enforce).await;
    let changes =
        states.iter().map(|(at, state)| format!("{state:?} at {:.1} s", at.as_secs_f64()));
    let closed_again = states.iter().map(|(_, state)| *state).eq(TRANSITIONS);
    Ok(Study {
        question: "What does a payment service that hangs cost 1,000 calls of at most 5 s?",
        answer: format!("The breaker was: {}.", changes.collect::<Vec<_>>().join(", ")),
        table: vec![
            row(["", "waited in vain"]),
            row(["without a breaker", &format!("{:.0} s", bare.as_secs_f64())]),
            row(["with one", &format!("{:.0} s", kept.as_secs_f64())]),
        ],
        chart: String::new(),
        expectation: "5,000 s without, less than 20 s with it, and closed again in the end",
        met: bare >= 5000 * SECOND && kept < 20 * SECOND && closed_again,
    })
}

const TRANSITIONS: [State; 4] = [State::Closed, State::Open, State::HalfOpen, State::Closed];

/// How long the calls waited in vain, and the states of the circuit.
async fn waited(seed: u64, mode: Mode) -> (Duration, Vec<(Duration, State)>) {
    const CALLS: u32 = 1000;
    const LIMIT: Duration = Duration::from_secs(5);
    let is_down = Arc::new(AtomicBool::new(true));
    // Calls that are made one after the other, and are as expensive to wait for as these, are few.
    let policy = BreakerPolicy::default().with_consecutive_failures(Some(3)).unwrap_or_default();
    let breaker = BreakerSettings::new(policy)
        .with_name("payment")
        .with_rng(Rng::seeded(seed))
        .with_switch(Switch::new(mode))
        .layer();
    let client = breaker.layer(payments(is_down.clone()));
    let client = AttemptTimeoutLayer::new(LIMIT).layer(client);
    let circuit = breaker.circuit("");
    let (began, mut waited) = (Instant::now(), Duration::ZERO);
    let states = Arc::new(Mutex::new(vec![(Duration::ZERO, circuit.state())]));
    let (mut watched, seen) = (circuit.watch(), states.clone());
    let watching = tokio::spawn(async move {
        while watched.changed().await.is_ok() {
            let state = (Instant::now() - began, *watched.borrow_and_update());
            seen.lock().unwrap_or_else(PoisonError::into_inner).push(state);
        }
    });
    let mut call = async || {
        let called = Instant::now();
        if !is_ok(client.clone()).await {
            waited += Instant::now() - called;
        }
    };
    for _ in 0..CALLS {
        call().await;
    }
    is_down.store(false, Ordering::Relaxed);
    for _ in 0..100 {
        sleep(100 * MS).await;
        call().await;
    }
    watching.abort();
    let states = states.lock().unwrap_or_else(PoisonError::into_inner).clone();
    (waited, states)
}

/// A service that hangs while it is down.
fn payments(
    is_down: Arc<AtomicBool>,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone {
    service_fn(move |_: Request<Body>| {
        let is_down = is_down.load(Ordering::Relaxed);
        async move {
            if is_down {
                pending::<()>().await;
            }
            sleep(20 * MS).await;
            Ok(Status::ok("").into_http())
        }
    })
}

/// A server of so many workers, each of which takes 20 ms for a call. It works on each call that it
/// has taken in, in their order, whether or not its caller still waits: it cannot know.
#[derive(Clone)]
struct Model {
    workers: Arc<Semaphore>,
    taken_in: Arc<AtomicU32>,
}

const WORK: Duration = Duration::from_millis(20);

impl Model {
    fn new(workers: usize) -> Self {
        Self { workers: Arc::new(Semaphore::new(workers)), taken_in: Arc::default() }
    }

    fn service(
        &self,
    ) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + 'static {
        let Self { workers, taken_in } = self.clone();
        service_fn(move |_: Request<Body>| {
            taken_in.fetch_add(1, Ordering::Relaxed);
            let (workers, taken_in) = (workers.clone(), taken_in.clone());
            let work = tokio::spawn(async move {
                let _worker = workers.acquire().await;
                sleep(WORK).await;
                taken_in.fetch_sub(1, Ordering::Relaxed);
            });
            async move {
                _ = work.await;
                Ok(Status::ok("").into_http())
            }
        })
    }
}

/// What was answered in time, of what a server could have done.
#[derive(Clone, Copy, Debug)]
struct Goodput {
    load: f64,
    share: f64,
    p99: Duration,
}

/// A server that can do 400 calls a second, asked for more and more; callers wait for 500 ms.
pub(crate) async fn overload(seed: u64) -> Result<Study, BoxError> {
    const LOADS: [f64; 5] = [0.5, 0.9, 1.2, 2.0, 3.0];
    async fn curve(seed: u64, mode: Mode) -> Result<Vec<Goodput>, BoxError> {
        let mut curve = Vec::new();
        for load in LOADS {
            let shed = ShedSettings::new(Limit::default())?
                .with_rng(Rng::seeded(seed))
                .with_switch(Switch::new(mode))
                .layer();
            curve.push(goodput(shed.layer(Model::new(8).service()), load).await);
        }
        Ok(curve)
    }
    let (with, without) = (curve(seed, Mode::Enforce).await?, curve(seed, Mode::Off).await?);
    let peak = with.iter().map(|point| point.share).fold(0.0, f64::max);
    let (kept, collapsed) = (with[LOADS.len() - 1], without[LOADS.len() - 1]);
    let cell = |point: &Goodput| {
        format!("{:.0} %, {:.0} ms", point.share * 100.0, point.p99.as_secs_f64() * 1e3)
    };
    let rows = with.iter().zip(&without).map(|(with, without)| {
        row([&format!("{:.0} %", with.load * 100.0), &cell(without), &cell(with)])
    });
    Ok(Study {
        question: "What becomes of a server that is asked for three times what it can do?",
        answer: format!(
            "Of what it can do, it still does {:.0} % where it sheds, and {:.0} % where it does \
             not: it works for callers who have gone.",
            kept.share * 100.0,
            collapsed.share * 100.0
        ),
        table: std::iter::once(row(["asked for", "answered in time, p99", "with shedding"]))
            .chain(rows)
            .collect(),
        chart: curves(&with, &without),
        expectation: "90 % of the peak within 250 ms with shedding, less than half without",
        met: kept.share >= 0.9 * peak && kept.p99 <= 250 * MS && collapsed.share < 0.5 * peak,
    })
}

/// For four seconds after two to begin with.
async fn goodput<S, B>(service: S, load: f64) -> Goodput
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static,
    B: http_body::Body<Data: Send> + Send + 'static,
{
    const CAPACITY: f64 = 400.0;
    const PATIENCE: Duration = Duration::from_millis(500);
    let (began, mut calls) = (Instant::now(), JoinSet::new());
    for n in 0..(6.0 * CAPACITY * load) as u32 {
        let service = service.clone();
        let at = Duration::from_secs_f64(f64::from(n) / (CAPACITY * load));
        calls.spawn(async move {
            sleep_until(began + at).await;
            let in_time = tokio::time::timeout(PATIENCE, is_ok(service)).await == Ok(true);
            (in_time && at > 2 * SECOND).then(|| Instant::now() - (began + at))
        });
    }
    let mut good: Vec<Duration> = calls.join_all().await.into_iter().flatten().collect();
    good.sort_unstable();
    let p99 = good.get(good.len() * 99 / 100).copied().unwrap_or_default();
    Goodput { load, share: good.len() as f64 / (4.0 * CAPACITY), p99 }
}

/// What is answered in time, by what is asked for.
fn curves(with: &[Goodput], without: &[Goodput]) -> String {
    let points = |curve: &[Goodput]| -> Vec<(f64, f64)> {
        curve.iter().map(|point| (point.load * 100.0, point.share * 100.0)).collect()
    };
    let names = ("asked for, in % of what it can do", "answered in time, in %");
    chart::lines(
        names,
        &[("with shedding", points(with), chart::GREEN), ("without", points(without), chart::RED)],
    )
}

/// Three servers that can do 100 calls a second each are asked for 250; one of them dies.
pub(crate) async fn cascade(seed: u64) -> Result<Study, BoxError> {
    let (with, with_alive) = survivors(seed, Mode::Enforce).await?;
    let (without, without_alive) = survivors(seed, Mode::Off).await?;
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    Ok(Study {
        question: "What becomes of three servers under load when one of them dies?",
        answer: "Each dies of its own when it has taken in 150 calls more than it can do.".into(),
        table: vec![
            row(["", "alive after 10 s", "answered of what two can do"]),
            row(["without shedding", &without_alive.to_string(), &percent(without)]),
            row(["with shedding", &with_alive.to_string(), &percent(with)]),
        ],
        chart: String::new(),
        expectation: "none survives without shedding, two do with it and do 90 % of what they can",
        met: with_alive == 2 && with >= 0.9 && without_alive == 0,
    })
}

/// What is answered from the death of the first on, of what two can do, and how many are alive.
async fn survivors(seed: u64, mode: Mode) -> Result<(f64, usize), BoxError> {
    const DIES: Duration = Duration::from_secs(5);
    const ENDS: Duration = Duration::from_secs(15);
    const MOST: u32 = 150;
    const PACE: Duration = Duration::from_millis(4);
    let models: Vec<_> = (0..3).map(|_| Model::new(2)).collect();
    let networks: HashMap<String, Network> =
        (0..3).map(|n| (format!("s{n}"), Network::new())).collect();
    let mut serving = Vec::new();
    for (n, model) in models.iter().enumerate() {
        let settings = ShedSettings::new(Limit::default())?.with_rng(Rng::seeded(seed));
        let shed = settings.with_switch(Switch::new(mode)).layer();
        serving.push(networks[&format!("s{n}")].serve_service(shed.layer(model.service())));
    }
    let alive = Arc::new(Mutex::new(vec![true; 3]));
    let (began, mut dying) = (Instant::now(), JoinSet::new());
    for (n, model) in models.into_iter().enumerate() {
        let (network, alive) = (networks[&format!("s{n}")].clone(), alive.clone());
        dying.spawn(async move {
            let is_first = n == 0;
            while model.taken_in.load(Ordering::Relaxed) < MOST
                && !(is_first && Instant::now() - began >= DIES)
            {
                sleep(10 * MS).await;
            }
            network.refuse(true);
            network.reset();
            alive.lock().unwrap_or_else(PoisonError::into_inner)[n] = false;
        });
    }
    let targets = (0..3).map(|n| Ok(Target::from(format!("http://s{n}").parse::<Uri>()?)));
    let targets = targets.collect::<Result<Vec<_>, BoxError>>()?;
    let connector = service_fn(move |uri: Uri| {
        let network = networks.get(uri.host().unwrap_or_default()).cloned().unwrap_or_default();
        async move { network.connector().oneshot(uri).await }
    });
    let picker = Picker::RoundRobin;
    let options = Options { picker, rng: Rng::seeded(seed), ..Options::default() };
    let balance = Balance::with_connector(targets, connector, options)?;
    let policy = RetryPolicy::default().with_codes([Code::Unavailable, Code::DeadlineExceeded])?;
    let client = RetrySettings::new(policy, Methods::all_idempotent())
        .with_rng(Rng::seeded(seed))
        .layer()
        .layer(AttemptTimeoutLayer::new(SECOND).layer(balance));
    let mut calls = JoinSet::new();
    let mut at = Duration::ZERO;
    while at < ENDS {
        let client = client.clone();
        calls.spawn(async move {
            sleep_until(began + at).await;
            is_ok(client).await && at >= DIES
        });
        at += PACE;
    }
    let answered = calls.join_all().await.into_iter().filter(|ok| *ok).count();
    dying.shutdown().await;
    let alive = alive.lock().unwrap_or_else(PoisonError::into_inner);
    let could = 2.0 * 100.0 * (ENDS - DIES).as_secs_f64();
    Ok((answered as f64 / could, alive.iter().filter(|alive| **alive).count()))
}
