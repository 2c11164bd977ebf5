//! Pods: they come back under new names and at new addresses, and with clocks that were set back.

use super::memory::{Memory, address, config};
use crate::{Cluster, Event, Expected, Status, Strategy, seeds::Seeds};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

const SECOND: Duration = Duration::from_secs(1);

fn all_write(nodes: &[Cluster]) -> Result<(), Vec<String>> {
    let refusals: Vec<_> = nodes.iter().filter_map(Cluster::refusal).collect();
    if refusals.is_empty() { Ok(()) } else { Err(refusals) }
}

// catalogue: S-C7
#[tokio::test(start_paused = true)]
async fn pods_that_come_back_under_new_names_count_where_a_number_is_expected() {
    let memory = Memory::default();
    let mut nodes = memory.cluster_with(4, |config| config.expected = Some(4.into())).await;
    nodes.truncate(2);
    sleep(10 * SECOND).await;
    assert_eq!(nodes[0].refusal().as_deref(), Some("2 of 4 nodes are reachable; missing: n2, n3"));
    for n in [10, 11] {
        nodes.push(memory.join(n, |config| config.expected = Some(4.into())));
    }
    sleep(5 * SECOND).await;
    assert_eq!(all_write(&nodes), Ok(()));
    for node in &nodes {
        assert_eq!((node.reachable(), node.status()), ((4, 4), Status::Healthy));
    }
}

// catalogue: S-C7
#[tokio::test(start_paused = true)]
async fn a_provider_says_how_many_are_expected_while_the_cluster_runs() {
    let memory = Memory::default();
    let (replicas, seen) = watch::channel(0_usize);
    let asked = Arc::new(AtomicUsize::new(0));
    let mut nodes = Vec::new();
    for n in 0..5 {
        let (seen, asked) = (seen.clone(), asked.clone());
        nodes.push(memory.join(n, move |config| {
            config.expected = Some(match n {
                0 => Expected::asked(move || asked.load(Ordering::Relaxed)),
                _ => seen.into(),
            });
        }));
    }
    sleep(5 * SECOND).await;
    let said = "the number of nodes to expect is not known yet";
    assert!(nodes.iter().all(|node| node.refusal().as_deref() == Some(said)));
    for expected in [5, 3, 12, 5] {
        replicas.send(expected).unwrap();
        asked.store(expected, Ordering::Relaxed);
        sleep(5 * SECOND).await;
        assert_eq!(all_write(&nodes).is_ok(), expected < 12, "{expected}: {:?}", all_write(&nodes));
    }
    // Two pods are scaled away; no node waits for them.
    nodes.truncate(3);
    replicas.send(3).unwrap();
    asked.store(3, Ordering::Relaxed);
    sleep(8 * SECOND).await;
    assert_eq!(all_write(&nodes), Ok(()));
    assert!(nodes.iter().all(|node| node.reachable() == (3, 3)));
}

// catalogue: S-C7
#[tokio::test(start_paused = true)]
async fn a_new_name_at_an_old_address_replaces_the_old_one() {
    let memory = Memory::default();
    let mut nodes = memory.cluster(4).await;
    nodes.drain(..2);
    sleep(10 * SECOND).await;
    assert_eq!(nodes[1].refusal().as_deref(), Some("2 of 4 nodes are reachable; missing: n0, n1"));
    let mut events = nodes[0].events();
    for n in [0, 1] {
        nodes.push(memory.join(n, |config| config.node_id = format!("pod-{n}")));
    }
    let replaced = Event::NodeReplaced { node: "n1".into(), by: "pod-1".into() };
    let seen = events.wait_for(|event| *event == replaced);
    assert!(timeout(5 * SECOND, seen).await.unwrap().is_some());
    sleep(4 * SECOND).await;
    assert_eq!(all_write(&nodes), Ok(()));
    assert!(nodes.iter().all(|node| node.reachable() == (4, 4)));
    // The old ones come back elsewhere and are admitted like any node.
    nodes.push(memory.join(12, |config| config.node_id = "n1".into()));
    sleep(4 * SECOND).await;
    assert_eq!((all_write(&nodes), nodes[4].reachable()), (Ok(()), (5, 5)));
}

// catalogue: S-C7
#[tokio::test(start_paused = true)]
async fn a_replaced_node_is_not_expected_again_when_the_other_leaves_or_crashes() {
    let memory = Memory::default();
    for leaves in [false, true] {
        let mut nodes = memory.cluster(4).await;
        drop(nodes.pop());
        sleep(SECOND).await;
        let by = memory.join(3, |config| config.node_id = "pod".into());
        sleep(SECOND).await;
        if leaves {
            by.leave(Duration::ZERO).await;
        }
        drop(by);
        sleep(10 * SECOND).await;
        let expected = if leaves { 3 } else { 4 };
        assert_eq!(nodes[0].reachable(), (3, expected), "{:?}", nodes[0].nodes());
        assert!(nodes.iter().all(|node| node.reachable() == (3, expected)));
    }
}

