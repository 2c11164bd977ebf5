//! nginx between our client and our servers: a second opinion on HTTP/2, and on balancing.

use crate::{
    MS, SECOND,
    failover::{
        Client, Seen, client, failed, load, none_is_lost_once_it_is_known, servers, targets,
    },
    ok, operation, seeded,
};
use calculator::{
    client::{self, Settings, stack},
    pb::{CounterRequest, RangeRequest, Result as Value, calculator_client::CalculatorClient},
};
use cinchona::{
    balance::{Balance, Options},
    core::Verdict,
    retry::{Attempt, Ledger, RetryPolicy},
};
use cinchona_testkit::{Answer, Network, ScriptedServer};
use outside::{Server, needed};
use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_stream::StreamExt;
use tonic::{Code, Request, Status, transport::Endpoint};

/// An nginx on a port of its own, with its files in a directory of its own, which is killed when it
/// is dropped.
struct Nginx {
    process: Child,
    addr: String,
    dir: TempDir,
}

impl Nginx {
    /// One that passes each call to one of `upstreams`.
    async fn start(upstreams: &[String]) -> Self {
        Self::limited(1_000_000, upstreams).await
    }

    /// One that sends a client away after so many `calls`; nginx's default is 1,000.
    async fn limited(calls: u32, upstreams: &[String]) -> Self {
        let program = needed("nginx", "nginx-light");
        let version = version(&program);
        let dir = tempfile::tempdir().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let addr = free.to_string();
        fs::write(dir.path().join("nginx.conf"), config(version, &addr, calls, upstreams)).unwrap();
        let process =
            Command::new(program).arg("-p").arg(dir.path()).args(["-c", "nginx.conf"]).spawn();
        let mut nginx = Self { process: process.unwrap(), addr, dir };
        nginx.accepts().await;
        nginx
    }

    async fn accepts(&mut self) {
        for _ in 0..1000 {
            if TcpStream::connect(&self.addr).is_ok() {
                return;
            }
            if self.process.try_wait().unwrap().is_some() {
                break;
            }
            sleep(10 * MS).await;
        }
        panic!("nginx does not start: {:?}", fs::read_to_string(self.dir.path().join("error.log")));
    }

