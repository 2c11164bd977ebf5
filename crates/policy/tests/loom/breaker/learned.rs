//! What a circuit learns of its methods and of their answers.

use super::{suspects::Suspects, usual::Usual};
use loom::{sync::Arc, thread};
use std::time::Duration;

#[test]
fn methods_that_fail_concurrently_are_suspects_with_one_place_each() {
    loom::model(|| {
        let suspects = Arc::new(Suspects::default());
        let other = {
            let suspects = suspects.clone();
            thread::spawn(move || [1, 3].into_iter().for_each(|method| suspects.add(method)))
        };
        [3, 5].into_iter().for_each(|method| suspects.add(method));
        other.join().expect("it ends");
        assert!([1, 3, 5].into_iter().all(|method| suspects.contains(method)));
        assert!(!suspects.contains(7), "a place is left for each that was not taken");
    });
}

#[test]
fn a_method_that_fails_during_a_clear_may_be_a_suspect_and_others_are_not() {
    loom::model(|| {
        let suspects = Arc::new(Suspects::default());
        suspects.add(1);
        let other = {
            let suspects = suspects.clone();
            thread::spawn(move || suspects.clear())
        };
        suspects.add(3);
        other.join().expect("it ends");
        assert!(!suspects.contains(1) && !suspects.contains(5));
        suspects.add(3);
        assert!(suspects.contains(3));
    });
}

#[test]
fn the_usual_time_is_one_between_the_least_and_the_most_that_threads_have_seen() {
    loom::model(|| {
        let usual = Arc::new(Usual::default());
        let other = {
            let usual = usual.clone();
            thread::spawn(move || [100, 900].into_iter().for_each(|took| usual.learn(took)))
        };
        usual.learn(200);
        let known = usual.get().expect("it has just been recorded");
        assert!((100..=900).contains(&known.as_nanos()));
        other.join().expect("it ends");
        let known = usual.get().expect("it has been recorded");
        assert!(known >= Duration::from_nanos(100) && known <= Duration::from_nanos(900));
    });
}