// catalogue: S-C7
#[tokio::test(start_paused = true)]
async fn a_clock_that_was_set_back_keeps_no_node_out() {
    let memory = Memory::default();
    let mut nodes =
        memory.cluster_with(3, |config| config.generation = Some(1_790_000_000_000)).await;
    let mut events = nodes[0].events();
    for generation in [1_690_000_000_000, 7, u64::MAX, 0] {
        drop(nodes.pop());
        sleep(5 * SECOND).await;
        nodes.push(memory.join(2, |config| config.generation = Some(generation)));
        sleep(5 * SECOND).await;
        assert_eq!(all_write(&nodes), Ok(()), "{generation}");
        assert_eq!(nodes[0].nodes()[2].generation, generation);
        let back = Event::NodeRecovered { node: "n2".into() };
        assert!(events.wait_for(|event| *event == back).await.is_some());
    }
    // Restarted immediately, with the same number.
    drop(nodes.pop());
    nodes.push(memory.join(2, |config| config.generation = Some(3)));
    sleep(5 * SECOND).await;
    assert_eq!(all_write(&nodes), Ok(()));
}

// catalogue: S-C7
#[tokio::test(start_paused = true)]
async fn a_node_that_left_comes_back_though_its_clock_was_set_back() {
    let memory = Memory::default();
    let mut nodes = memory.cluster_with(3, |config| config.generation = Some(1000)).await;
    let leaving = nodes.pop().unwrap();
    leaving.leave(SECOND).await;
    drop(leaving);
    sleep(2 * SECOND).await;
    assert_eq!(nodes[0].reachable(), (2, 2));
    nodes.push(memory.join(2, |config| config.generation = Some(5)));
    sleep(5 * SECOND).await;
    assert_eq!((all_write(&nodes), nodes[0].reachable()), (Ok(()), (3, 3)));
}

// catalogue: S-C7
#[tokio::test(start_paused = true)]
async fn of_two_live_nodes_with_one_id_the_later_is_refused_and_both_report_it() {
    for generation in [Some(1), None, Some(u64::MAX)] {
        let memory = Memory::default();
        let mut nodes = memory.cluster_with(3, |config| config.generation = Some(2)).await;
        sleep(10 * SECOND).await;
        let mut events = nodes[2].events();
        let later = memory.join(9, |config| {
            config.node_id = "n2".into();
            config.generation = generation;
        });
        let mut seen = later.events();
        for _ in 0..100 {
            sleep(SECOND / 10).await;
            assert!(later.refusal().is_some(), "it never writes");
            assert_eq!(all_write(&nodes), Ok(()), "and disturbs no other node");
        }
        let address = |n: usize| Some(address(n));
        let own = Event::DuplicateId { address: address(2), refused: true };
        assert_eq!(seen.wait_for(|event| *event == own).await, Some(own));
        let said = later.refusal().unwrap();
        assert!(said.contains("an earlier node at 10.0.0.2:7946 has the id n2"), "{said}");
        let other = Event::DuplicateId { address: address(9), refused: false };
        assert_eq!(events.wait_for(|event| *event == other).await, Some(other));
        // Until the earlier is gone.
        drop(nodes.pop());
        sleep(15 * SECOND).await;
        nodes.push(later);
        assert_eq!(all_write(&nodes), Ok(()));
        assert!(nodes.iter().all(|node| node.reachable() == (3, 3)));
    }
}

// catalogue: S-C7
#[tokio::test(start_paused = true)]
async fn of_two_that_start_together_with_one_id_one_is_refused() {
    for seed in 0..5_u32 {
        let memory = Memory::default();
        let nodes = memory.cluster(3).await;
        let twin = |n: usize| memory.join(n, |config| config.node_id = "twin".into());
        let one = twin(10);
        sleep(seed * SECOND * 2 / 7).await;
        let other = twin(11);
        sleep(20 * SECOND).await;
        let writing = [&one, &other].iter().filter(|node| node.refusal().is_none()).count();
        assert_eq!(writing, 1, "{seed}: {:?} {:?}", one.refusal(), other.refusal());
        assert_eq!((all_write(&nodes), nodes[0].reachable()), (Ok(()), (4, 4)));
    }
}