    fn client(&self, max_retries: u32) -> Client {
        client(targets([&self.addr]), max_retries, 10 * SECOND)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

fn version(nginx: &Path) -> (u32, u32, u32) {
    let said = Command::new(nginx).arg("-v").output().unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    let version = said.trim().split_once("nginx/").unwrap().1.split_whitespace().next().unwrap();
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next(), next())
}

/// One process, so that none is left when it is killed. As by default, what was sent to a server
/// that failed is not sent to another, since a POST may have had an effect.
fn config(version: (u32, u32, u32), addr: &str, calls: u32, upstreams: &[String]) -> String {
    let servers: String = upstreams.iter().map(|addr| format!("server {addr}; ")).collect();
    let (of_listen, of_server) =
        if version < (1, 25, 1) { (" http2", "") } else { ("", "http2 on;") };
    let temp = |kind| format!("{kind}_temp_path {kind}; ");
    let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(temp).concat();
    format!(
        "daemon off; master_process off; pid nginx.pid; error_log error.log;
        events {{ worker_connections 1024; }}
        http {{
            access_log off; {temp}
            upstream calculators {{ {servers} keepalive 64; }}
            server {{
                listen {addr}{of_listen}; {of_server}
                keepalive_requests {calls}; client_max_body_size 0;
                location / {{
                    grpc_pass grpc://calculators;
                    grpc_connect_timeout 1s;
                    grpc_next_upstream error timeout;
                }}
            }}
        }}"
    )
}

/// The time within which this percentage of the calls ended.
fn percentile(seen: &[Seen], percent: usize) -> Duration {
    let mut took: Vec<_> = seen.iter().map(|call| call.took).collect();
    took.sort_unstable();
    took[took.len() * percent / 100]
}

fn report(what: &str, seen: &[Seen]) {
    let (p50, p99) = (percentile(seen, 50), percentile(seen, 99));
    println!(
        "{what:<24} {:>3} of {} failed, p50 {p50:.1?}, p99 {p99:.1?}",
        failed(seen),
        seen.len()
    );
}

/// Increments the counter by the call `key`: what it is then, and whether the call was known.
async fn increment(mut client: Client, key: &'static str) -> (i32, bool) {
    let mut request = Request::new(CounterRequest::default());
    request.metadata_mut().insert("idempotency-key", key.parse().unwrap());
    let counted = client.increment_counter(request).await.unwrap().into_inner();
    (counted.value, counted.was_duplicate)
}

/// What the client gets for requests of each kind.
async fn answers(mut client: Client) -> Vec<Result<Vec<f64>, (Code, String)>> {
    let unary = |outcome: Result<tonic::Response<Value>, Status>| {
        let refused = |status: Status| (status.code(), status.message().to_owned());
        outcome.map(|response| vec![response.into_inner().value]).map_err(refused)
    };
    let range = RangeRequest { first: 1.0, last: 3.0, step: None };
    let streamed = client.range(range).await.unwrap().into_inner();
    vec![
        unary(client.add(operation(10.0, 5.0)).await),
        unary(client.divide(operation(10.0, 0.0)).await),
        Ok(streamed.map(|value| value.unwrap().value).collect().await),
    ]
}

#[tokio::test]
#[ignore = "needs nginx"]
async fn through_nginx_the_client_works_as_it_does_without() {
    let server = Server::start(&[]);
    let nginx = Nginx::start(std::slice::from_ref(&server.addr)).await;
    let (direct, through) = (client(targets([&server.addr]), 0, 10 * SECOND), nginx.client(0));
    assert_eq!(answers(direct.clone()).await, answers(through.clone()).await);
    assert_eq!(increment(direct.clone(), "a").await, (1, false));
    assert_eq!(increment(through.clone(), "a").await, (1, true));
    assert_eq!(increment(through.clone(), "b").await, (2, false));
    assert_eq!(increment(through, "b").await, (2, true));
    assert_eq!(increment(direct, "b").await, (2, true));
}

/// A server behind nginx that answers by `script`, and a client in front of it.
async fn scripted_behind_nginx(
    script: impl IntoIterator<Item = Answer>,
    max_retries: u32,
) -> (ScriptedServer, Client, Nginx) {
    let (server, network) = (ScriptedServer::new(script), Network::new());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nginx = Nginx::start(&[listener.local_addr().unwrap().to_string()]).await;
    let serving = network.serve_service(server.clone());
    tokio::spawn(async move {
        let _serving = serving;
        while let Ok((mut outside, _)) = listener.accept().await {
            let mut inside = network.connect().await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut outside, &mut inside).await });
        }
    });
    let client = client(targets([&nginx.addr]), max_retries, SECOND);
    (server, client, nginx)
}

// real clock: nginx is a process.
#[tokio::test]
#[ignore = "needs nginx"]
async fn what_client_and_server_tell_each_other_of_retries_passes_through_nginx() {
    let mut busy = Status::unavailable("busy");
    busy.metadata_mut().insert("grpc-retry-pushback-ms", "300".parse().unwrap());
    let late = Answer::HeadersThenStatus(Status::unavailable("late"));
    let script = [Answer::Status(busy), ok(3.0), late, Answer::Hang];
    let (server, mut client, _nginx) = scripted_behind_nginx(script, 1).await;
    let mut request = tonic::Request::new(operation(1.0, 2.0));
    request.metadata_mut().insert("x-request-id", "r-1".parse().unwrap());
    client.add(request).await.unwrap();
    let received = server.received();
    assert_eq!(received.len(), 2);
    assert!(received[1].at - received[0].at >= 300 * MS, "the server's wait, not the client's");
    assert_eq!(received[1].headers["grpc-previous-rpc-attempts"], "1");
    let (first, second) = (&received[0].headers, &received[1].headers);
    assert!(first.contains_key("grpc-timeout") && second.contains_key("grpc-timeout"));
    assert!([first, second].iter().all(|headers| headers["x-request-id"] == "r-1"));

    // What had begun is not begun again.
    let status = client.add(operation(1.0, 2.0)).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "late"));
    assert_eq!(server.attempts(), 3);

    // What is given up here is given up there.
    let status = client.add(operation(1.0, 2.0)).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    while server.dropped() < 2 {
        sleep(10 * MS).await;
    }
    assert_eq!((server.attempts(), server.dropped()), (5, 2));
}

