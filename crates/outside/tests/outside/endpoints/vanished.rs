//! Peers that have vanished: packets to them are lost without an error.

use super::*;
use crate::world::{Server, is_alone, run};
use calculator::client::{Settings, Stack, stack};
use cinchona::{
    balance::{Picker, of_endpoint},
    retry::RetryPolicy,
};
use std::{
    fs,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicUsize, atomic::Ordering},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};
use tonic::transport::Endpoint;

/// The stack at its defaults, with an attempt of 2 s, but without retries: calls alone.
fn alone(channel: Balance) -> Stack<Balance> {
    let retry = RetryPolicy::default().with_max_retries(0);
    stack(channel, &Settings { retry, ..Settings::default() }.layers().unwrap())
}

/// The attempt timeout and a second, and what a busy machine adds.
const LATEST: Duration = Duration::from_millis(2000 + 1000 + 500);

fn one(server: SocketAddr) -> [(&'static str, Balance); 2] {
    let endpoint = Endpoint::from_shared(format!("http://{server}")).unwrap();
    [("of_endpoint", of_endpoint(endpoint)), ("Balance::new", bare(vec![target(server)]))]
}

/// Under `load` for 8 s, with `vanish` after two: how long after that the last call began that
/// failed, if any did.
async fn left_after(channel: Balance, vanish: impl FnOnce()) -> Option<Duration> {
    let channel = alone(channel);
    let (seen, since) = tokio::join!(load(&channel, 8 * SECOND, 20 * MS, Duration::MAX), async {
        sleep(2 * SECOND).await;
        vanish();
        Instant::now()
    });
    let before: Vec<_> =
        seen.iter().filter(|call| call.at + call.took < since && call.failure.is_some()).collect();
    assert!(before.is_empty(), "{before:?}");
    last_failed(&seen, since)
}

/// Drops what belongs to the connections to `port` that there are now; a new one works.
fn drop_established(port: u16) {
    let table = fs::read_to_string("/proc/self/net/tcp").unwrap();
    let port_of = |place: &str| u16::from_str_radix(place.rsplit(':').next().unwrap(), 16).unwrap();
    for row in table.lines().skip(1) {
        let fields: Vec<&str> = row.split_whitespace().collect();
        let (local, remote, state) = (port_of(fields[1]), port_of(fields[2]), fields[3]);
        if remote == port && state == "01" {
            for (from, to) in [(local, port), (port, local)] {
                let ports = ["--sport", &from.to_string(), "--dport", &to.to_string()];
                let rule = ["-A", "INPUT", "-p", "tcp"];
                run("iptables", &[&rule[..], &ports, &["-j", "DROP"]].concat());
            }
        }
    }
}

// catalogue: S-B5
// real clock: the network is the kernel's.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs network namespaces"]
async fn a_connection_that_has_vanished_is_left_by_calls_alone_over_one_endpoint() {
    let name = "a_connection_that_has_vanished_is_left_by_calls_alone_over_one_endpoint";
    if !is_alone(name) {
        return;
    }
    for n in 0..2 {
        let server = Server::start(&[]);
        let (what, channel) = one(server.addr).into_iter().nth(n).unwrap();
        let left = left_after(channel, || drop_established(server.addr.port())).await;
        println!("{what}: the last call that failed began {left:?} after the connection vanished");
        let left = left.expect("calls in flight are lost");
        assert!(left <= LATEST, "{what}: {left:?}");
    }
}

// catalogue: S-B5
// real clock: the network is the kernel's.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs network namespaces"]
async fn one_call_after_another_leaves_a_connection_that_has_vanished() {
    let name = "one_call_after_another_leaves_a_connection_that_has_vanished";
    if !is_alone(name) {
        return;
    }
    for n in 0..2 {
        let server = Server::start(&[]);
        let (what, channel) = one(server.addr).into_iter().nth(n).unwrap();
        let channel = alone(channel);
        add(channel.clone(), Duration::MAX).await.unwrap();
        sleep(2 * SECOND).await;
        drop_established(server.addr.port());
        let (since, mut last) = (Instant::now(), Duration::ZERO);
        loop {
            let begun = Instant::now() - since;
            if add(channel.clone(), Duration::MAX).await.is_ok() {
                break;
            }
            last = begun;
            assert!(last <= LATEST, "{what}: it is not left");
        }
        let took = Instant::now() - since;
        assert!(took <= LATEST, "{what}: {took:?}");
        println!(
            "{what}: the last call that failed began {last:?} later, one succeeded at {took:?}"
        );
    }
}

// catalogue: S-B5
// real clock: the network is the kernel's.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs network namespaces"]
async fn a_host_that_has_vanished_is_left_by_calls_alone_over_several() {
    let name = "a_host_that_has_vanished_is_left_by_calls_alone_over_several";
    if !is_alone(name) {
        return;
    }
    let addresses = ["127.0.0.2:50051", "127.0.0.3:50051", "127.0.0.4:50051"];
    let _servers = addresses.map(|address| Server::on(address, &[]));
    for picker in [
        Picker::PeakEwma,
        Picker::LeastRequest,
        Picker::Random,
        Picker::RoundRobin,
        Picker::WeightedRoundRobin,
        Picker::PickFirst,
    ] {
        let options = Options { picker, ..Options::default() };
        let channel = Balance::new(addresses.map(target).to_vec(), options).unwrap();
        add(channel.clone(), SECOND).await.unwrap();
        // Where only one is used, that is the first.
        let left = left_after(channel.clone(), || {
            for side in ["-s", "-d"] {
                run("iptables", &["-A", "INPUT", side, "127.0.0.2", "-j", "DROP"]);
            }
        });
        let left = left.await;
        println!("{picker:?}: the last call that failed began {left:?} after the host vanished");
        assert!(left.unwrap_or_default() <= LATEST, "{picker:?}: {left:?}");
        run("iptables", &["-F"]);
        if picker != Picker::PickFirst {
            until_all_are_ready(&channel).await;
        }
    }
}

async fn until_all_are_ready(channel: &Balance) {
    let since = Instant::now();
    let is_ready =
        |endpoint: &cinchona::balance::Snapshot| endpoint.state == cinchona::balance::State::Ready;
    while !channel.states().iter().all(is_ready) {
        assert!(Instant::now() - since < 30 * SECOND, "{:?}", channel.states());
        sleep(50 * MS).await;
    }
    println!("  it is back after {:?}", Instant::now() - since);
}

/// Passes connections on to `server` until it freezes the present ones at a signal: what comes
/// on them is still acknowledged, so that the kernel finds nothing wrong.
struct Proxy {
    addr: SocketAddr,
    frozen: watch::Sender<usize>,
    connections: Arc<AtomicUsize>,
}

impl Proxy {
    async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (frozen, freezes) = watch::channel(0);
        let connections = Arc::<AtomicUsize>::default();
        let count = connections.clone();
        tokio::spawn(async move {
            while let Ok((mut outside, _)) = listener.accept().await {
                let n = count.fetch_add(1, Ordering::Relaxed);
                let mut freezes = freezes.clone();
                tokio::spawn(async move {
                    let mut inside = TcpStream::connect(server).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut outside, &mut inside) => return,
                        _ = freezes.wait_for(|frozen| *frozen > n) => {}
                    }
                    sleep(600 * SECOND).await;
                    drop((outside, inside));
                });
            }
        });
        Self { addr, frozen, connections }
    }

    fn freeze(&self) {
        self.frozen.send_replace(self.connections.load(Ordering::Relaxed));
    }
}

// catalogue: S-B5
// real clock: the server is a process.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a minute"]
async fn a_connection_that_is_frozen_behind_a_proxy_is_left_by_calls_alone() {
    for n in 0..2 {
        let server = Server::start(&[]);
        let proxy = Proxy::to(server.addr).await;
        let (what, channel) = one(proxy.addr).into_iter().nth(n).unwrap();
        let left = left_after(channel, || proxy.freeze()).await;
        let connections = proxy.connections.load(Ordering::Relaxed);
        println!(
            "{what}: the last call that failed began {left:?} later; {connections} connections"
        );
        let left = left.expect("calls in flight are lost");
        assert!(left <= LATEST, "{what}: {left:?}");
        // One is made anew. Where the machine stalls, a connection is silent as well, and the
        // balancer tries whether another can be made before it leaves it.
        assert!((2..=3).contains(&connections), "{what}: {connections}");
    }
}
