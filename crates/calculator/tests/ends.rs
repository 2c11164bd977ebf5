//! How servers end, as processes, whatever their clients do.

use crate::{SECOND, ok, operation, retrying};
use calculator::{
    client::client,
    cluster,
    pb::{
        Number, RangeRequest, SetValueRequest, calculator_client::CalculatorClient,
        store_client::StoreClient,
    },
};
use cinchona::{
    balance::{Balance, Options},
    cluster::{Cluster, Config},
    core::{PerMethod, Target},
    retry::{HedgePolicy, Policy, RetryPolicy},
};
use cinchona_testkit::{Answer, Network, ScriptedServer};
use outside::Server;
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep},
};
use tokio_stream::StreamExt;
use tonic::{Code, Status, transport::Channel};
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, health_client::HealthClient},
};

/// What the machine may add where it is busy.
const SLACK: Duration = Duration::from_secs(5);

async fn channel(addr: &str) -> Channel {
    Channel::from_shared(format!("http://{addr}")).unwrap().connect().await.unwrap()
}

async fn health(addr: &str, service: &str) -> ServingStatus {
    let request = HealthCheckRequest { service: service.to_owned() };
    let said = HealthClient::new(channel(addr).await).check(request).await.unwrap();
    match said.into_inner().status() {
        tonic_health::pb::health_check_response::ServingStatus::Serving => ServingStatus::Serving,
        _ => ServingStatus::NotServing,
    }
}

/// The statuses that a watch of its health receives, and how the watch ends.
fn watches(channel: Channel) -> JoinHandle<(Vec<i32>, Code)> {
    tokio::spawn(async move {
        let request = HealthCheckRequest { service: "calculator.Calculator".to_owned() };
        let mut says = HealthClient::new(channel).watch(request).await.unwrap().into_inner();
        let mut heard = Vec::new();
        loop {
            match says.message().await {
                Ok(Some(said)) => heard.push(said.status),
                Ok(None) => return (heard, Code::Ok),
                Err(status) => return (heard, status.code()),
            }
        }
    })
}

/// A client that sends this, and then neither sends nor reads.
fn holds(addr: &str, sends: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.write_all(sends.as_bytes()).unwrap();
    stream
}

/// A request that is answered, on a connection that stays.
fn answered(addr: &str, request: &str) -> TcpStream {
    let mut stream = holds(addr, request);
    assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
    stream
}

