//! How long a service usually takes to answer.

use crate::breaker::usual::*;
use proptest::prelude::*;

#[test]
fn it_is_between_the_fast_and_the_slow_and_follows_a_change() {
    let usual = Usual::default();
    assert_eq!(usual.get(), None);
    let after = |answers: &mut dyn Iterator<Item = u64>| {
        answers.for_each(|millis| usual.learn(millis * 1_000_000));
        usual.get().unwrap().as_millis()
    };
    assert_eq!(after(&mut [5; 1].into_iter()), 5);
    // Nothing is written where nothing changes.
    assert_eq!(after(&mut [4, 6, 5, 3].into_iter().cycle().take(100)), 5);
    assert!((240..=300).contains(&after(&mut [300; 4].into_iter())));
    assert!((5..=10).contains(&after(&mut [5; 60].into_iter())));
    let mixed = after(&mut [1, 1, 1, 1, 1, 1, 1, 1, 1, 500].into_iter().cycle().take(1000));
    assert!((100..=300).contains(&mixed), "{mixed}");
}

#[test]
fn what_is_no_more_than_a_quarter_longer_or_half_as_long_is_usual() {
    for (took, learned) in [(1250, 1000), (1251, 1126), (500, 1000), (499, 938), (3000, 2000)] {
        let usual = Usual::default();
        usual.learn(1000);
        usual.learn(took);
        assert_eq!(usual.get(), Some(std::time::Duration::from_nanos(learned)), "{took}");
    }
}

proptest! {
    #[test]
    fn it_stays_between_the_least_and_the_most(
        answers in proptest::collection::vec(any::<u64>(), 1..50),
    ) {
        let usual = Usual::default();
        answers.iter().for_each(|took| usual.learn(*took));
        let usual = usual.get().unwrap().as_nanos() as u64;
        prop_assert!(usual >= (*answers.iter().min().unwrap()).max(1));
        prop_assert!(usual <= (*answers.iter().max().unwrap()).max(1));
    }
}