// catalogue: S-C7
#[tokio::test(start_paused = true)]
async fn a_seed_that_resolves_late_is_contacted_within_two_seconds() {
    let memory = Memory::default();
    let first = memory.join(0, |config| config.expect = 2);
    let is_named = Arc::new(AtomicBool::new(false));
    let (named, slow) = (is_named.clone(), Arc::new(AtomicUsize::new(0)));
    let asked = slow.clone();
    let look_up = Arc::new(move |name: String| {
        let (is_named, asked) = (named.load(Ordering::Relaxed), asked.clone());
        Box::pin(async move {
            if name == "slow:7946" {
                asked.fetch_add(1, Ordering::Relaxed);
                sleep(20 * SECOND).await;
            }
            if is_named { Ok(vec![address(0)]) } else { Err(io::Error::other("NXDOMAIN")) }
        }) as _
    });
    let seeds = Seeds::new(&["orders:7946", "slow:7946"]).unwrap();
    let mut config = config(1);
    config.expect = 2;
    let port = memory.open(config.listen);
    let second = Cluster::over(config, seeds, true, port, look_up).unwrap();
    let mut events = second.events();
    sleep(5 * SECOND).await;
    is_named.store(true, Ordering::Relaxed);
    let began = Instant::now();
    let joined = Event::NodeJoined { node: "n0".into() };
    assert_eq!(events.wait_for(|event| *event == joined).await, Some(joined));
    let took = Instant::now() - began;
    assert!(took <= 2 * SECOND, "{took:?}");
    sleep(5 * SECOND).await;
    assert_eq!((first.refusal(), second.refusal()), (None, None));
    assert_eq!(slow.load(Ordering::Relaxed), 1, "a lookup that is slow is not begun anew");
}

// catalogue: S-E14
#[tokio::test(start_paused = true)]
async fn where_a_majority_is_dead_the_refusal_names_it_and_an_onlooker_has_it_forgotten() {
    let memory = Memory::default();
    let mut nodes = memory.cluster(5).await;
    nodes.truncate(2);
    sleep(5 * SECOND).await;
    for n in 10..20 {
        nodes.push(memory.join(n, |_| {}));
    }
    sleep(10 * SECOND).await;
    let said = nodes[0].refusal().unwrap();
    assert_eq!(said, "2 of 5 nodes are reachable; missing: n2, n3, n4");
    let said = nodes[7].refusal().unwrap();
    assert!(said.starts_with("this node is no member yet, and 2 of 5 nodes"), "{said}");
    assert!(said.ends_with("missing: n2, n3, n4"), "{said}");
    let operator = memory.join(99, |config| config.observer = true);
    sleep(4 * SECOND).await;
    for gone in ["n2", "n3", "n4"] {
        assert!(operator.forget(gone) && !operator.forget(gone));
    }
    sleep(6 * SECOND).await;
    assert_eq!(all_write(&nodes), Ok(()));
    assert!(nodes.iter().all(|node| node.reachable() == (12, 12)));
    // A forgotten node joins again in another life.
    nodes.push(memory.join(3, |_| {}));
    sleep(5 * SECOND).await;
    assert_eq!((all_write(&nodes), nodes[0].reachable()), (Ok(()), (13, 13)));
}

// catalogue: S-E14
#[tokio::test(start_paused = true)]
async fn an_id_survives_an_address() {
    let memory = Memory::default();
    let mut nodes = memory.cluster(3).await;
    for moved in [50, 60] {
        drop(nodes.pop());
        nodes.push(memory.join(moved, |config| config.node_id = "n2".into()));
        sleep(6 * SECOND).await;
        assert_eq!(all_write(&nodes), Ok(()));
        let known = &nodes[0].nodes()[2];
        let uri = format!("http://10.0.0.{moved}:50051/");
        assert_eq!((known.id.as_str(), known.address.clone().unwrap().to_string()), ("n2", uri));
        assert_eq!(nodes[0].reachable(), (3, 3));
    }
}

#[tokio::test(start_paused = true)]
async fn before_enough_nodes_were_heard_the_refusal_names_those_that_were() {
    let node = Memory::default().join(0, |config| config.expect = 5);
    sleep(SECOND).await;
    let said = "too few nodes were heard to form a cluster: 1 of the 3 that it takes (n0)";
    assert_eq!(node.refusal().as_deref(), Some(said));
    let counting = Memory::default().join(0, |config| config.expected = Some(5.into()));
    sleep(SECOND).await;
    assert_eq!(counting.refusal().as_deref(), Some(said));
    let led = Memory::default().join(0, |config| {
        config.strategy = Strategy::Leader("n9".into());
        config.expected = Some(5.into());
    });
    sleep(SECOND).await;
    assert!(led.refusal().is_some());
}
