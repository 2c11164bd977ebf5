//! The limit on calls in flight, and the queue before it.

/// Limits are fixed here.
mod adaptive {
    use cinchona_policy::Invalid;

    #[derive(Clone, Copy, Debug, Default, PartialEq)]
    pub struct Adaptive {
        pub(crate) initial: u32,
    }

    impl Adaptive {
        pub(crate) fn checked(self) -> Result<Self, Invalid> {
            Ok(self)
        }
    }
}

mod measured {
    use super::adaptive::Adaptive;
    use std::time::Duration;
    use tokio::time::Instant;

    pub(crate) struct Measured;

    impl Measured {
        pub(crate) fn new(_: Adaptive, _: Instant) -> Self {
            Self
        }

        pub(crate) fn is_met(&self, _: Instant) -> Option<u32> {
            None
        }

        pub(crate) fn record(
            &self,
            _: Option<Duration>,
            _: u32,
            _: u32,
            _: Instant,
        ) -> Option<u32> {
            None
        }
    }
}

#[path = "../../src/concurrency/criticality.rs"]
mod criticality;
#[path = "../../src/concurrency/limit.rs"]
mod limit;
#[path = "../../src/concurrency/limiter.rs"]
mod limiter;
#[path = "../../src/concurrency/waiting.rs"]
mod waiting;

use criticality::Criticality;
use limit::{Limit, Queue};
use limiter::{Entry, Limiter, Permit, Waits};
use loom::{model::Builder, thread};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::time::Instant;

/// All interleavings with at most so many preemptions.
fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(check);
}

/// One place, and so many that wait, without a time limit.
fn limiter(capacity: u32) -> Arc<Limiter> {
    let longest = Duration::MAX;
    let queue = Queue { capacity, longest, target: longest, interval: longest };
    Limiter::new(Limit::Fixed(1), queue, Instant::now())
}

fn enter(limiter: &Arc<Limiter>) -> Entry {
    limiter.enter(Criticality::default)
}

fn admitted(limiter: &Arc<Limiter>) -> Permit {
    match enter(limiter) {
        Entry::Admitted(permit) => permit,
        _ => panic!("there is a place"),
    }
}

fn waits(limiter: &Arc<Limiter>) -> Waits {
    match enter(limiter) {
        Entry::Waits(waits, _) => waits,
        _ => panic!("there is no place"),
    }
}

/// The place that it has been given.
fn given(waits: &mut Waits) -> Option<Permit> {
    match Pin::new(waits).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(permit) => permit.ok(),
        Poll::Pending => None,
    }
}

fn assert_is_idle(limiter: &Arc<Limiter>) {
    assert_eq!((limiter.in_progress(), limiter.waiting()), (0, 0));
    drop(admitted(limiter));
}

#[test]
fn a_place_that_becomes_free_while_a_call_is_queued_is_given_to_it() {
    model(|| {
        let limiter = limiter(1);
        let permit = admitted(&limiter);
        let leaving = thread::spawn(move || drop(permit));
        let entry = enter(&limiter);
        leaving.join().expect("it ends");
        match entry {
            Entry::Admitted(permit) => drop(permit),
            Entry::Waits(mut waits, _) => drop(given(&mut waits).expect("it is its turn")),
            Entry::TurnedAway => panic!("there is room for one that waits"),
        }
        assert_is_idle(&limiter);
    });
}

#[test]
fn a_place_given_to_a_call_that_leaves_is_not_lost() {
    model(|| {
        let limiter = limiter(2);
        let permit = admitted(&limiter);
        let (gone, mut next) = (waits(&limiter), waits(&limiter));
        let leaving = thread::spawn(move || drop(permit));
        drop(gone);
        leaving.join().expect("it ends");
        drop(given(&mut next).expect("it is its turn"));
        assert_is_idle(&limiter);
    });
}

#[test]
fn no_more_calls_are_in_flight_than_the_limit() {
    model(|| {
        let limiter = limiter(0);
        let caller = |limiter: Arc<Limiter>| {
            move || {
                let entry = enter(&limiter);
                assert!(limiter.in_progress() <= 1);
                drop(entry);
            }
        };
        let others = [(); 2].map(|()| thread::spawn(caller(limiter.clone())));
        caller(limiter.clone())();
        others.into_iter().for_each(|other| other.join().expect("it ends"));
        assert_is_idle(&limiter);
    });
}

#[test]
fn of_concurrent_calls_no_more_wait_than_there_is_room_for() {
    model(|| {
        let limiter = limiter(1);
        let permit = admitted(&limiter);
        let other = {
            let limiter = limiter.clone();
            thread::spawn(move || enter(&limiter))
        };
        let entries = [enter(&limiter), other.join().expect("it ends")];
        assert_eq!(limiter.waiting(), 1);
        let turned_away = entries.iter().filter(|entry| matches!(entry, Entry::TurnedAway));
        assert_eq!(turned_away.count(), 1);
        drop(entries);
        drop(permit);
        assert_is_idle(&limiter);
    });
}
