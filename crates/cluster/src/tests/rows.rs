//! What nodes know of each other, without a clock and without a network: laws over random runs.

use crate::{
    store::Store,
    wire::{self, LARGEST, MOST_NODES, Message, Pair, Update},
};
use cinchona_core::Rng;
use cinchona_policy::cluster;
use rand::{RngExt, rngs::SmallRng};
use std::{collections::BTreeMap, net::SocketAddr, time::Duration};
use tokio::time::Instant;

const BEAT: Duration = Duration::from_millis(200);

fn address(n: usize) -> SocketAddr {
    ([10, 0, 1, n as u8], 7946).into()
}

fn store(n: usize, generation: u64, now: Instant) -> Store {
    Store::new((&format!("n{n}"), generation), address(n), false, BEAT, now)
}

/// By datagrams, in at most this many bytes, some of which are lost.
fn exchange(
    stores: &mut [Store],
    (a, b): (usize, usize),
    largest: usize,
    rng: &mut SmallRng,
    now: Instant,
) {
    let pass = |message: Message, rng: &mut SmallRng| {
        let datagram = wire::encode("c", &message);
        assert!(datagram.len() <= largest, "{} bytes", datagram.len());
        let (_, decoded) = wire::decode(&datagram).unwrap();
        assert_eq!(decoded, message_as_sent(message));
        (!rng.random_bool(0.1)).then_some(decoded)
    };
    let digest = stores[a].digest(now);
    let Some(Message::Ask { digest }) = pass(Message::Ask { digest }, rng) else { return };
    stores[b].hear(&digest, now);
    let own = stores[b].digest(now);
    let room = largest - crate::store::size(&own) - 16;
    let updates = stores[b].updates(&digest, room, now);
    let answer = Message::Answer { digest: own, updates };
    let Some(Message::Answer { digest, updates }) = pass(answer, rng) else { return };
    stores[a].hear(&digest, now);
    stores[a].apply(updates, now);
    let updates = stores[a].updates(&digest, largest - 16, now);
    let Some(Message::Rest { updates }) = pass(Message::Rest { updates }, rng) else { return };
    stores[b].apply(updates, now);
}

/// Ages are rounded up on their way.
fn message_as_sent(mut message: Message) -> Message {
    let round = |age: &mut Duration| {
        *age = Duration::from_millis(100) * age.as_millis().div_ceil(100) as u32;
    };
    let (digest, updates) = match &mut message {
        Message::Ask { digest } => (Some(digest), None),
        Message::Answer { digest, updates } => (Some(digest), Some(updates)),
        Message::Rest { updates } => (None, Some(updates)),
        _ => (None, None),
    };
    digest.into_iter().flatten().for_each(|summary| round(&mut summary.age));
    updates.into_iter().flatten().for_each(|update| round(&mut update.age));
    message
}

