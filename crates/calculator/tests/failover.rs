//! Three servers, as processes, and one of them in trouble.

use super::*;
use crate::programs::Server;
use bytes::Bytes;
use calculator::client::{Layers, Stack, stack};
use cinchona::core::BoxError;
use cinchona::{
    balance::{Balance, Options, Picker},
    core::Target,
    retry::Backoff,
};
use std::net::TcpListener;
use tokio::{
    task::JoinSet,
    time::{sleep, sleep_until},
};
use tonic::{client::GrpcService, transport::Channel};

pub(super) const MS: Duration = Duration::from_millis(1);
/// Between the starts of two calls: 300 a second.
const PACE: Duration = Duration::from_micros(3333);

pub(super) type Client = CalculatorClient<Stack<Balance>>;

/// A call: when it began, how long it took, and whether it failed.
pub(super) type Seen = (Duration, Duration, bool);

pub(super) fn servers() -> Vec<Server> {
    (0..3).map(|_| Server::start(&[])).collect()
}

pub(super) fn targets<'a>(addrs: impl IntoIterator<Item = &'a String>) -> Vec<Target> {
    let target = |addr: &String| format!("http://{addr}").parse::<http::Uri>().unwrap().into();
    addrs.into_iter().map(target).collect()
}

pub(super) fn client(targets: Vec<Target>, max_retries: u32) -> Client {
    let backoff = Backoff::new(10 * MS, 2.0, SECOND).unwrap();
    let retry = RetryPolicy::default()
        .with_codes([Code::Unavailable, Code::DeadlineExceeded])
        .unwrap()
        .with_max_retries(max_retries)
        .with_backoff(backoff);
    let layers = Layers::from(Settings { timeout: SECOND, retry, ..seeded() });
    let balance = Balance::new(targets, Options::default()).unwrap();
    CalculatorClient::new(stack(balance, &layers))
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
            let failed = client.add(operation(1.0, 2.0)).await.is_err();
            (at, Instant::now() - (began + at), failed)
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
    seen.iter().filter(|(.., failed)| *failed).count()
}

fn p99(seen: &[Seen], from: Duration) -> Duration {
    let mut took: Vec<_> =
        seen.iter().filter(|(at, ..)| *at >= from).map(|(_, took, _)| *took).collect();
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

// real clock: the servers are processes.
#[tokio::test]
async fn a_server_that_is_killed_and_started_again_costs_no_call() {
    for max_retries in [3, 0] {
        let mut servers = servers();
        let client = client(targets(servers.iter().map(|server| &server.addr)), max_retries);
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
        // Without retries those are lost that were in flight on the connection: one or none, or
        // more where the machine is busy with something else.
        let allowed = if max_retries == 0 { 20 } else { 0 };
        assert!(failed(&seen) <= allowed, "{} of {}", failed(&seen), seen.len());
    }
}

// real clock: the servers are processes.
#[tokio::test]
async fn a_server_that_is_stopped_costs_no_call_and_is_avoided_after_two_seconds() {
    let servers = servers();
    let client = client(targets(servers.iter().map(|server| &server.addr)), 3);
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
    assert!(after < SECOND, "what meets it takes longer: {after:?}");
}

// real clock: the servers are processes.
#[tokio::test]
async fn a_server_that_refuses_from_the_start_costs_no_call_where_tonics_balancer_loses_many() {
    const CALLS: u32 = 3000;
    let servers = servers();
    let mut addrs: Vec<String> = servers.iter().map(|server| server.addr.clone()).collect();
    addrs[2] = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut ours = client(targets(&addrs), 0);
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
    let client = CalculatorClient::new(stack(balance, &Layers::from(settings)));
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
