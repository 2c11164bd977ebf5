//! Nodes that gossip: in memory and in virtual time, or by UDP.

use super::memory::{Memory, config};
use crate::{Cluster, Config, Event, Events, State, Status};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};

/// All events within this time.
async fn events_within(events: &mut Events, within: Duration) -> Vec<Event> {
    let mut all = Vec::new();
    let until = Instant::now() + within;
    while let Ok(Some(event)) = tokio::time::timeout_at(until, events.next()).await {
        all.push(event);
    }
    all
}

fn n(n: usize) -> String {
    format!("n{n}")
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn nodes_find_each_other_and_read_each_others_tags() {
    let memory = Memory::default();
    let first = memory.join(0, |config| config.expect = 3);
    let mut events = first.events();
    let mut workers = first.workers(&[("role", "worker")]);
    assert_eq!(first.status(), Status::Unknown);
    let second = memory.join(1, |config| config.expect = 3);
    let _third = memory.join(2, |config| config.expect = 3);
    let mut joined = events_within(&mut events, 3 * SECOND).await;
    joined.sort_by_key(|event| format!("{event:?}"));
    assert_eq!(joined, [1, 2].map(|i| Event::NodeJoined { node: n(i) }));
    assert_eq!(workers.borrow_and_update().len(), 3);
    second.set_tag("capacity", "64").unwrap();
    let seen = events_within(&mut events, 2 * SECOND).await;
    assert!(
        matches!(&seen[..], [Event::TagsUpdated { node, tags }]
            if *node == n(1) && tags["capacity"] == "64"),
        "{seen:?}"
    );
    assert_eq!(workers.borrow_and_update()[1].weight, 64);
    assert!(second.set_tag("a b", "").is_err());
    second.remove_tag("role");
    sleep(2 * SECOND).await;
    assert_eq!(workers.borrow_and_update().len(), 2);
    assert_eq!(
        first.health().to_string(),
        "3 nodes: 3 healthy (100 %), 0 degraded (0 %), 0 failed (0 %); healthy"
    );
}

#[tokio::test(start_paused = true)]
async fn a_crash_is_reported_within_three_seconds_and_so_is_the_return() {
    let memory = Memory::default();
    let mut nodes = memory.cluster(4).await;
    sleep(20 * SECOND).await;
    let mut events = nodes[0].events();
    let mut workers = nodes[0].workers(&[]);
    workers.borrow_and_update();
    assert!(nodes[0].phi("n3").unwrap() < 1.0);
    assert!(nodes[0].heartbeat_history("n3").unwrap().len() > 50);
    let at = Instant::now();
    drop(nodes.pop());
    let first = events.next().await.unwrap();
    assert!(matches!(&first, Event::NodeSuspected { node, .. } if *node == n(3)), "{first:?}");
    assert_eq!(events.next().await, Some(Event::NodeFailed { node: n(3) }));
    let took = Instant::now() - at;
    println!("in memory: a crash was reported after {took:?}");
    assert!(took <= 3 * SECOND, "{took:?}");
    assert_eq!(workers.borrow_and_update().len(), 4, "it may be this node that does not hear");
    timeout(SECOND / 2, workers.changed()).await.unwrap().unwrap();
    assert_eq!(workers.borrow_and_update().len(), 3);
    let cut = events.next().await.unwrap();
    assert_eq!(
        cut,
        Event::PartitionDetected { minority: vec![n(3)], majority: vec![n(0), n(1), n(2)] }
    );
    assert_eq!(nodes[0].nodes()[3].state, State::Failed);
    nodes.push(memory.join(3, |_| {}));
    let seen = events_within(&mut events, 5 * SECOND).await;
    assert_eq!(seen, [Event::NodeRecovered { node: n(3) }, Event::PartitionHealed]);
    assert_eq!(workers.borrow_and_update().len(), 4);
    assert_eq!(nodes[3].refusal(), None);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_drains_first_and_is_expected_no_more() {
    let memory = Memory::default();
    let nodes = memory.cluster(3).await;
    let mut events = nodes[0].events();
    let mut workers = nodes[0].workers(&[("role", "worker")]);
    workers.borrow_and_update();
    let leaving = nodes[2].clone();
    let leave = tokio::spawn(async move { leaving.leave(2 * SECOND).await });
    sleep(SECOND).await;
    assert_eq!(workers.borrow_and_update().len(), 2);
    assert_eq!(nodes[2].refusal(), None, "it still serves");
    leave.await.unwrap();
    let seen = events_within(&mut events, 10 * SECOND).await;
    assert!(
        matches!(&seen[..], [Event::TagsUpdated { .. }, Event::NodeLeft { node }] if *node == n(2)),
        "{seen:?}"
    );
    assert_eq!(nodes[0].reachable(), (2, 2));
    assert_eq!(nodes[2].refusal().as_deref(), Some("this node has left the cluster"));
}

#[tokio::test(start_paused = true)]
async fn a_minority_takes_no_writes_until_it_has_healed_and_resynced() {
    let memory = Memory::default();
    let nodes = memory.cluster(5).await;
    let resyncs = Arc::new(AtomicU32::new(0));
    let counted = resyncs.clone();
    nodes[0].on_quorum(move || {
        let number = counted.fetch_add(1, Ordering::Relaxed);
        async move {
            sleep(SECOND).await;
            if number == 1 { Err("not yet".into()) } else { Ok(()) }
        }
    });
    assert!(nodes[0].refusal().is_none(), "until the next look");
    sleep(2 * SECOND).await;
    assert_eq!(resyncs.load(Ordering::Relaxed), 1);
    let mut events: Vec<_> = nodes.iter().map(Cluster::events).collect();
    memory.cut(&[0, 1], &[2, 3, 4]);
    memory.cut(&[2, 3, 4], &[0, 1]);
    let at = Instant::now();
    let expected =
        Event::PartitionDetected { minority: vec![n(0), n(1)], majority: vec![n(2), n(3), n(4)] };
    for events in &mut events {
        events.wait_for(|event| *event == expected).await.unwrap();
    }
    let took = Instant::now() - at;
    println!("in memory: a cut was reported by all after {took:?}");
    assert!(took <= 3 * SECOND, "{took:?}");
    let said = "2 of 5 nodes are reachable; missing: n2, n3, n4";
    assert_eq!(nodes[1].refusal().as_deref(), Some(said));
    assert!(nodes[2..].iter().all(|node| node.refusal().is_none()));
    sleep(20 * SECOND).await;
    memory.heal();
    let at = Instant::now();
    for events in &mut events {
        events.wait_for(|event| *event == Event::PartitionHealed).await.unwrap();
    }
    println!("in memory: all was healed after {:?}", Instant::now() - at);
    sleep(Duration::from_millis(200)).await;
    assert!(Instant::now() - at <= 3 * SECOND);
    assert_eq!(nodes[1].refusal(), None);
    assert_eq!(nodes[0].refusal().as_deref(), Some("the resync has not finished"));
    sleep(4 * SECOND).await;
    assert_eq!(nodes[0].refusal(), None);
    assert_eq!(resyncs.load(Ordering::Relaxed), 3, "the second had failed");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_no_other_hears_refuses_writes() {
    let memory = Memory::default();
    let nodes = memory.cluster(4).await;
    memory.cut(&[3], &[0, 1, 2]);
    sleep(4 * SECOND).await;
    assert_eq!(nodes[3].status(), Status::Minority, "it hears all the others");
    let said = "1 of 4 nodes are reachable; missing: n0, n1, n2";
    assert_eq!(nodes[3].refusal().as_deref(), Some(said));
    assert_eq!(nodes[0].refusal(), None);
    memory.heal();
    sleep(4 * SECOND).await;
    assert_eq!(nodes[3].refusal(), None);
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_node_is_no_longer_expected() {
    let memory = Memory::default();
    let mut nodes = memory.cluster(3).await;
    drop(nodes.pop());
    sleep(5 * SECOND).await;
    let mut events = nodes[1].events();
    assert!(nodes[0].forget("n2") && !nodes[0].forget("n7"));
    assert_eq!(events_within(&mut events, 2 * SECOND).await[0], Event::NodeLeft { node: n(2) });
    assert_eq!(nodes[1].reachable(), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_node_of_another_cluster_is_refused() {
    let memory = Memory::default();
    let nodes = memory.cluster(2).await;
    let mut events = nodes[0].events();
    let other = memory.join(2, |config| config.cluster_id = "other".into());
    assert_eq!(events_within(&mut events, 5 * SECOND).await, []);
    assert_eq!((nodes[0].nodes().len(), other.nodes().len()), (2, 1));
    assert!(nodes[0].strangers() > 0 && other.strangers() > 0);
    assert_eq!(other.status(), Status::Unknown);
}

// real clock: garbage comes through a socket of the machine.
#[tokio::test]
async fn garbage_on_the_gossip_port_is_ignored_and_counted() {
    let local = |n: usize| {
        let mut config = Config::new("c", format!("n{n}"), ([127, 0, 0, 1], 0).into());
        config.expect = 2;
        config
    };
    let first = Cluster::join(local(0), &[]).await.unwrap();
    let mut events = first.events();
    let address = first.gossip_address();
    let stranger = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let garbage = [&b""[..], b"\0", b"GET / HTTP/1.1\r\n\r\n", &[0xff; 1400], &[0; 65_507]];
    for datagram in garbage {
        stranger.send_to(datagram, address).await.unwrap();
    }
    let second = Cluster::join(local(1), &[&address.to_string()]).await.unwrap();
    for datagram in garbage {
        stranger.send_to(datagram, address).await.unwrap();
    }
    let joined = timeout(10 * SECOND, events.next()).await.unwrap();
    assert_eq!(joined, Some(Event::NodeJoined { node: n(1) }));
    timeout(10 * SECOND, async {
        while first.garbage() < 10 || first.refusal().is_some() || second.refusal().is_some() {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!((first.garbage(), second.garbage()), (10, 0));
}

/// Messages and bytes that each of `n` nodes sends per second.
async fn traffic(n: usize) -> (u64, u64) {
    let memory = Memory::default();
    let mut nodes = Vec::new();
    for i in 0..n {
        nodes.push(memory.join(i, |config| config.expect = n));
    }
    sleep(5 * SECOND).await;
    assert!(nodes.iter().all(|node| node.status() == Status::Healthy), "{n}");
    let before = memory.wires().sent;
    sleep(5 * SECOND).await;
    let after = memory.wires().sent;
    let each = |sum: u64| sum / (5 * n as u64);
    (each(after.0 - before.0), each(after.1 - before.1))
}

#[tokio::test(start_paused = true)]
async fn a_node_sends_as_many_messages_among_twenty_as_among_five() {
    let mut all = Vec::new();
    for n in [5, 20] {
        let (messages, bytes) = traffic(n).await;
        println!("in memory: {n} nodes: {messages} messages, {bytes} bytes per node and s");
        all.push((messages, bytes / n as u64));
    }
    let ((few, _), (many, _)) = (all[0], all[1]);
    assert!(many <= few + few / 4, "{all:?}");
    assert!(all[1].1 <= 2 * all[0].1, "more than the state's size: {all:?}");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_node_sends_nothing_more() {
    let node = Memory::default().join(0, |_| {});
    let (mut events, mut workers) = (node.events(), node.workers(&[]));
    drop(node);
    assert_eq!(events.next().await, None);
    workers.borrow_and_update();
    assert!(timeout(SECOND, workers.changed()).await.unwrap().is_err());
}

// real clock: the datagrams go through sockets of the machine.
#[tokio::test]
async fn a_crash_is_reported_over_udp_as_well() {
    let mut nodes: Vec<Cluster> = Vec::new();
    for i in 0..4 {
        let mut config = Config::new("c", n(i), ([127, 0, 0, 1], 0).into());
        config.expect = 4;
        let seed = nodes.first().map(|first| first.gossip_address().to_string());
        nodes.push(Cluster::join(config, &Vec::from_iter(seed.as_deref())).await.unwrap());
    }
    timeout(20 * SECOND, async {
        while nodes.iter().any(|node| node.status() != Status::Healthy || node.reachable().1 < 4) {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
    sleep(5 * SECOND).await;
    let mut events = nodes[0].events();
    let at = Instant::now();
    drop(nodes.pop());
    let failed = Event::NodeFailed { node: n(3) };
    let seen = timeout(20 * SECOND, events.wait_for(|event| *event == failed)).await.unwrap();
    assert_eq!(seen, Some(failed));
    let took = Instant::now() - at;
    println!("by UDP: a crash was reported after {took:?}");
    assert!(took < 6 * SECOND, "{took:?}");
    assert!(nodes.iter().all(|node| (node.garbage(), node.strangers()) == (0, 0)));
}

#[tokio::test(start_paused = true)]
async fn a_setting_outside_its_range_is_refused() {
    let mut config = config(0);
    config.expect = 0;
    let refused = Cluster::join(config, &[]).await.unwrap_err();
    assert_eq!(refused.to_string(), "expect: 0 is not allowed; the range is at least 1");
}
