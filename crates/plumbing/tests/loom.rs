//! Every interleaving of two or three threads, by a model checker, over the sources themselves.
#![allow(missing_docs, dead_code, unreachable_pub)]

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicUsize, Ordering};
}

#[path = "../src/replay/buffer.rs"]
mod buffer;

use buffer::{ReplayBuffer, Reservation};
use loom::thread;

#[test]
fn bytes_that_do_not_fit_displace_no_others() {
    loom::model(|| {
        let buffer = ReplayBuffer::new(20, 10);
        let other = {
            let buffer = buffer.clone();
            thread::spawn(move || assert!(!Reservation::new(&buffer).add(20), "it never fits"))
        };
        assert!(Reservation::new(&buffer).add(10), "it always fits");
        other.join().expect("it ends");
        assert_eq!(buffer.used(), 0);
    });
}

#[test]
fn all_kept_bytes_fit_and_dropped_ones_are_freed() {
    loom::model(|| {
        let buffer = ReplayBuffer::new(10, 10);
        let keep = |buffer: ReplayBuffer, bytes: usize| {
            move || {
                let mut kept = Reservation::new(&buffer);
                let is_kept = kept.add(bytes);
                assert!(buffer.used() <= 10);
                is_kept
            }
        };
        let other = thread::spawn(keep(buffer.clone(), 6));
        let kept = [keep(buffer.clone(), 7)(), other.join().expect("it ends")];
        assert!(kept.contains(&true), "the first fits");
        assert_eq!(buffer.used(), 0);
    });
}
