//! Every interleaving of two or three threads, by a model checker, over the sources themselves.
#![allow(missing_docs, dead_code, unreachable_pub)]

mod sync {
    pub(crate) use loom::sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU8, Ordering},
    };
}

#[path = "../src/phases.rs"]
mod phases;

use loom::thread;
use phases::{Phase, Shared};
use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
};

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn every_task_that_waits_for_a_phase_is_woken() {
    loom::model(|| {
        let shared = Arc::new(Shared::default());
        let other = {
            let shared = shared.clone();
            thread::spawn(move || shared.advance(Phase::Cut))
        };
        let mut reached = pin!(shared.clone().reached(Phase::Over));
        let mut cx = Context::from_waker(Waker::noop());
        let is_over = reached.as_mut().poll(&mut cx).is_ready();
        other.join().expect("it ends");
        assert!(is_over || reached.as_mut().poll(&mut cx).is_ready());
    });
}

#[test]
fn the_phase_never_goes_back() {
    loom::model(|| {
        let shared = Arc::new(Shared::default());
        let other = {
            let shared = shared.clone();
            thread::spawn(move || shared.advance(Phase::Draining))
        };
        shared.advance(Phase::Over);
        assert_eq!(shared.phase(), Phase::Over);
        other.join().expect("it ends");
        assert_eq!(shared.phase(), Phase::Over);
    });
}

#[test]
fn a_connection_that_opens_during_the_cut_sees_it_or_is_woken() {
    loom::model(|| {
        let shared = Arc::new(Shared::default());
        let other = {
            let shared = shared.clone();
            thread::spawn(move || shared.advance(Phase::Cut))
        };
        let (open, woken) = (shared.open(), Arc::new(Woken::default()));
        open.task.register(&woken.clone().into());
        let is_cut = open.is_cut();
        other.join().expect("it ends");
        assert!(is_cut || woken.0.load(Ordering::Relaxed));
        drop(open);
        assert_eq!(shared.connections(), 0);
    });
}
