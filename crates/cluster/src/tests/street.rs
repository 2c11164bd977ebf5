//! Hostile conditions: cuts, floods, forged datagrams, and values that do not fit.

use super::memory::{Memory, address, config};
use crate::{
    Cluster, Event, Status,
    seal::Seal,
    wire::{self, LARGEST, MOST_NODES, Message, Pair, Summary, Update},
};
use cinchona_core::Rng;
use cinchona_policy::cluster::{self, life};
use rand::RngExt;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};

const SECOND: Duration = Duration::from_secs(1);
const SECRET: &str = "a secret that all nodes share";

/// How long it takes until all accept writes and see each other.
async fn until_whole(nodes: &[Cluster]) -> Duration {
    let began = Instant::now();
    let count = nodes.len();
    let is_whole = |node: &Cluster| {
        node.refusal().is_none()
            && node.reachable() == (count, count)
            && node.nodes().len() >= count
    };
    while !nodes.iter().all(is_whole) {
        let waited = Instant::now() - began;
        let said: Vec<_> = nodes.iter().map(|node| (node.reachable(), node.refusal())).collect();
        assert!(waited < 30 * SECOND, "{said:?}");
        sleep(SECOND / 10).await;
    }
    Instant::now() - began
}

/// What `n` knows of itself.
fn summary(nodes: &[Cluster], n: usize) -> Summary {
    let now = Instant::now();
    let store = nodes[n].shared().store();
    let digest = store.digest(now);
    let own = digest.into_iter().find(|summary| *summary.id == format!("n{n}"));
    own.unwrap()
}

/// What another node knows of node `n`.
fn forged(nodes: &[Cluster], n: usize, pairs: &[(&str, &str)]) -> Update {
    let Summary { id, generation, heartbeat, version, .. } = summary(nodes, n);
    let pair = |(at, (key, value)): (usize, &(&str, &str))| Pair {
        key: (*key).into(),
        value: (*value).into(),
        version: version + 1 + at as u64,
    };
    Update {
        id,
        generation,
        heartbeat: heartbeat + 1,
        age: Duration::ZERO,
        address: address(n),
        from: version.min(1),
        floor: 0,
        pairs: pairs.iter().enumerate().map(pair).collect(),
    }
}

fn to_all(memory: &Memory, message: &Message) {
    let mut datagram = wire::encode("c", message);
    Seal::new(&[]).put(&mut datagram);
    assert!(datagram.len() <= LARGEST);
    (0..5).for_each(|n| memory.forge(&datagram, address(77), address(n)));
}

// catalogue: S-C5
#[tokio::test(start_paused = true)]
async fn a_client_that_hears_no_node_keeps_its_workers() {
    let memory = Memory::default();
    let mut nodes = memory.cluster(3).await;
    let client = memory.join(99, |config| config.observer = true);
    let workers = client.workers(&[("role", "worker")]);
    sleep(10 * SECOND).await;
    assert_eq!(workers.borrow().len(), 3);
    memory.cut(&[0, 1, 2], &[99]);
    memory.cut(&[99], &[0, 1, 2]);
    for _ in 0..600 {
        sleep(SECOND / 10).await;
        assert_eq!(workers.borrow().len(), 3);
    }
    assert!(client.nodes().iter().all(|node| !node.is_ready()));
    memory.heal();
    for _ in 0..100 {
        sleep(SECOND / 10).await;
        assert_eq!(workers.borrow().len(), 3, "they come back one after the other");
    }
    // A node that stays silent while others are heard is gone, even if its crash was not seen.
    drop(nodes.pop());
    sleep(4 * SECOND).await;
    assert_eq!(workers.borrow().len(), 2);
    memory.cut(&[0, 1], &[99]);
    sleep(60 * SECOND).await;
    drop(nodes.pop());
    sleep(60 * SECOND).await;
    assert_eq!(workers.borrow().len(), 2);
    memory.heal();
    sleep(8 * SECOND).await;
    let left: Vec<_> = workers.borrow().iter().map(|worker| worker.uri.to_string()).collect();
    assert_eq!(left, ["http://10.0.0.0:50051/"]);
}

