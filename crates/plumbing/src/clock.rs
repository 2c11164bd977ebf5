//! Saturating arithmetic on clocks, so that `Duration::MAX` means without limit; and one clock
//! reading for all layers that pass a request on.

pub use cinchona_policy::clock::{FOR_EVER, later, millis, nanos, period, times};

use std::cell::Cell;
use tokio::time::Instant;

thread_local! {
    /// When the request that this thread is passing on arrived at the outermost layer.
    static PASSING: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// While the guard lives, a request is passed on from layer to layer.
#[derive(Debug)]
#[must_use = "it lasts until the request was handed on"]
pub struct Passing {
    now: Instant,
    is_outermost: bool,
}

// === impl Passing ===

impl Passing {
    /// Begins when a layer is called. The outermost reads the clock; those that it calls without a
    /// wait in between reuse the reading.
    #[inline]
    pub fn begin() -> Self {
        if let Some(now) = PASSING.get() {
            return Self { now, is_outermost: false };
        }
        let now = Instant::now();
        PASSING.set(Some(now));
        Self { now, is_outermost: true }
    }

    /// When the request arrived.
    pub const fn now(&self) -> Instant {
        self.now
    }
}

impl Drop for Passing {
    #[inline]
    fn drop(&mut self) {
        if self.is_outermost {
            PASSING.set(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn layers_that_pass_a_request_on_share_one_time_and_later_ones_do_not() {
        let outer = Passing::begin();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(Passing::begin().now(), outer.now());
        assert_eq!(Passing::begin().now(), outer.now(), "the inner one has ended nothing");
        let began = outer.now();
        drop(outer);
        assert_eq!(Passing::begin().now() - began, Duration::from_secs(1));
        std::panic::catch_unwind(|| {
            let _passing = Passing::begin();
            panic!("by a service");
        })
        .unwrap_err();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(Passing::begin().now() - began, Duration::from_secs(2));
    }
}
