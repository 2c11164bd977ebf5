//! The bucket of the retry throttle.

#[path = "../../src/retry/throttle/bucket.rs"]
mod bucket;

use bucket::{Bucket, TOKEN};
use loom::{sync::Arc, thread};

/// What two threads leave in a bucket of two tokens equals a sequential order: `take` in one of
/// them, and `others` in the other; true gives.
fn agrees(left: u64, others: [bool; 2]) {
    const MAX: u64 = 2 * TOKEN;
    let step = |left: u64, gives: bool| {
        if gives { (left + TOKEN / 2).min(MAX) } else { left.saturating_sub(TOKEN) }
    };
    let [first, second] = others;
    let orders = [[false, first, second], [first, false, second], [first, second, false]];
    let possible = orders.map(|steps| steps.into_iter().fold(left, step));
    loom::model(move || {
        let bucket = Arc::new(Bucket::new(MAX, TOKEN / 2, left));
        let other = {
            let bucket = bucket.clone();
            thread::spawn(move || bucket.take())
        };
        others.into_iter().for_each(|gives| if gives { bucket.give() } else { bucket.take() });
        other.join().expect("it ends");
        assert!(possible.contains(&bucket.left()), "{} of {possible:?}", bucket.left());
    });
}

#[test]
fn concurrent_withdrawals_and_deposits_are_as_if_sequential() {
    for left in [0, TOKEN / 2, TOKEN, 2 * TOKEN] {
        for others in [[false, false], [false, true], [true, false], [true, true]] {
            agrees(left, others);
        }
    }
}
