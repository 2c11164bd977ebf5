//! The slowest recent answer of an endpoint.

#[path = "../../src/load/slowest.rs"]
mod slowest;

use loom::{sync::Arc, thread};
use slowest::{Slowest, WINDOW};

#[test]
fn the_slowest_answer_is_kept_whichever_thread_begins_the_next_window() {
    loom::model(|| {
        let slowest = Arc::new(Slowest::default());
        slowest.record(900, 1);
        let other = {
            let slowest = slowest.clone();
            thread::spawn(move || slowest.record(10, WINDOW))
        };
        slowest.record(20, WINDOW + 1);
        other.join().expect("it ends");
        assert_eq!(slowest.get(), Some(900));
    });
}

#[test]
fn of_two_concurrent_answers_the_slower_one_counts() {
    loom::model(|| {
        let slowest = Arc::new(Slowest::default());
        let other = {
            let slowest = slowest.clone();
            thread::spawn(move || slowest.record(20, 1))
        };
        slowest.record(10, 1);
        other.join().expect("it ends");
        assert_eq!(slowest.get(), Some(20));
    });
}
