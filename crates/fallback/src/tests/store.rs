//! The cache against a simple model.

use super::*;
use crate::{
    answer::Effect,
    cache::{Store, weight},
    key::Key,
    shared::framed,
};
use proptest::prelude::*;

#[tokio::test(start_paused = true)]
async fn the_least_recently_used_answers_are_evicted() {
    let key = caching().shared.key(0, &balance().into_parts().0, &encode(&1_u32)).unwrap();
    let one = weight(&key, &kept(2));
    // The heads of a scripted server's answers have the same headers as ours.
    let cache = Cache { max_bytes: 3 * one, max_answer: 100, ..Cache::default() };
    let layer = FallbackSettings::new(methods()).with_cache(cache).unwrap().layer();
    let client = layer.layer(ScriptedServer::new([ok(1), ok(2), ok(3), down(), ok(4), down()]));
    for n in 1..=3 {
        assert_eq!(ask(&client, request(BALANCE, n)).await, live(n));
    }
    assert_eq!(ask(&client, request(BALANCE, 1)).await, cached(1, 0));
    assert_eq!(ask(&client, request(BALANCE, 4)).await, live(4));
    let counted = layer.counters();
    assert_eq!((counted.kept_entries, counted.kept_bytes), (3, 3 * one as u64));
    for (n, expected) in [(1, cached(1, 0)), (2, unavailable()), (3, cached(3, 0))] {
        assert_eq!(ask(&client, request(BALANCE, n)).await, expected, "{n}");
    }
}

/// An answer with a message of so many bytes.
fn kept(bytes: usize) -> Answer {
    Answer::of(framed(vec![0; bytes].into()).unwrap())
}

#[derive(Clone, Debug)]
enum Step {
    Keep { key: u8, bytes: usize },
    Find { key: u8 },
    Wait { seconds: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..8_u8, 0..1500_usize).prop_map(|(key, bytes)| Step::Keep { key, bytes }),
        (0..8_u8).prop_map(|key| Step::Find { key }),
        (1..40_u64).prop_map(|seconds| Step::Wait { seconds }),
    ];
    proptest::collection::vec(step, 0..200)
}

/// From the least to the most recently used: key, bytes of the message, weight, when it came.
type Model = Vec<(u8, usize, usize, Instant)>;

const MOST: usize = 3000;
const AGE: Duration = Duration::from_secs(60);

fn step(store: &Store, model: &mut Model, step: Step, now: &mut Instant) {
    match step {
        Step::Wait { seconds } => *now += Duration::from_secs(seconds),
        Step::Keep { key, bytes } => {
            let (name, answer) = (Key::from([key]), kept(bytes));
            let weight = weight(&name, &answer);
            store.apply(Effect::Replace(answer.into()), name, store.begin(), *now);
            model.retain(|entry| entry.0 != key);
            if weight <= MOST {
                model.push((key, bytes, weight, *now));
                while model.iter().map(|entry| entry.2).sum::<usize>() > MOST
                    || *now - model[0].3 > AGE
                {
                    model.remove(0);
                }
            }
        }
        Step::Find { key } => {
            let found = store.find(&[key], *now).map(|(answer, age)| (answer.message.len(), age));
            let place = model.iter().position(|entry| entry.0 == key);
            let entry = place.map(|place| model.remove(place));
            let entry = entry.filter(|entry| *now - entry.3 <= AGE);
            assert_eq!(found, entry.map(|entry| (5 + entry.1, *now - entry.3)));
            model.extend(entry);
        }
    }
}

proptest! {
    #[test]
    fn what_is_kept_is_what_a_plain_list_would_keep(steps in steps()) {
        let counters = Counters::default();
        let cache = Cache { max_age: AGE, max_bytes: MOST, max_answer: MOST };
        let store = Store::new(cache, counters.clone());
        let (mut model, mut now) = (Model::new(), Instant::now());
        for each in steps {
            step(&store, &mut model, each, &mut now);
            let bytes: usize = model.iter().map(|entry| entry.2).sum();
            prop_assert!(bytes <= MOST);
            let counted = counters.read();
            prop_assert_eq!(counted.kept_entries, model.len() as u64);
            prop_assert_eq!(counted.kept_bytes, bytes as u64);
        }
        drop(store);
        prop_assert_eq!(counters.read(), FallbackCounters::default());
    }
}