// real clock: the servers are processes.
#[tokio::test]
#[ignore = "needs nginx"]
async fn nginx_sends_the_client_away_after_each_thousand_calls_and_none_is_lost() {
    let server = Server::start(&[]);
    let upstreams = std::slice::from_ref(&server.addr);
    let nginx = Nginx::limited(1000, upstreams).await;
    let endpoint = Endpoint::from_shared(format!("http://{}", nginx.addr)).unwrap();
    let settings = Settings { timeout: 10 * SECOND, retry: RetryPolicy::default(), ..seeded() };
    let layers = settings.layers().unwrap();
    let one = client::client(cinchona::balance::of_endpoint(endpoint), &layers);
    let add = move || {
        let mut client = one.clone();
        async move { client.add(operation(1.0, 2.0)).await }
    };
    println!("one endpoint: {} of 5000 calls sent again", sent_again(add).await);
    let balance = Balance::new(targets([&nginx.addr]), Options::default()).unwrap();
    let balanced = CalculatorClient::new(stack(balance, &layers));
    let add = move || {
        let mut client = balanced.clone();
        async move { client.add(operation(1.0, 2.0)).await }
    };
    println!("balanced: {} of 5000 calls sent again", sent_again(add).await);
}

/// How many of 5,000 calls by 50 callers were sent again; none fails.
async fn sent_again<F>(add: impl Fn() -> F + Clone + Send + 'static) -> usize
where
    F: Future<Output = Result<tonic::Response<Value>, Status>> + Send,
{
    let mut calls = JoinSet::new();
    for _ in 0..50 {
        let add = add.clone();
        calls.spawn(async move {
            let mut again = 0;
            for _ in 0..100 {
                let response = add().await.unwrap();
                let ledger = response.extensions().get::<Ledger>();
                let attempts = ledger.map_or(&[][..], Ledger::attempts);
                let unprocessed = |a: &&Attempt| matches!(a.verdict, Verdict::NotProcessed(_));
                again += attempts.iter().filter(unprocessed).count();
            }
            again
        });
    }
    calls.join_all().await.into_iter().sum()
}

/// Load on three servers, one of which is killed after a second.
async fn one_is_killed(mut servers: Vec<Server>, by_nginx: bool, max_retries: u32) -> Vec<Seen> {
    let addrs: Vec<String> = servers.iter().map(|server| server.addr.clone()).collect();
    let nginx = if by_nginx { Some(Nginx::start(&addrs).await) } else { None };
    let native = || client(targets(&addrs), max_retries, 10 * SECOND);
    let client = nginx.as_ref().map_or_else(native, |nginx| nginx.client(max_retries));
    sleep(SECOND / 2).await;
    let (seen, ()) = tokio::join!(load(&client, 4 * SECOND), async {
        sleep(SECOND).await;
        drop(servers.remove(1));
    });
    seen
}

// real clock: the servers are processes.
#[tokio::test]
#[ignore = "needs nginx"]
async fn a_server_killed_behind_nginx_and_behind_the_balancer() {
    let nginx = one_is_killed(servers(), true, 0).await;
    report("nginx, no retries", &nginx);
    let native = one_is_killed(servers(), false, 0).await;
    report("native, no retries", &native);
    // Ten calls are in flight at the server when it is killed.
    let slow = || Server::start(&["--slow-rate", "1", "--slow-delay", "100ms"]);
    let slow = || vec![slow(), slow(), slow()];
    for (what, by_nginx, max_retries) in [
        ("nginx, slow, no retries", true, 0),
        ("native, slow, no retries", false, 0),
        ("nginx, slow, 3 retries", true, 3),
    ] {
        let seen = one_is_killed(slow(), by_nginx, max_retries).await;
        report(what, &seen);
        assert!(max_retries == 0 || failed(&seen) == 0, "{what}: {}", failed(&seen));
    }
    none_is_lost_once_it_is_known(&native);
}

#[tokio::test]
#[ignore = "needs nginx"]
async fn what_nginx_adds_to_the_latency() {
    let servers = servers();
    let addrs: Vec<String> = servers.iter().map(|server| server.addr.clone()).collect();
    let nginx = Nginx::start(&addrs).await;
    let mut ways =
        [("through nginx", nginx.client(0)), ("native", client(targets(&addrs), 0, 10 * SECOND))]
            .map(|(name, client)| (name, client, Vec::new()));
    let began = Instant::now();
    for _ in 0..1000 {
        for (_, client, seen) in &mut ways {
            let at = Instant::now();
            let answer = client.add(operation(1.0, 2.0)).await.map(|answer| answer.into_parts().2);
            seen.push(Seen { at: at - began, took: Instant::now() - at, answer });
        }
    }
    for (name, _, seen) in ways {
        report(name, &seen);
        assert_eq!(failed(&seen), 0);
    }
}
