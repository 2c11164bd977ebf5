//! Servers that are killed with SIGKILL and started again while clients change what they keep:
//! what was acknowledged happened exactly once, and what was not at most once.
//!
//! All calls to the counter and to an account are in histories, which one order has to explain.
//!
//! `CINCHONA_KILLS` says how many kills there are, 100 if it is absent; their times are drawn from
//! `CINCHONA_SEED`.

use crate::history::{Call, History};
use calculator::{
    client::{Layers, Settings, Stack, stack},
    pb::{
        AppendRequest, CounterRequest, Empty, Key, SetValueRequest, WithdrawRequest,
        calculator_client::CalculatorClient, store_client::StoreClient,
    },
};
use cinchona::{
    balance::{Balance, Options},
    core::{Rng, Target},
    retry::{Backoff, Jitter, RetryPolicy},
};
use cinchona_testkit::Redis;
use outside::program;
use rand::RngExt;
use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tonic::{Code, Status, body::Body};
use tower::{ServiceExt, util::BoxCloneSyncService};

const CLIENTS: usize = 8;
const FUNDS: i64 = 1_000_000;
/// How many entries a text has at most.
const PAGE: usize = 1000;

/// A server at an address of its own, which is the same after each start.
struct Server {
    process: Child,
    args: Vec<String>,
}

/// The outcomes of a client's calls, by kind.
#[derive(Debug, Default)]
struct Ledger {
    client: usize,
    increments: Outcomes,
    withdrawals: Outcomes,
    /// The entries it wrote, in order.
    entries: Vec<(String, bool)>,
}

/// The calls of all clients to what they share.
#[derive(Clone, Debug, Default)]
struct Histories {
    counter: History,
    account: History,
}

#[derive(Clone, Copy, Debug, Default)]
struct Outcomes {
    acknowledged: i64,
    open: i64,
}

/// Channels to all servers, taken in turn by the attempts of a call and of others.
type Anywhere = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Status>;

// === impl Server ===

