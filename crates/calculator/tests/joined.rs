//! The programs in a cluster, as processes on loopback sockets.

use crate::programs::{Server, ask};
use std::{thread, time::Duration};
use tokio::time::Instant;

/// Three that know each other, and the gossip address of the first.
fn cluster() -> (Vec<Server>, String) {
    let first = Server::start(&["--gossip", "127.0.0.1:0", "--node-id", "n1"]);
    let seed = first.says("gossip on ");
    let tags = "role=worker,capacity=64,zone=a";
    let second = Server::start(&["--join", &seed, "--node-id", "n2", "--tags", tags]);
    let other = ["--join", &seed, "--node-id", "n3", "--tags", "role=other"];
    (vec![first, second, Server::start(&other)], seed)
}

// real clock: the servers are processes.
#[test]
fn a_client_finds_the_workers_of_its_role_through_any_node() {
    let (servers, seed) = cluster();
    let (code, out, err) = ask(&["nodes", "--cluster", &seed]);
    assert_eq!(code, Some(0), "{err}");
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("node  address"), "{out}");
    for (line, node) in lines[1..].iter().zip(["n1", "n2", "n3"]) {
        assert!(line.starts_with(node) && line.contains("alive"), "{out}");
    }
    assert!(lines[2].contains("capacity=64,role=worker,zone=a"), "{out}");
    assert!(out.contains("3 nodes: 3 healthy (100 %)"), "{out}");

    let (code, out, _) = ask(&["add", "10", "5", "--cluster", &seed]);
    assert_eq!((code, out.as_str()), (Some(0), "15\n"));
    // The counter is each server's own: so it was the one of this role.
    let (code, out, _) = ask(&["increment", "7", "--cluster", &seed, "--role", "other"]);
    assert_eq!((code, out.as_str()), (Some(0), "7\n"));
    let (_, out, _) = ask(&["counter", "--addr", &servers[2].addr]);
    assert_eq!(out, "7\n");

    let (code, _, err) = ask(&["add", "1", "2", "--cluster", &seed, "--role", "none"]);
    assert!(code == Some(1) && err.contains("heard of no node with role=none"), "{err}");
    let (code, _, err) = ask(&["add", "1", "2", "--cluster", &seed, "--cluster-id", "another"]);
    assert!(code == Some(1) && err.contains("heard of no node"), "{err}");
}

// real clock: the servers are processes.
#[test]
fn where_one_of_two_is_left_nothing_is_written() {
    let (mut servers, seed) = cluster();
    let set = |addr: &str| ask(&["set", "a", "1", "--addr", addr, "--max-retries", "0"]);
    let addr = servers[0].addr.clone();
    let within = |seconds: u32, mut is_so: Box<dyn FnMut() -> bool + '_>| {
        let began = Instant::now();
        while !is_so() {
            assert!(Instant::now() - began < seconds * Duration::from_secs(1));
            thread::park_timeout(Duration::from_millis(100));
        }
    };
    within(20, Box::new(|| ask(&["nodes", "--cluster", &seed]).1.contains("3 healthy")));
    within(20, Box::new(|| set(&addr).0 == Some(0)));
    servers.truncate(1);
    let mut refused = String::new();
    within(
        20,
        Box::new(|| {
            let (code, _, err) = set(&addr);
            refused = err;
            code == Some(1)
        }),
    );
    assert!(refused.contains("UNAVAILABLE: read-only: 1 of 3 nodes are reachable"), "{refused}");
    let (code, out, _) = ask(&["get", "a", "--addr", &addr]);
    assert_eq!((code, out.as_str()), (Some(0), "1\n"), "what was written is read");
}
