//! Three servers, as processes, and one of them in trouble.

use crate::{MS, SECOND, operation, seeded, world::refusing};
use bytes::Bytes;
use calculator::{
    client::{Settings, Stack, stack},
    pb::{Number, calculator_client::CalculatorClient},
};
use cinchona::{
    balance::{Balance, Options, Picker},
    core::{BoxError, Target},
    retry::{Attempt, Backoff, Ledger, RetryPolicy},
};
use outside::Server;
use std::time::Duration;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tonic::{
    Code, Extensions, Status,
    body::Body,
    client::GrpcService,
    transport::{Channel, Endpoint},
};

/// Between the starts of two calls: 300 a second.
const PACE: Duration = Duration::from_micros(3333);

pub(super) type Client = CalculatorClient<Stack<Balance>>;

/// A call: when it was to begin, how long after that it ended, and how.
pub(super) struct Seen {
    pub(super) at: Duration,
    pub(super) took: Duration,
    pub(super) answer: Result<Extensions, Status>,
}

pub(super) fn servers() -> Vec<Server> {
    (0..3).map(|_| Server::start(&[])).collect()
}

pub(super) fn targets<'a>(addrs: impl IntoIterator<Item = &'a String>) -> Vec<Target> {
    let target = |addr: &String| format!("http://{addr}").parse::<http::Uri>().unwrap().into();
    addrs.into_iter().map(target).collect()
}

/// An attempt may take long where no server is to hang: a machine that stands still for a while is
/// not what is tested.
pub(super) fn client(targets: Vec<Target>, max_retries: u32, timeout: Duration) -> Client {
    let layers = settings(max_retries, timeout).layers().unwrap();
    let balance = Balance::new(targets, Options::default()).unwrap();
    CalculatorClient::new(stack(balance, &layers))
}

fn settings(max_retries: u32, timeout: Duration) -> Settings {
    let backoff = Backoff::new(10 * MS, 2.0, SECOND).unwrap();
    let retry = RetryPolicy::default()
        .with_codes([Code::Unavailable, Code::DeadlineExceeded])
        .unwrap()
        .with_max_retries(max_retries)
        .with_backoff(backoff);
    Settings { timeout, retry, ..seeded() }
}

/// As many calls as begin in `time`, each at its time whatever becomes of the others.
pub(super) async fn load<C>(client: &CalculatorClient<C>, time: Duration) -> Vec<Seen>
where
    C: GrpcService<Body, Future: Send, Error: Into<BoxError>> + Clone + Send + 'static,
    C::ResponseBody: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static,
{
    let began = Instant::now();
    let mut calls = JoinSet::new();
    let mut at = Duration::ZERO;
    while at < time {
        let mut client = client.clone();
        calls.spawn(async move {
            sleep_until(began + at).await;
            let answer = client.add(operation(1.0, 2.0)).await.map(|answer| answer.into_parts().2);
            Seen { at, took: Instant::now() - (began + at), answer }
        });
        at += PACE;
    }
    calls.join_all().await
}

/// tonic's own, without retries and timeouts: it has none.
fn theirs<'a>(addrs: impl IntoIterator<Item = &'a String>) -> CalculatorClient<Channel> {
    let endpoint = |addr| Endpoint::from_shared(format!("http://{addr}")).unwrap();
    CalculatorClient::new(Channel::balance_list(addrs.into_iter().map(endpoint)))
}

pub(super) fn failed(seen: &[Seen]) -> usize {
    seen.iter().filter(|call| call.answer.is_err()).count()
}

/// Without retries those are lost that were in flight to a server that was killed a second after
/// the first call: few, or more where the machine stood still just then; but none that began later.
pub(super) fn none_is_lost_once_it_is_known(seen: &[Seen]) {
    let late = |call: &&Seen| call.at >= 2 * SECOND && call.answer.is_err();
    let late: Vec<_> = seen.iter().filter(late).map(|call| (call.at, &call.answer)).collect();
    assert!(late.is_empty(), "{late:#?}");
}

