//! Picks among endpoints that are numbers.

use super::*;
use crate::Rng;
use proptest::prelude::*;
use std::cell::Cell;

/// What is known of each endpoint, by its number.
#[derive(Clone, Debug, Default)]
struct World {
    absent: Vec<usize>,
    used: Vec<usize>,
    shut: Vec<usize>,
    in_flight: Vec<usize>,
    asked: Cell<usize>,
}

impl Endpoints for World {
    type Endpoint = usize;

    fn can_have(&self, endpoint: &usize) -> bool {
        !self.absent.contains(endpoint)
    }

    fn is_new(&self, endpoint: &usize) -> bool {
        !self.used.contains(endpoint)
    }

    fn is_open(&self, endpoint: &usize) -> bool {
        self.asked.set(self.asked.get() + 1);
        !self.shut.contains(endpoint)
    }

    fn in_flight(&self, endpoint: &usize) -> usize {
        self.in_flight.get(*endpoint).copied().unwrap_or_default()
    }

    /// The other way round, so that it is seen which of the two is asked.
    fn cost(&self, endpoint: &usize) -> f64 {
        -(self.in_flight(endpoint) as f64)
    }
}

const ALL: [Picker; 6] = [
    Picker::PeakEwma,
    Picker::LeastRequest,
    Picker::Random,
    Picker::RoundRobin,
    Picker::WeightedRoundRobin,
    Picker::PickFirst,
];

/// How often each of so many endpoints is picked, in so many picks.
fn spread(picker: Picker, weights: &[f64], world: &World, picks: usize) -> Vec<usize> {
    let picking = Picking::new(picker, Rng::seeded(1));
    let (all, strides) = ((0..weights.len()).collect::<Vec<_>>(), Strides::new(weights));
    let mut spread = vec![0; all.len()];
    for _ in 0..picks {
        spread[*picking.pick(&all, &strides, world).unwrap()] += 1;
    }
    spread
}

#[test]
fn each_picker_spreads_calls_by_its_own_rule() {
    let world = World { in_flight: vec![3, 2, 1], ..World::default() };
    let even = |seen: Vec<usize>| seen.iter().all(|count| (900..1100).contains(count));
    assert_eq!(spread(Picker::RoundRobin, &[1.0; 3], &world, 3000), [1000; 3]);
    assert!(even(spread(Picker::Random, &[1.0; 3], &world, 3000)));
    assert_eq!(spread(Picker::PickFirst, &[1.0; 3], &world, 3000), [3000, 0, 0]);
    // The worst of three is the better of no two, and the best is in two of three pairs. But all
    // eight draws may be the same one.
    let by_calls = spread(Picker::LeastRequest, &[1.0; 3], &world, 3000);
    assert!(by_calls[0] < 10 && (1900..2100).contains(&by_calls[2]), "{by_calls:?}");
    let by_cost = spread(Picker::PeakEwma, &[1.0; 3], &world, 3000);
    assert!(by_cost[2] < 10 && (1900..2100).contains(&by_cost[0]), "{by_cost:?}");
}

#[test]
fn each_gets_as_many_calls_as_its_weight_says_and_none_is_left_out() {
    let seen = spread(Picker::WeightedRoundRobin, &[1.0, 2.0, 5.0], &World::default(), 8000);
    for (seen, expected) in seen.iter().zip([1000, 2000, 5000]) {
        assert!(seen.abs_diff(expected) <= 2, "{seen} of {expected}");
    }
    let seen = spread(Picker::WeightedRoundRobin, &[1e-300, 1.0], &World::default(), 1 << 17);
    assert!(seen[0] > 0, "{seen:?}");
}

/// gRFC A58: endpoints of one weight are offset, so none of them is skipped with the others.
#[test]
fn endpoints_of_the_same_weight_take_turns() {
    let picking = Picking::new(Picker::WeightedRoundRobin, Rng::seeded(1));
    let (all, strides) = ([0, 1, 2], Strides::new(&[2.0, 1.0, 1.0]));
    let picks: Vec<usize> =
        (0..400).map(|_| *picking.pick(&all, &strides, &World::default()).unwrap()).collect();
    let alternate = |two: &[usize]| (two[0] == 0) != (two[1] == 0);
    assert!(picks.windows(2).all(alternate), "{picks:?}");
}

/// One of three is all that eight draws find in one of 2187 picks.
#[test]
fn the_worst_of_three_is_seldom_all_that_is_drawn() {
    let world = World { in_flight: vec![3, 2, 1], ..World::default() };
    let seen = spread(Picker::LeastRequest, &[1.0; 3], &world, 43_740);
    assert!((5..=40).contains(&seen[0]), "{seen:?}");
}

proptest! {
    /// What nobody else would take is taken last: one that is shut after one that was used, and
    /// one that is absent never.
    #[test]
    fn the_best_kind_of_endpoint_that_there_is_gets_the_call(
        absent in proptest::collection::vec(0..6_usize, 0..6),
        used in proptest::collection::vec(0..6_usize, 0..6),
        shut in proptest::collection::vec(0..6_usize, 0..6),
        count in 0..6_usize,
        seed: u64,
    ) {
        let world = World { absent, used, shut, ..World::default() };
        let all: Vec<usize> = (0..count).collect();
        let rank = |one: &usize| match (world.can_have(one), world.is_open(one)) {
            (false, _) => None,
            (true, false) => Some(2),
            (true, true) => Some(usize::from(!world.is_new(one))),
        };
        let best = all.iter().filter_map(rank).min();
        for picker in ALL {
            let picking = Picking::new(picker, Rng::seeded(seed));
            let picked = picking.pick(&all, &Strides::new(&vec![1.0; count]), &world);
            prop_assert_eq!(picked.and_then(rank), best, "{:?}", picker);
        }
    }
}

#[test]
fn one_endpoint_alone_is_not_asked_whether_its_gate_is_open() {
    let world = World { shut: vec![0], ..World::default() };
    for picker in ALL {
        assert_eq!(spread(picker, &[1.0], &world, 10), [10]);
    }
    assert_eq!(world.asked.get(), 0);
}

#[test]
fn the_same_seed_picks_the_same() {
    for picker in ALL {
        let picks = || {
            let picking = Picking::new(picker, Rng::seeded(7));
            let all: Vec<usize> = (0..5).collect();
            let strides = Strides::new(&[1.0; 5]);
            let pick = |_| *picking.pick(&all, &strides, &World::default()).unwrap();
            (0..100).map(pick).collect::<Vec<_>>()
        };
        assert_eq!(picks(), picks(), "{picker:?}");
    }
}