// catalogue: S-C6
#[tokio::test(start_paused = true)]
async fn a_tag_that_does_not_fit_is_refused_and_changes_nothing() {
    let memory = Memory::default();
    let nodes = memory.cluster(2).await;
    let refused = nodes[0].set_tag("note", &"x".repeat(70_000)).unwrap_err().to_string();
    assert!(refused.contains("\"note\" with a value of 70000 bytes"), "{refused}");
    assert!(refused.contains("at most 1024 bytes"), "{refused}");
    let mut fitted = 0;
    let refused = loop {
        match nodes[0].set_tag(&format!("note-{fitted}"), &"x".repeat(1000)) {
            Ok(()) => fitted += 1,
            Err(refused) => break refused.to_string(),
        }
    };
    assert!(fitted == 8 && refused.contains("at most 8192 bytes in all"), "{fitted} {refused}");
    sleep(3 * SECOND).await;
    assert_eq!(nodes[1].nodes()[0].tags.len(), 1 + fitted);
    assert_eq!((nodes[0].refusal(), nodes[1].refusal()), (None, None));
}

// catalogue: S-C6
#[tokio::test(start_paused = true)]
async fn whatever_is_allowed_reaches_all_others() {
    let memory = Memory::default();
    let long = |n: usize| format!("{n:0>64}");
    let mut nodes = Vec::new();
    for n in 0..20 {
        nodes.push(memory.join(n, |config| {
            config.node_id = long(n);
            config.cluster_id = "c".repeat(64);
            config.secrets = vec![SECRET.try_into().unwrap()];
            config.expect = 20;
            config.address = format!("http://a/{}", "x".repeat(1013)).parse().ok();
            let tag = |t: usize| (format!("tag-{t:0>6}"), "y".repeat(1014));
            config.tags = (0..8).map(tag).collect();
        }));
    }
    let took = until_whole(&nodes).await;
    assert!(took <= 8 * SECOND, "{took:?}");
    for node in nodes.iter().flat_map(Cluster::nodes) {
        assert_eq!((node.tags.len(), node.tags["tag-000007"].len()), (8, 1014));
    }
}

// catalogue: S-C7
#[tokio::test(start_paused = true)]
async fn with_a_shared_secret_forged_datagrams_are_counted_and_dropped() {
    let memory = Memory::default();
    let sealed = |config: &mut crate::Config| config.secrets = vec![SECRET.try_into().unwrap()];
    let nodes = memory.cluster_with(5, sealed).await;
    let mut events = nodes[0].events();
    let plain = memory.join(7, |_| {});
    let other = memory
        .join(8, |config| config.secrets = vec!["another secret of many".try_into().unwrap()]);
    let forget = Message::Forget { id: "n1".into(), generation: summary(&nodes, 1).generation };
    for _ in 0..100 {
        to_all(&memory, &forget);
        to_all(
            &memory,
            &Message::Rest { updates: vec![forged(&nodes, 2, &[(cluster::LEFT, "1")])] },
        );
        to_all(&memory, &Message::Ask { digest: Vec::new() });
        sleep(SECOND / 10).await;
    }
    assert!(nodes.iter().all(|node| node.refusal().is_none() && node.forged() >= 300));
    assert_eq!((nodes[0].garbage(), nodes[0].strangers()), (0, 0));
    assert_eq!((plain.nodes().len(), other.nodes().len()), (1, 1));
    let captured = memory.wires().captured[&address(0)].clone();
    for n in [7, 8] {
        memory.forge(&captured, address(0), address(n));
    }
    sleep(SECOND).await;
    assert_eq!((plain.garbage(), other.forged()), (1, 1));
    drop(nodes);
    let mut seen = Vec::new();
    while let Some(event) = events.next().await {
        seen.push(event);
    }
    assert_eq!(seen, []);
}