/// HTTP/2's preface, with SETTINGS, which the server answers.
const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const EVENTS: &str = "GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n";
const STATE: &str = "GET /api/state HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// All that could hold up a server and its page, for as long as this is kept.
fn holders(addr: &str, page: &str) -> Vec<TcpStream> {
    vec![
        holds(addr, ""),
        holds(addr, "PRI * HT"),
        holds(addr, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        answered(addr, PREFACE),
        holds(page, ""),
        holds(page, "GET /ev"),
        answered(page, EVENTS),
        answered(page, STATE),
    ]
}

/// Streams that do not end: one that the client does not read, and one that it does not go on
/// sending.
async fn streams(channel: Channel) -> (tonic::Streaming<calculator::pb::Result>, JoinHandle<Code>) {
    let mut client = CalculatorClient::new(channel);
    let all = RangeRequest { first: 0.0, last: 999_999.0, step: None };
    let unread = client.range(all).await.unwrap().into_inner();
    let sending = tokio::spawn(async move {
        let numbers = tokio_stream::iter([Number { value: 1.0 }]).chain(tokio_stream::pending());
        client.sum(numbers).await.map_or_else(|status| status.code(), |_| Code::Ok)
    });
    (unread, sending)
}

// real clock: the server is a process.
// catalogue: S-P7
#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_everything_ends_within_its_grace_whoever_holds_it_up() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("redb:{}", dir.path().join("kept.redb").display());
    let all = ["--gossip", "127.0.0.1:0", "--dashboard", "127.0.0.1:0", "--grace", "4s"];
    let delay = "method=/calculator.Calculator/Subtract delay=2500ms";
    let slow = ["--store", &store, "--fault", delay];
    let server = Server::start(&[&all[..], &slow].concat());
    server.says("gossip on ");
    let page = server.says("dashboard on ");
    let addr = server.addr.clone();

    let watching = watches(channel(&addr).await);
    let (unread, sending) = streams(channel(&addr).await).await;
    let held = holders(&addr, &page);
    let mut storing = StoreClient::new(channel(&addr).await);
    let set = SetValueRequest { request_id: "1".into(), key: "a".into(), value: "kept".into() };
    let began = Instant::now();
    // A node in a cluster refuses writes until it has a quorum, here its own.
    while let Err(refused) = storing.set_value(set.clone()).await {
        assert!(Instant::now() - began < SLACK, "{refused}");
        sleep(SECOND / 20).await;
    }
    let mut calling = CalculatorClient::new(channel(&addr).await);
    let short = tokio::spawn(async move { calling.subtract(operation(3.0, 2.0)).await });
    sleep(SECOND / 2).await;

    let began = Instant::now();
    server.signal("TERM");
    assert!(spawn_blocking(|| server.ends()).await.unwrap(), "its exit status");
    let took = Instant::now() - began;
    // One more for others in the cluster to hear it, and one for the runtime.
    assert!(took < 6 * SECOND + SLACK, "{took:?}");
    short.await.unwrap().unwrap();
    let serving = [ServingStatus::Serving, ServingStatus::NotServing].map(|is| is as i32);
    assert_eq!(watching.await.unwrap(), (serving.to_vec(), Code::Unavailable));
    assert_eq!(sending.await.unwrap(), Code::Unavailable);
    drop((held, unread));

    // What was answered is kept.
    let server = Server::start(&["--store", &store]);
    let mut reading = StoreClient::new(channel(&server.addr).await);
    let key = calculator::pb::Key { key: "a".into() };
    assert_eq!(reading.get_value(key).await.unwrap().into_inner().text, "kept");
}

// catalogue: S-P7
#[test]
fn a_signal_ends_a_server_in_order_from_the_moment_it_says_where_it_listens() {
    for n in 0..16 {
        let server = Server::start(&[]);
        server.signal("TERM");
        assert!(server.ends(), "the exit status of the {n}th");
    }
}

// real clock: the server is a process.
// catalogue: S-P7
#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_server_at_once_and_who_only_watches_holds_up_nothing() {
    for (signals, has_stream) in [(1, false), (2, true)] {
        let server = Server::start(&["--grace", "60s"]);
        let addr = server.addr.clone();
        let watching = watches(channel(&addr).await);
        let streams = if has_stream { Some(streams(channel(&addr).await).await) } else { None };
        let mut idle = CalculatorClient::new(channel(&addr).await);
        idle.add(operation(1.0, 22.0)).await.unwrap();
        sleep(SECOND / 2).await;
        let began = Instant::now();
        server.signal("TERM");
        if signals > 1 {
            sleep(SECOND / 2).await;
            server.signal("INT");
        }
        assert!(spawn_blocking(|| server.ends()).await.unwrap(), "its exit status");
        assert!(Instant::now() - began < 2 * SECOND + SLACK, "{:?}", Instant::now() - began);
        watching.await.unwrap();
        drop((streams, idle));
    }
}

async fn set(addr: &str, n: u32, length: usize) -> Result<(), Status> {
    let value = "x".repeat(length);
    let set = SetValueRequest { request_id: String::new(), key: format!("{}", n % 500), value };
    StoreClient::new(channel(addr).await).set_value(set).await.map(drop)
}

/// Waits until it says that; when it has not said so for too long, that is wrong.
async fn until(addr: &str, status: ServingStatus) {
    let began = Instant::now();
    for service in ["", "calculator.Calculator", "calculator.Store"] {
        while health(addr, service).await != status {
            assert!(Instant::now() - began < 2 * SECOND + SLACK, "{service} is not {status}");
            sleep(SECOND / 20).await;
        }
    }
}

