//! nginx between a bare balancer and our servers.

use super::*;
use crate::world::{Process, Server};
use outside::needed;
use std::{fs, net::SocketAddr, process::Command};
use tempfile::TempDir;
use tokio::time::sleep;

const LIMIT: Duration = Duration::from_secs(10);

/// An nginx with its files in a directory of its own.
struct Nginx {
    process: Process,
    addr: SocketAddr,
    dir: TempDir,
}

impl Nginx {
    /// One that says GOAWAY after so many calls.
    async fn before(server: SocketAddr, calls: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let addr = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let temp = |kind| format!("{kind}_temp_path {kind}; ");
        let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(temp).concat();
        let config = format!(
            "daemon off; master_process off; pid nginx.pid; error_log error.log;
            events {{ worker_connections 1024; }}
            http {{
                access_log off; {temp}
                upstream calculators {{ server {server}; keepalive 64; }}
                server {{
                    listen {addr} http2; keepalive_requests {calls}; client_max_body_size 0;
                    location / {{ grpc_pass grpc://calculators; }}
                }}
            }}"
        );
        fs::write(dir.path().join("nginx.conf"), config).unwrap();
        let mut nginx = Self { process: spawn(&dir), addr, dir };
        nginx.accepts().await;
        nginx
    }

    async fn accepts(&mut self) {
        let began = Instant::now();
        while tokio::net::TcpStream::connect(self.addr).await.is_err() {
            let is_up = self.process.is_running() && Instant::now() - began < 10 * SECOND;
            assert!(is_up, "{:?}", fs::read_to_string(self.dir.path().join("error.log")));
            sleep(10 * MS).await;
        }
    }

    /// Ends as an operator lets it end: it says GOAWAY, and serves what it has. Another begins.
    async fn restarts(&mut self) -> Instant {
        let since = Instant::now();
        self.process.signal("QUIT");
        while self.process.is_running() {
            sleep(5 * MS).await;
        }
        self.process = spawn(&self.dir);
        self.accepts().await;
        since
    }
}

fn spawn(dir: &TempDir) -> Process {
    Process::spawn(
        Command::new(needed("nginx", "nginx-light"))
            .arg("-p")
            .arg(dir.path())
            .args(["-c", "nginx.conf"]),
    )
}

// catalogue: S-E19
// real clock: nginx is a process.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nginx"]
async fn an_nginx_that_sends_its_clients_away_costs_a_bare_balancer_only_what_was_in_flight() {
    let server = Server::start(&[]);
    let nginx = Nginx::before(server.addr, 100).await;
    let balance = bare(vec![target(nginx.addr)]);
    let mut calls = JoinSet::new();
    for _ in 0..8 {
        let balance = balance.clone();
        calls.spawn(async move {
            let mut failures = Vec::new();
            for _ in 0..500 {
                failures.extend(add(balance.clone(), LIMIT).await.err());
            }
            failures
        });
    }
    let failures = calls.join_all().await.concat();
    println!("GOAWAY after each 100 calls: {} of 4000 failed", failures.len());
    // What is sent after the GOAWAY and before it has come is refused, and is for the retry layer.
    let other = failures.iter().find(|status| status.code() != Code::Unavailable);
    assert!(other.is_none(), "{other:?}");
    assert!(failures.len() <= 8 * 40, "{:?}", failures.first());
}

// catalogue: S-E19
// real clock: nginx is a process.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nginx"]
async fn an_nginx_that_is_started_again_costs_a_bare_balancer_only_what_was_in_flight() {
    let server = Server::start(&[]);
    let mut nginx = Nginx::before(server.addr, 1_000_000).await;
    let balance = bare(vec![target(nginx.addr)]);
    let (seen, since) = tokio::join!(load(&balance, 5 * SECOND, 10 * MS, LIMIT), async {
        sleep(SECOND).await;
        nginx.restarts().await
    });
    println!(
        "restarted: {} of {} failed, the longest took {:?}",
        failed(&seen).len(),
        seen.len(),
        longest(&seen)
    );
    // The signal, and the GOAWAY that it makes, take their time.
    let last = last_failed(&seen, since).unwrap_or_default();
    assert!(last <= SECOND / 4, "{last:?}: {:?}", failed(&seen).last());
}