fn pairs(store: &Store, id: &str) -> BTreeMap<String, String> {
    let (own, row) = store.own();
    let other = store.others().find(|(other, _)| &***other == id).map(|(_, row)| row);
    let row = if &**own == id { Some(row) } else { other };
    let pairs = row.into_iter().flat_map(|row| row.pairs());
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

// catalogue: S-C6
#[test]
fn after_any_updates_removals_and_losses_all_nodes_converge() {
    for seed in 0..12 {
        let mut rng = Rng::seeded(seed).draw();
        let (mut now, largest) = (Instant::now(), rng.random_range(2000..LARGEST));
        let mut stores: Vec<_> = (0..6).map(|n| store(n, rng.random(), now)).collect();
        // A seed is known to all.
        for round in 0..400 {
            now += BEAT / 4;
            for n in 0..stores.len() {
                if round % 4 == 0 {
                    stores[n].beat(now);
                }
                if round < 300 && rng.random_bool(0.3) {
                    let key = format!("tag/{}", rng.random_range(0..8));
                    match rng.random_bool(0.3) {
                        true => stores[n].remove(&key),
                        false => stores[n].set(&key, &"v".repeat(rng.random_range(0..500))),
                    }
                }
                let other = rng.random_range(0..stores.len());
                if other != n {
                    exchange(&mut stores, (n, other), largest, &mut rng, now);
                }
            }
        }
        for of in 0..stores.len() {
            let id = format!("n{of}");
            let said = pairs(&stores[of], &id);
            for by in &stores {
                assert_eq!(pairs(by, &id), said, "seed {seed}: {id}");
            }
        }
    }
}

// catalogue: S-E8
#[test]
fn no_update_makes_a_store_panic_or_grow_without_bound() {
    for seed in 0..20 {
        let mut rng = Rng::seeded(seed).draw();
        let mut now = Instant::now();
        let mut stores = vec![store(0, 1, now), store(1, 1, now)];
        stores[1].set("beat", "1");
        for _ in 0..2000 {
            now += Duration::from_millis(rng.random_range(0..200));
            let number = |rng: &mut SmallRng| match rng.random_range(0..4) {
                0 => rng.random(),
                1 => u64::MAX - rng.random_range(0..3),
                _ => rng.random_range(0..50),
            };
            let pair = |rng: &mut SmallRng| Pair {
                key: format!("k{}", rng.random_range(0..200)),
                value: "v".repeat(rng.random_range(0..20_000)),
                version: number(rng),
            };
            let update = Update {
                id: format!("n{}", rng.random_range(0..400)).into(),
                generation: number(&mut rng),
                heartbeat: number(&mut rng),
                age: Duration::from_secs(rng.random_range(0..1000)),
                address: address(9),
                from: if rng.random() { 0 } else { number(&mut rng) },
                floor: number(&mut rng),
                pairs: (0..rng.random_range(0..4)).map(|_| pair(&mut rng)).collect(),
            };
            stores[0].apply(vec![update], now);
            let digest = stores[1].digest(now);
            stores[0].hear(&digest, now);
            stores[0].beat(now);
            let size: usize = stores[0].others().flat_map(|(_, row)| row.pairs()).count();
            assert!(stores[0].others().count() < MOST_NODES && size < MOST_NODES * 200);
        }
        stores[1].beat(now);
        let mut rng = Rng::seeded(seed).draw();
        (0..30).for_each(|_| exchange(&mut stores, (1, 0), LARGEST, &mut rng, now));
        now += Duration::from_secs(601);
        stores[0].beat(now);
        assert_eq!(stores[0].others().count(), 0, "silent nodes are removed");
    }
}

// catalogue: S-C7
#[test]
fn an_echo_of_a_life_that_has_ended_replaces_nobody_and_another_life_does_when_it_goes_on() {
    let start = Instant::now();
    let mut knows = store(0, 1, start);
    let mut rng = Rng::seeded(1).draw();
    let run = |knows: &mut Store, other: &mut Store, from: u32, beats: u32, rng: &mut SmallRng| {
        for beat in from..from + beats {
            let now = start + BEAT * beat;
            other.beat(now);
            knows.beat(now);
            let mut both = vec![
                std::mem::replace(knows, store(9, 9, now)),
                std::mem::replace(other, store(9, 9, now)),
            ];
            (0..5).for_each(|_| exchange(&mut both, (1, 0), LARGEST, rng, now));
            [*knows, *other] = both.try_into().ok().unwrap();
        }
    };
    let mut old = store(1, 1000, start);
    old.set("beat", "1");
    run(&mut knows, &mut old, 0, 20, &mut rng);
    let mut new = store(1, 5, start);
    new.set("beat", "1");
    let generation = |knows: &Store| knows.others().next().map(|(_, row)| row.generation);
    // The old one is silent from now on.
    run(&mut knows, &mut new, 20, 3, &mut rng);
    assert_eq!(generation(&knows), Some(1000), "it may be late");
    run(&mut knows, &mut new, 23, 5, &mut rng);
    assert_eq!(generation(&knows), Some(5));
    let echo = old.digest(start + BEAT * 28);
    (0..10).for_each(|_| _ = knows.hear(&echo, start + BEAT * 60));
    assert_eq!(generation(&knows), Some(5));
}

// catalogue: S-C6
#[test]
fn lists_at_their_longest_can_be_changed_at_once() {
    let now = Instant::now();
    let (mut from, mut to) = (store(0, 1, now), store(1, 1, now));
    for n in 0..8 {
        from.set(&format!("tag/{n}"), &"v".repeat(1000));
    }
    for round in 0..3 {
        let lives: Vec<_> = (0..MOST_NODES)
            .map(|n| cluster::life(&format!("{round}-{n:062}"), u64::from(u32::MAX)))
            .collect();
        from.set(cluster::HEARS, &lives.join(","));
        from.set(cluster::MEMBERS, &lives.join(","));
        from.beat(now);
        for _ in 0..4 {
            let updates = from.updates(&to.digest(now), LARGEST, now);
            assert_eq!(to.apply(updates, now), 0, "round {round}");
        }
        assert_eq!(pairs(&to, "n0"), pairs(&from, "n0"), "round {round}");
    }
}