fn p99(seen: &[Seen], from: Duration) -> Duration {
    let mut took: Vec<_> =
        seen.iter().filter(|call| call.at >= from).map(|call| call.took).collect();
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

impl Seen {
    /// Whether an attempt at this server failed, and another was made.
    fn has_tried(&self, addr: &str) -> bool {
        let ledger = self.answer.as_ref().ok().and_then(|extensions| extensions.get::<Ledger>());
        let at_it = |attempt: &Attempt| {
            attempt.endpoint.as_ref().is_some_and(|endpoint| endpoint.contains(addr))
        };
        ledger.is_some_and(|ledger| ledger.attempts().iter().any(at_it))
    }
}

// real clock: the servers are processes.
#[tokio::test]
async fn a_server_that_is_killed_and_started_again_costs_no_call() {
    for max_retries in [3, 0] {
        let mut servers = servers();
        let client =
            client(targets(servers.iter().map(|server| &server.addr)), max_retries, 10 * SECOND);
        sleep(SECOND / 2).await;
        let theirs = theirs(servers.iter().map(|server| &server.addr));
        let (time, theirs) = (4 * SECOND, load(&theirs, 4 * SECOND));
        let (seen, theirs, ()) = tokio::join!(load(&client, time), theirs, async {
            sleep(SECOND).await;
            let addr = servers.remove(1).addr.clone();
            sleep(SECOND).await;
            servers.push(Server::on(&addr, &[]));
        });
        println!("{max_retries} retries: {} of {} failed", failed(&seen), seen.len());
        println!("tonic's balancer: {} failed", failed(&theirs));
        assert!(max_retries == 0 || failed(&seen) == 0, "{} of {}", failed(&seen), seen.len());
        none_is_lost_once_it_is_known(&seen);
    }
}

/// One of three servers is stopped after a second. Retries have no budget: what is asked is whether
/// the balancer avoids it, also where the machine is so busy that all servers seem to be stopped.
// real clock: the servers are processes.
#[tokio::test]
async fn a_server_that_is_stopped_costs_no_call_and_is_avoided_after_two_seconds() {
    let servers = servers();
    let targets = targets(servers.iter().map(|server| &server.addr));
    let layers = Settings { budget: None, ..settings(3, SECOND) }.layers().unwrap();
    let balance = Balance::new(targets, Options::default()).unwrap();
    let client = CalculatorClient::new(stack(balance, &layers));
    sleep(SECOND / 2).await;
    let theirs = theirs(servers.iter().map(|server| &server.addr));
    let theirs = load(&theirs, 6 * SECOND);
    let (seen, theirs, ()) = tokio::join!(load(&client, 6 * SECOND), theirs, async {
        sleep(SECOND).await;
        servers[1].signal("STOP");
        sleep(8 * SECOND).await;
        servers[1].signal("CONT");
    });
    let after = p99(&seen, 3 * SECOND);
    println!("stopped: {} of {} failed, p99 {after:?} from 2 s on", failed(&seen), seen.len());
    let theirs_after = p99(&theirs, 3 * SECOND);
    println!("tonic's balancer: {} failed, p99 {theirs_after:?}", failed(&theirs));
    assert_eq!(failed(&seen), 0);
    let late = || seen.iter().filter(|call| call.at >= 3 * SECOND);
    let met = late().filter(|call| call.has_tried(&servers[1].addr)).count();
    println!("from 2 s on {met} of {} met it", late().count());
    // A third of them would, without the check.
    assert!(met * 50 < late().count(), "{met} of {}", late().count());
}

// real clock: the servers are processes.
#[tokio::test]
async fn a_server_that_refuses_from_the_start_costs_no_call_where_tonics_balancer_loses_many() {
    const CALLS: u32 = 3000;
    let servers = servers();
    let mut addrs: Vec<String> = servers.iter().map(|server| server.addr.clone()).collect();
    let (refusing, _refuses) = refusing();
    addrs[2] = refusing.to_string();
    let mut ours = client(targets(&addrs), 0, 10 * SECOND);
    let mut theirs = theirs(&addrs);
    let (mut lost, mut lost_by_theirs) = (0, 0);
    for _ in 0..CALLS {
        lost += u32::from(ours.add(operation(1.0, 2.0)).await.is_err());
        lost_by_theirs += u32::from(theirs.add(operation(1.0, 2.0)).await.is_err());
    }
    println!("one of three refuses: {lost} of {CALLS} lost, {lost_by_theirs} by tonic's balancer");
    assert_eq!(lost, 0);
    assert!(lost_by_theirs > CALLS / 10, "{lost_by_theirs}");
}

// real clock: the servers are processes.
#[tokio::test]
async fn a_server_that_drains_behind_long_calls_costs_no_other_call() {
    let servers = servers();
    let settings = Settings { timeout: 60 * SECOND, ..seeded() };
    let options = Options { picker: Picker::RoundRobin, ..Options::default() };
    let targets = targets(servers.iter().map(|server| &server.addr));
    let balance = Balance::new(targets, options).unwrap();
    let client = CalculatorClient::new(stack(balance, &settings.layers().unwrap()));
    sleep(SECOND / 2).await;
    let (sender, _) = tokio::sync::broadcast::channel::<()>(1);
    let mut long = JoinSet::new();
    for _ in 0..3 {
        let (mut client, mut ends) = (client.clone(), sender.subscribe());
        let until_then = silent_until(async move { drop(ends.recv().await) });
        long.spawn(async move { client.sum(until_then).await.is_ok() });
    }
    sleep(SECOND / 5).await;
    let (seen, ()) = tokio::join!(load(&client, 3 * SECOND), async {
        sleep(SECOND).await;
        servers[1].signal("TERM");
    });
    drop(sender);
    println!("drained: {} of {} failed", failed(&seen), seen.len());
    assert_eq!(failed(&seen), 0);
    assert_eq!(long.join_all().await, [true; 3], "the calls it had were ended");
}

/// No numbers, until `ends`.
fn silent_until(
    ends: impl Future<Output = ()> + Send + 'static,
) -> impl tokio_stream::Stream<Item = Number> + Send + 'static {
    let (sender, numbers) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        ends.await;
        drop(sender);
    });
    tokio_stream::wrappers::ReceiverStream::new(numbers)
}
