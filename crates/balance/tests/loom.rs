//! Every interleaving of two or three threads, by a model checker, over the sources themselves.
#![allow(missing_docs, dead_code, unreachable_pub)]

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
}

#[path = "../src/load/slowest.rs"]
mod slowest;
#[path = "../src/stir.rs"]
mod stir;

use cinchona_balance::State;
use loom::{sync::Arc, thread};
use slowest::{Slowest, WINDOW};
use std::{
    pin::pin,
    task::{Context, Waker},
};
use stir::Stir;

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

#[test]
fn of_endpoints_that_fail_concurrently_the_last_one_notifies() {
    loom::model(|| {
        let stir = Arc::new(Stir::new(false));
        [State::Connecting; 2].into_iter().for_each(|state| stir.comes(state));
        let fails =
            |stir: Arc<Stir>| move || stir.changes(State::Connecting, State::TransientFailure);
        let other = thread::spawn(fails(stir.clone()));
        fails(stir.clone())();
        other.join().expect("it ends");
        assert!(!stir.has_some_under_way());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(pin!(stir.heard()).poll(&mut cx).is_ready());
    });
}