// real clock: the server is a process.
// catalogue: S-E2
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_disk_is_full_is_not_serving_until_it_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kept.redb");
    let store = format!("redb:{}", file.display());
    let server = Server::with_errors_for_large_files(&["--store", &store]);
    let addr = server.addr.clone();
    until(&addr, ServingStatus::Serving).await;
    set(&addr, 0, 1000).await.unwrap();
    for _ in 0..2 {
        server.limits_files(&std::fs::metadata(&file).unwrap().len().to_string());
        let mut n = 0;
        while set(&addr, n, 50_000).await.is_ok() {
            n += 1;
            assert!(n < 2000, "the disk is full");
        }
        until(&addr, ServingStatus::NotServing).await;
        let sum = CalculatorClient::new(channel(&addr).await).add(operation(1.0, 2.0)).await;
        assert_eq!(sum.unwrap().into_inner().value, 3.0, "what needs no store is answered");
        server.limits_files("unlimited");
        until(&addr, ServingStatus::Serving).await;
        set(&addr, n, 50_000).await.unwrap();
    }
}

fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

// catalogue: S-P7
#[tokio::test(start_paused = true)]
async fn a_client_that_is_dropped_in_the_middle_of_anything_leaves_nothing() {
    let unavailable = || Answer::Status(Status::unavailable("busy"));
    for answer in [Some(ok(1.0)), Some(Answer::Hang), Some(unavailable()), None] {
        for hedges in [false, true] {
            let (server, network) = (ScriptedServer::new(answer.clone()), Network::new());
            let _serving = network.serve_service(server);
            network.blackhole(answer.is_none());
            sleep(SECOND).await;
            let before = tasks();
            let layers = retrying([Code::Unavailable]).layers().unwrap();
            let hedge = Policy::from(HedgePolicy::default().with_delay(SECOND / 100));
            let mut policies = PerMethod::from(Policy::from(RetryPolicy::default()));
            if hedges {
                policies.insert("calculator.Calculator", "Add", hedge).unwrap();
            }
            layers.retry.set_policies(policies).unwrap();
            let target = Target::from(http::Uri::from_static("http://server"));
            let options = Options::of_one_endpoint();
            let channel =
                Balance::with_connector(vec![target], network.connector(), options).unwrap();
            let client = client(channel, &layers);
            let calls: Vec<_> = (0..8)
                .map(|n| {
                    let mut client = client.clone();
                    tokio::spawn(async move {
                        if n % 2 == 0 {
                            return client.add(operation(1.0, 2.0)).await.map(drop);
                        }
                        let numbers = tokio_stream::pending::<Number>();
                        client.sum(numbers).await.map(drop)
                    })
                })
                .collect();
            sleep(SECOND / 2).await;
            calls.iter().for_each(JoinHandle::abort);
            drop((client, layers));
            sleep(SECOND).await;
            assert_eq!((tasks(), network.live()), (before, 0), "{answer:?}, {hedges}");
        }
    }
}

// real clock: gossip comes by sockets.
// catalogue: S-P7
#[tokio::test]
async fn a_client_in_a_cluster_that_is_dropped_leaves_nothing() {
    let before = tasks();
    let config = Config::new("dropped", "n", ([127, 0, 0, 1], 0).into());
    let node = Cluster::join(config, &[]).await.unwrap();
    let seed = node.gossip_address().to_string();
    let looking = cluster::observe("dropped", &seed, Vec::new()).await.unwrap();
    sleep(SECOND).await;
    let joined = tasks();
    let layers = retrying([]).layers().unwrap();
    let channel = cluster::endpoints(&looking, "worker", &layers, Options::default()).unwrap();
    sleep(SECOND / 2).await;
    drop(channel);
    let ends = async |left| {
        let began = Instant::now();
        while tasks() > left {
            assert!(Instant::now() - began < SECOND + SLACK, "{} tasks, and not {left}", tasks());
            sleep(SECOND / 20).await;
        }
    };
    ends(joined).await;
    drop((looking, node));
    ends(before).await;
}