impl Server {
    fn start(store: &str) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let args = ["--addr", &free, "--store", store, "--cache-size", "1000000", "--lease", "1s"];
        let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        Self { process: Self::spawn(&args), args }
    }

    fn spawn(args: &[String]) -> Child {
        let mut process = Command::new(program("calculator-server"))
            .args(args)
            .env("RUST_LOG", "error")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("listening on"), "{line:?}");
        process
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn kill_and_start(&mut self) {
        self.kill();
        self.process = Self::spawn(&self.args);
    }

    fn channel(&self) -> Balance {
        channel(&self.args[1])
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

// === impl Ledger ===

impl Ledger {
    fn all(ledgers: &[Self], kind: impl Fn(&Self) -> Outcomes) -> Outcomes {
        ledgers.iter().map(kind).fold(Outcomes::default(), |sum, next| Outcomes {
            acknowledged: sum.acknowledged + next.acknowledged,
            open: sum.open + next.open,
        })
    }
}

// === impl Outcomes ===

impl Outcomes {
    fn note<T>(&mut self, outcome: &Result<T, Status>) {
        match outcome {
            Ok(_) => self.acknowledged += 1,
            Err(status) => {
                self.open += 1;
                expected(status);
            }
        }
    }

    #[track_caller]
    fn check(self, what: &str, happened: i64) {
        let Self { acknowledged, open } = self;
        let range = acknowledged..=acknowledged + open;
        assert!(range.contains(&happened), "{what}: {happened} happened, {self:?}");
    }
}

/// How a call may fail here: it ran out of attempts or time, or its execution did, and the server
/// says that it does not know how far that came.
fn expected(status: &Status) {
    let codes = [Code::Unavailable, Code::DeadlineExceeded];
    let is_open = status.code() == Code::Unknown && status.message().contains("may have been");
    assert!(codes.contains(&status.code()) || is_open, "{status}");
}

fn channel(addr: &str) -> Balance {
    // It is back before long.
    let backoff = Backoff::new(Duration::from_millis(50), 1.0, Duration::from_secs(1)).unwrap();
    let options = Options { backoff: backoff.with_jitter(Jitter::Full), ..Options::default() };
    let target: Target = format!("http://{addr}").parse().unwrap();
    Balance::new(vec![target], options).unwrap()
}

/// A client that goes on until it is answered.
pub(crate) fn patient(addr: &str) -> Stack<Balance> {
    stack(channel(addr), &layers())
}

fn anywhere(servers: &[Server]) -> Anywhere {
    let channels: Arc<[Balance]> = servers.iter().map(Server::channel).collect();
    let turn = Arc::new(AtomicUsize::new(0));
    BoxCloneSyncService::new(tower::service_fn(move |request| {
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        let answer = channels[turn % channels.len()].clone().oneshot(request);
        async { Ok(answer.await.map_err(cinchona::core::Verdict::status_of)?.map(Body::new)) }
    }))
}

fn layers() -> Layers {
    let backoff = Backoff::new(Duration::from_millis(5), 2.0, Duration::from_millis(100)).unwrap();
    let retry = RetryPolicy::default()
        .with_codes([Code::Unavailable, Code::DeadlineExceeded, Code::Aborted])
        .unwrap()
        .with_max_retries(500)
        .with_backoff(backoff);
    Settings {
        deadline: Some(Duration::from_secs(20)),
        timeout: Duration::from_secs(3),
        retry,
        budget: None,
        rng: Rng::seeded(1),
        ..Settings::default()
    }
    .layers()
    .unwrap()
}

fn page(client: usize, entries: usize) -> String {
    format!("log {client} {}", entries / PAGE)
}

/// Calls one method after the other until it is stopped.
async fn client(
    n: usize,
    channel: Stack<Anywhere>,
    histories: Histories,
    stop: Arc<AtomicBool>,
) -> Ledger {
    let mut calculator = CalculatorClient::new(channel.clone());
    let mut store = StoreClient::new(channel);
    let mut ledger = Ledger { client: n, ..Ledger::default() };
    while !stop.load(Ordering::Relaxed) {
        let request = CounterRequest { request_id: String::new(), increment: 1 };
        let counting = calculator.increment_counter(request);
        let counted = histories.counter.record(Call::Add(1), counting, |now| now.value.into());
        ledger.increments.note(&counted.await);
        let reading = calculator.get_counter(Empty {});
        _ = histories.counter.record(Call::Read, reading, |now| now.value.into()).await;
        let (request_id, key) = (String::new(), "account".to_owned());
        let request = WithdrawRequest { request_id, key, amount: 1 };
        let withdrawing = store.withdraw(request);
        let withdrawn = histories.account.record(Call::Add(-1), withdrawing, |now| now.value);
        ledger.withdrawals.note(&withdrawn.await);
        let reading = store.balance(Key { key: "account".into() });
        _ = histories.account.record(Call::Read, reading, |now| now.value).await;
        let (request_id, key) = (String::new(), page(n, ledger.entries.len()));
        let entry = ledger.entries.len().to_string();
        let request = AppendRequest { request_id, key, text: format!("{entry} ") };
        let appended = store.append(request).await;
        ledger.entries.push((entry, appended.map_err(|status| expected(&status)).is_ok()));
    }
    ledger
}

/// Kills one server after the other and starts it again, at odd times, and only after a call was
/// answered: however slow the machine is, there is something to lose.
async fn kill(servers: &mut [Server], counter: &History, kills: usize) {
    let seed = std::env::var("CINCHONA_SEED").map_or(7, |seed| seed.parse().unwrap());
    let rng = Rng::seeded(seed);
    for n in 0..kills {
        let (before, began) = (counter.answered(), Instant::now());
        sleep(Duration::from_millis(rng.draw().random_range(20..120))).await;
        while counter.answered() == before {
            assert!(Instant::now() - began < Duration::from_secs(60), "no call is answered");
            sleep(Duration::from_millis(5)).await;
        }
        servers[n % servers.len()].kill_and_start();
    }
}

async fn check(channel: Stack<Anywhere>, ledgers: &[Ledger]) {
    let mut calculator = CalculatorClient::new(channel.clone());
    let mut store = StoreClient::new(channel);
    let counter = calculator.get_counter(Empty {}).await.unwrap().into_inner().value;
    Ledger::all(ledgers, |ledger| ledger.increments).check("increments", counter.into());
    let balance = store.balance(Key { key: "account".into() }).await.unwrap().into_inner().value;
    let withdrawals = Ledger::all(ledgers, |ledger| ledger.withdrawals);
    withdrawals.check("withdrawals", FUNDS - balance);
    for ledger in ledgers {
        for (number, entries) in ledger.entries.chunks(PAGE).enumerate() {
            let key = Key { key: page(ledger.client, number * PAGE) };
            let text = store.get_value(key).await.map(|text| text.into_inner().text);
            let text = text.unwrap_or_default();
            let written: Vec<&str> = text.split_whitespace().collect();
            for (entry, acknowledged) in entries {
                let times = written.iter().filter(|written| *written == entry).count();
                let allowed = if *acknowledged { 1..=1 } else { 0..=1 };
                assert!(allowed.contains(&times), "entry {entry}: {times} times in {text}");
            }
        }
    }
}

async fn survives(store: &str, replicas: usize) {
    let kills = std::env::var("CINCHONA_KILLS").map_or(100, |kills| kills.parse().unwrap());
    let mut servers: Vec<Server> = (0..replicas).map(|_| Server::start(store)).collect();
    let channel = stack(anywhere(&servers), &layers());
    let funds = SetValueRequest {
        request_id: String::new(),
        key: "account".into(),
        value: FUNDS.to_string(),
    };
    StoreClient::new(channel.clone()).set_value(funds).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (mut clients, histories) = (JoinSet::new(), Histories::default());
    for n in 0..CLIENTS {
        clients.spawn(client(n, channel.clone(), histories.clone(), stop.clone()));
    }
    kill(&mut servers, &histories.counter, kills).await;
    stop.store(true, Ordering::Relaxed);
    let ledgers = clients.join_all().await;
    check(channel, &ledgers).await;
    let counted = histories.counter.check(0).unwrap();
    let withdrawn = histories.account.check(FUNDS).unwrap();
    println!("one order explains {counted} calls to the counter, and {withdrawn} to the account");
    let kinds: [fn(&Ledger) -> Outcomes; 2] =
        [|ledger| ledger.increments, |ledger| ledger.withdrawals];
    let outcomes = kinds.map(|kind| Ledger::all(&ledgers, kind));
    let entries: usize = ledgers.iter().map(|ledger| ledger.entries.len()).sum();
    println!("{replicas} servers, {kills} kills: {outcomes:?}, {entries} entries");
    // Reads may be what was answered.
    assert!(outcomes.iter().all(|kind| kind.acknowledged > 0), "hardly any call");
}

// real clock: the servers are processes.
#[tokio::test]
#[ignore = "needs a minute"]
async fn effects_in_a_file_happen_once_whenever_its_server_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    survives(&format!("redb:{}", dir.path().join("calls.redb").display()), 1).await;
}

// real clock: the servers are processes.
#[tokio::test]
#[ignore = "needs redis-server"]
async fn effects_in_redis_happen_once_whichever_replica_is_killed() {
    let redis = Redis::start().await;
    survives(&redis.url(), 2).await;
}
