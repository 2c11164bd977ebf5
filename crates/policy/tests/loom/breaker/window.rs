//! The slices of a window of time, of which there are fewer here.

use crate::sync::{AtomicU64, Ordering};
use loom::{model::Builder, sync::Arc, thread};
use std::time::Duration;

mod parts {
    pub(super) const SLICES: u64 = 3;
}

#[path = "../../../src/breaker/window/slices.rs"]
mod slices;

use parts::SLICES;
use slices::{Slices, read};

/// A window of three slices of 10 ns, and the calls of all threads.
struct Window {
    slices: Slices,
    calls: [AtomicU64; 4],
}

impl Window {
    fn new() -> Arc<Self> {
        let slices = Slices::new(Duration::from_nanos(10 * SLICES));
        Arc::new(Self { slices, calls: Default::default() })
    }

    fn record(&self, at: u64) {
        self.slices.move_to(at, || read(&self.calls));
        self.calls[0].fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self, at: u64) -> u64 {
        self.slices.move_to(at, || read(&self.calls));
        let (sums, start) = (read(&self.calls), self.slices.start());
        sums[0].saturating_sub(start[0])
    }
}

/// All interleavings with at most so many preemptions.
fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(check);
}

#[test]
fn no_call_is_lost_where_two_threads_begin_the_same_slice() {
    model(|| {
        let window = Window::new();
        let other = {
            let window = window.clone();
            thread::spawn(move || window.record(11))
        };
        window.record(12);
        other.join().expect("it ends");
        assert_eq!(window.count(19), 2, "in the slice in which they ended");
        assert_eq!(window.count(29), 2, "and until the window is over, to within a slice");
        assert_eq!(window.count(41), 0, "and no longer");
    });
}

#[test]
fn a_reader_during_the_start_of_a_slice_sees_no_more_calls_than_there_were() {
    model(|| {
        let window = Window::new();
        window.record(1);
        let other = {
            let window = window.clone();
            thread::spawn(move || window.record(11))
        };
        let seen = window.count(12);
        assert!((1..=2).contains(&seen), "{seen}");
        other.join().expect("it ends");
        assert_eq!(window.count(12), 2);
    });
}
