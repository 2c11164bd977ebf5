//! The programs in a cluster, as processes on loopback sockets.

use outside::{Server, ask};
use std::{fs, process::Command, thread, time::Duration};
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

    let [any, other, none, another] = at_once([
        &["add", "10", "5", "--cluster", &seed],
        &["increment", "7", "--cluster", &seed, "--role", "other"],
        &["add", "1", "2", "--cluster", &seed, "--role", "none"],
        &["add", "1", "2", "--cluster", &seed, "--cluster-id", "another"],
    ]);
    assert_eq!((any.0, any.1.as_str()), (Some(0), "15\n"));
    assert_eq!((other.0, other.1.as_str()), (Some(0), "7\n"));
    // The counter is each server's own: so it was the one of this role.
    let (_, out, _) = ask(&["counter", "--addr", &servers[2].addr]);
    assert_eq!(out, "7\n");
    assert!(none.0 == Some(1) && none.2.contains("heard of no node with role=none"), "{none:?}");
    assert!(another.0 == Some(1) && another.2.contains("heard of no node"), "{another:?}");
}

// real clock: the servers are processes.
#[test]
fn where_one_of_two_is_left_nothing_is_written() {
    let (mut servers, seed) = cluster();
    let set = |addr: &str| ask(&["set", "a", "1", "--addr", addr, "--max-retries", "0"]);
    let addr = servers[0].addr.clone();
    within_20_s(|| ask(&["nodes", "--cluster", &seed]).1.contains("3 healthy"));
    within_20_s(|| set(&addr).0 == Some(0));
    servers.truncate(1);
    let mut refused = String::new();
    within_20_s(|| {
        let (code, _, err) = set(&addr);
        refused = err;
        code == Some(1)
    });
    assert!(refused.contains("UNAVAILABLE: read-only: 1 of 3 nodes are reachable"), "{refused}");
    let (code, out, _) = ask(&["get", "a", "--addr", &addr]);
    assert_eq!((code, out.as_str()), (Some(0), "1\n"), "what was written is read");

    // What an operator can do about it: the refusal says who is missing.
    assert!(refused.contains("n2") && refused.contains("n3"), "{refused}");
    let forget = ["n1", "n9", "n2", "n3"].map(|node| ["forget", node, "--cluster", &seed]);
    let [alive, unknown, second, third] = at_once(forget.each_ref().map(|args| &args[..]));
    assert!(alive.0 == Some(1) && alive.2.contains("n1: is alive"), "{alive:?}");
    let is_unknown = unknown.2.contains("n9: no node that is expected");
    assert!(unknown.0 == Some(1) && is_unknown, "{unknown:?}");
    for (node, (code, out, err)) in [("n2", second), ("n3", third)] {
        assert_eq!((code, out), (Some(0), format!("{node}: forgotten\n")), "{err}");
    }
    within_20_s(|| set(&addr).0 == Some(0));
}

// real clock: the servers are processes.
// catalogue: S-C7
#[test]
fn gossip_that_is_sealed_is_heard_by_whoever_has_the_secret() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let secret = file("secret", "\n0123456789abcdef\nfedcba9876543210\n");
    let newer = file("newer", "fedcba9876543210\n0123456789abcdef\n");
    let gossip = ["--gossip", "127.0.0.1:0", "--node-id", "n1", "--expected", "2"];
    let first = Server::start(&[&gossip[..], &["--gossip-secret-file", &secret]].concat());
    let seed = first.says("gossip on ");
    let join = ["--join", &seed, "--node-id", "n2", "--expected", "2"];
    let _second = Server::start(&[&join[..], &["--gossip-secret-file", &newer]].concat());
    let nodes = ["nodes", "--cluster", &seed, "--gossip-secret-file", &secret];
    within_20_s(|| ask(&nodes).1.contains("2 healthy"));
    let (code, _, _) = ask(&["nodes", "--cluster", &seed]);
    assert_eq!(code, Some(1), "a client without the secret hears no node");
    let alone = ["--gossip-secret-file", &secret];
    let refused = Command::new(env!("CARGO_BIN_EXE_calculator-server")).args(alone).output();
    let refused = refused.unwrap();
    assert_eq!(refused.status.code(), Some(2), "a secret of no cluster is a mistake");
    let (code, _, err) = ask(&["nodes", "--cluster", "no.such.seed.invalid:1"]);
    assert!(code == Some(1) && err.contains("--cluster no.such.seed.invalid:1"), "{err}");
    let empty = file("empty", " \n\n");
    let (code, _, err) = ask(&["nodes", "--cluster", &seed, "--gossip-secret-file", &empty]);
    assert!(code == Some(1) && err.contains("the file has no secret"), "{err}");
}

/// Asks all of it at once: a client of a cluster takes seconds to hear of it.
fn at_once<const N: usize>(asked: [&[&str]; N]) -> [(Option<i32>, String, String); N] {
    thread::scope(|scope| {
        asked.map(|args| scope.spawn(|| ask(args))).map(|asked| asked.join().unwrap())
    })
}

fn within_20_s(mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(Instant::now() - began < Duration::from_secs(20));
        thread::park_timeout(Duration::from_millis(100));
    }
}
