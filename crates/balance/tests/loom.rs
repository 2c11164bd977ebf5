//! Every interleaving of two or three threads, by a model checker, over the sources themselves.
#![allow(missing_docs, dead_code, unreachable_pub)]

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicUsize, Ordering};
}

#[path = "../src/stir.rs"]
mod stir;

use cinchona_balance::State;
use loom::{sync::Arc, thread};
use std::{
    pin::pin,
    task::{Context, Waker},
};
use stir::Stir;

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