// catalogue: S-C7
#[tokio::test(start_paused = true)]
async fn a_secret_is_changed_while_all_take_writes() {
    let memory = Memory::default();
    let (old, new) = (SECRET, "a new secret that all nodes share");
    let steps = [vec![old], vec![old, new], vec![new, old], vec![new]];
    let secrets =
        |step: &[&'static str]| step.iter().map(|text| (*text).try_into().unwrap()).collect();
    let mut nodes = memory.cluster_with(3, |config| config.secrets = secrets(&steps[0])).await;
    for step in &steps[1..] {
        for n in 0..3 {
            // A restart each: the others keep the quorum.
            drop(nodes.remove(0));
            sleep(SECOND).await;
            nodes.push(memory.join(n, |config| config.secrets = secrets(step)));
            until_whole(&nodes).await;
        }
    }
    assert!(nodes.iter().all(|node| node.forged() == 0));
}

// catalogue: S-E4
#[tokio::test(start_paused = true)]
async fn a_flood_of_garbage_makes_no_node_deaf() {
    let memory = Memory::default();
    let nodes = memory.cluster(5).await;
    let rng = Rng::seeded(4);
    for _ in 0..60 {
        for n in 0..5 {
            let mut rng = rng.draw();
            // As many as a queue takes beside the datagrams still to come.
            for _ in 0..900 {
                let garbage: [u8; 40] = rng.random();
                memory.forge(&garbage, address(77), address(n));
            }
        }
        sleep(SECOND / 10).await;
        for node in &nodes {
            assert_eq!((node.refusal(), node.status()), (None, Status::Healthy));
        }
    }
    assert!(nodes.iter().all(|node| node.garbage() >= 50_000));
}

// catalogue: S-E8
#[tokio::test(start_paused = true)]
async fn captured_datagrams_with_flipped_bits_evict_no_node_permanently() {
    for seed in 0..4 {
        let memory = Memory::default();
        let nodes = memory.cluster(5).await;
        let rng = Rng::seeded(seed);
        for _ in 0..100 {
            let captured: Vec<_> = memory.wires().captured.clone().into_iter().collect();
            for (from, datagram) in captured.into_iter().filter(|(_, bytes)| !bytes.is_empty()) {
                let mut rng = rng.draw();
                for _ in 0..20 {
                    let mut flipped = datagram.clone();
                    for _ in 0..rng.random_range(1..=3) {
                        let bit = rng.random_range(0..8 * flipped.len());
                        flipped[bit / 8] ^= 1 << (bit % 8);
                    }
                    memory.forge(&flipped, from, address(rng.random_range(0..5)));
                }
            }
            sleep(SECOND / 10).await;
        }
        let took = until_whole(&nodes).await;
        assert!(took <= 10 * SECOND, "{seed}: {took:?}");
        sleep(20 * SECOND).await;
        for node in &nodes {
            assert_eq!((node.refusal(), node.reachable()), (None, (5, 5)), "{seed}");
        }
    }
}

// catalogue: S-E8
#[tokio::test(start_paused = true)]
async fn no_single_forged_claim_about_a_live_node_lasts() {
    let memory = Memory::default();
    let nodes = memory.cluster(5).await;
    let far = u64::MAX / 2;
    for (name, forge) in claims() {
        let message = forge(&nodes, far);
        to_all(&memory, &message);
        sleep(5 * SECOND).await;
        let took = until_whole(&nodes).await;
        assert!(took <= 5 * SECOND, "{name}: {took:?}");
        let known = &nodes[0].nodes()[2];
        assert_eq!((known.id.as_str(), &*known.tags["role"]), ("n2", "worker"), "{name}");
        assert!(!known.tags.contains_key("evil"), "{name}: {:?}", known.tags);
        let ghosts: Vec<_> = nodes.iter().map(|node| node.reachable().1).collect();
        assert_eq!(ghosts, [5; 5], "{name}");
    }
    assert!(nodes.iter().all(|node| node.forged() > 0), "impossible claims are counted");
}

type Forge = fn(&[Cluster], u64) -> Message;

/// Claims that a forger may make about node 2.
fn claims() -> Vec<(&'static str, Forge)> {
    vec![
        ("another life", |nodes, far| {
            let update = forged(nodes, 2, &[("tag/evil", "1"), (cluster::BEAT, "9")]);
            Message::Rest { updates: vec![Update { generation: far, from: 0, ..update }] }
        }),
        ("a heartbeat of the far future", |nodes, far| Message::Ask {
            digest: vec![Summary { heartbeat: far, ..summary(nodes, 2) }],
        }),
        ("a heartbeat that can be", |nodes, _| {
            let own = summary(nodes, 2);
            let heartbeat = own.heartbeat + (1 << 31);
            Message::Ask { digest: vec![Summary { heartbeat, ..own }] }
        }),
        ("a version of the far future", |nodes, far| {
            let mut update = forged(nodes, 2, &[("tag/evil", "1")]);
            update.pairs[0].version = far;
            Message::Rest { updates: vec![update] }
        }),
        ("a version that can be", |nodes, _| {
            let mut update = forged(nodes, 2, &[("tag/evil", "1")]);
            update.pairs[0].version += 1 << 31;
            Message::Rest { updates: vec![update] }
        }),
        ("the next version", |nodes, _| Message::Rest {
            updates: vec![forged(nodes, 2, &[("tag/evil", "1"), ("tag/role", "none")])],
        }),
        ("members that are not there", |nodes, _| Message::Rest {
            updates: vec![forged(nodes, 2, &[(cluster::MEMBERS, "n0,n1,n2,n3,n4,g1,g2,g3,g4,g5")])],
        }),
        ("that it hears no node", |nodes, _| Message::Rest {
            updates: vec![forged(nodes, 2, &[(cluster::HEARS, "")])],
        }),
        ("that ghosts are gone", |nodes, far| {
            let gone = format!("{},{}", life("n1", far), life("g1", 7));
            Message::Rest { updates: vec![forged(nodes, 2, &[(cluster::GONE, &gone)])] }
        }),
        ("that all else is gone", |nodes, _| {
            let mut update = forged(nodes, 2, &[(cluster::BEAT, "1")]);
            update.floor = update.pairs[0].version - 1;
            Message::Rest { updates: vec![update] }
        }),
        ("a namesake", |_, far| Message::Namesake {
            id: "n2".into(),
            generation: 1,
            heartbeat: far,
        }),
    ]
}

// catalogue: S-E8
#[tokio::test(start_paused = true)]
async fn a_node_that_was_said_to_have_left_is_back_after_a_restart_at_the_latest() {
    let memory = Memory::default();
    let mut nodes = memory.cluster(5).await;
    to_all(&memory, &Message::Rest { updates: vec![forged(&nodes, 2, &[(cluster::LEFT, "1")])] });
    sleep(5 * SECOND).await;
    drop(nodes.remove(2));
    sleep(SECOND).await;
    nodes.insert(2, memory.join(2, |_| {}));
    until_whole(&nodes).await;
}

// catalogue: S-E8
#[tokio::test(start_paused = true)]
async fn made_up_nodes_take_no_more_room_than_a_cluster_may_have() {
    let memory = Memory::default();
    let nodes = memory.cluster(5).await;
    for round in 0..60_u64 {
        let update = |n: u64| Update {
            id: format!("made-up-{round}-{n}").into(),
            generation: n,
            heartbeat: round,
            age: Duration::ZERO,
            address: address(1),
            from: 0,
            floor: 0,
            pairs: vec![Pair { key: "beat".into(), value: "1".into(), version: 1 }],
        };
        to_all(&memory, &Message::Rest { updates: (0..7).map(update).collect() });
        sleep(SECOND / 20).await;
    }
    for node in &nodes {
        assert!(node.shared().store().others().count() < MOST_NODES);
        assert_eq!((node.refusal(), node.nodes().len()), (None, 5), "no node heard them");
    }
    // A genuine one still finds room.
    let sixth = memory.join(6, |_| {});
    sleep(6 * SECOND).await;
    assert_eq!((sixth.refusal(), nodes[0].reachable()), (None, (6, 6)));
}

// catalogue: S-E3
#[tokio::test(start_paused = true)]
async fn a_resync_that_panics_has_failed_and_is_tried_again() {
    let memory = Memory::default();
    let nodes = memory.cluster(3).await;
    let begun = Arc::new(AtomicU32::new(0));
    let counted = begun.clone();
    nodes[0].on_quorum(move || {
        let number = counted.fetch_add(1, Ordering::Relaxed);
        assert!(number != 0, "before it begins");
        async move {
            assert!(number != 1, "while it runs");
            Ok(())
        }
    });
    sleep(5 * SECOND).await;
    assert_eq!((nodes[0].refusal(), begun.load(Ordering::Relaxed)), (None, 3));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_node_leaves_no_task() {
    let memory = Memory::default();
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for _ in 0..3 {
        let seeds = ["127.0.0.1:1", "localhost:1"];
        let config = config(0);
        let node = Cluster::join_over(config.clone(), &seeds, memory.open(config.listen)).unwrap();
        let mut events = node.events();
        sleep(SECOND).await;
        assert!(tasks() > before);
        drop(node);
        while events.next().await.is_some() {}
        sleep(SECOND).await;
        assert_eq!(tasks(), before);
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_is_no_cut_of_the_client_that_hears_the_others() {
    let memory = Memory::default();
    let mut nodes = memory.cluster(5).await;
    let client = memory.join(99, |config| config.observer = true);
    sleep(10 * SECOND).await;
    let (workers, mut events) = (client.workers(&[]), client.events());
    nodes.truncate(1);
    for _ in 0..4 {
        events.wait_for(|event| matches!(event, Event::NodeFailed { .. })).await.unwrap();
    }
    sleep(SECOND).await;
    assert_eq!(workers.borrow().len(), 1);
}
