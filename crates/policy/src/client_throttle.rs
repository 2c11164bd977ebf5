//! Whether a client fails calls itself while its server refuses them.

use crate::Rng;
use rand::RngExt;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::time::Instant;

/// The requests of the last 30 s, and those that the server did not refuse (Site Reliability
/// Engineering, chapter 21, "Client-Side Throttling").
#[derive(Debug)]
pub struct ClientThrottle {
    k: f64,
    rng: Rng,
    began: Instant,
    slices: [Slice; SLICES as usize],
}

/// The requests (from bit 32 on) and accepts of a second.
#[derive(Debug, Default)]
struct Slice {
    /// The number of the second.
    number: AtomicU64,
    counts: AtomicU64,
}

const SLICES: u64 = 30;
const ONE_REQUEST: u64 = 1 << 32;
const LEAST: u64 = 10;
const MOST: f64 = 0.8;

// === impl ClientThrottle ===

impl ClientThrottle {
    /// Lets through `k` times as many calls as are accepted.
    pub fn new(k: f64, rng: Rng, now: Instant) -> Self {
        Self { k, rng, began: now, slices: Default::default() }
    }

    /// That multiple.
    pub const fn k(&self) -> f64 {
        self.k
    }

    /// What it draws from.
    pub const fn rng(&self) -> &Rng {
        &self.rng
    }

    /// Counts a request, and decides whether it fails.
    pub fn throttles(&self, now: Instant) -> bool {
        let (requests, accepts) = self.sums(now);
        self.count(ONE_REQUEST, now);
        if requests < LEAST {
            return false;
        }
        let excess = requests as f64 - self.k * accepts as f64;
        let share = (excess / (requests + 1) as f64).min(MOST);
        share > 0.0 && self.rng.draw().random::<f64>() < share
    }

    /// The server did not refuse a request.
    pub fn accepted(&self, now: Instant) {
        self.count(1, now);
    }

    fn sums(&self, now: Instant) -> (u64, u64) {
        let current = self.number(now);
        let recent = self.slices.iter().filter(|slice| {
            let number = slice.number.load(Ordering::Acquire);
            current.saturating_sub(number) < SLICES
        });
        recent.fold((0, 0), |(requests, accepts), slice| {
            let counts = slice.counts.load(Ordering::Relaxed);
            (requests + (counts >> 32), accepts + (counts & (ONE_REQUEST - 1)))
        })
    }

    fn count(&self, what: u64, now: Instant) {
        let current = self.number(now);
        let slice = &self.slices[(current % SLICES) as usize];
        let number = slice.number.load(Ordering::Acquire);
        if number < current {
            let order = (Ordering::AcqRel, Ordering::Relaxed);
            let renewed = slice.number.compare_exchange(number, current, order.0, order.1);
            if renewed.is_ok() {
                slice.counts.store(0, Ordering::Release);
            }
        }
        slice.counts.fetch_add(what, Ordering::Relaxed);
    }

    /// From 1 on: a slice of number 0 has never been used.
    fn number(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_secs() + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    const DRAWS: u32 = 10_000;

    /// Of so many requests at one time, the share that fails, after so many were made and accepted.
    fn share(k: f64, requests: u32, accepts: u32) -> f64 {
        let now = Instant::now();
        let throttle = ClientThrottle::new(k, Rng::seeded(1), now);
        let throttled = (0..DRAWS).filter(|_| {
            // Each for itself, so that those before do not count.
            let one = ClientThrottle::new(k, throttle.rng().clone(), now);
            (0..requests).for_each(|_| one.count(ONE_REQUEST, now));
            (0..accepts).for_each(|_| one.accepted(now));
            one.throttles(now)
        });
        throttled.count() as f64 / f64::from(DRAWS)
    }

    #[test]
    fn the_share_that_fails_is_that_of_the_book_and_at_most_four_of_five() {
        for (k, requests, accepts, expected) in [
            (2.0, 9, 0, 0.0),
            (2.0, 10, 0, 0.8),
            (2.0, 100, 50, 0.0),
            (2.0, 99, 25, 0.49),
            (1.0, 99, 50, 0.49),
            (1.0, 99, 99, 0.0),
            (100.0, 99, 1, 0.0),
        ] {
            let share = share(k, requests, accepts);
            assert!((share - expected).abs() < 0.05, "{k} {requests} {accepts}: {share}");
        }
    }

    #[test]
    fn what_was_thirty_seconds_ago_does_not_count() {
        let began = Instant::now();
        let throttle = ClientThrottle::new(2.0, Rng::seeded(1), began);
        (0..100).for_each(|_| throttle.count(ONE_REQUEST, began));
        (0..7).for_each(|_| throttle.accepted(began));
        assert_eq!(throttle.sums(began + 29 * SECOND), (100, 7));
        assert_eq!(throttle.sums(began + 30 * SECOND), (0, 0));
        // The second takes the place of the first.
        throttle.count(ONE_REQUEST, began + 30 * SECOND);
        assert_eq!(throttle.sums(began + 30 * SECOND), (1, 0));
    }

    #[test]
    fn a_throttle_says_which_multiple_it_lets_through() {
        for k in [1.0, 2.5] {
            assert_eq!(ClientThrottle::new(k, Rng::seeded(1), Instant::now()).k(), k);
        }
    }

    #[test]
    fn a_request_that_fails_counts_as_one() {
        let now = Instant::now();
        let throttle = ClientThrottle::new(2.0, Rng::seeded(1), now);
        (0..50).for_each(|_| _ = throttle.throttles(now));
        assert_eq!(throttle.sums(now), (50, 0));
    }

    /// The share is of the requests with the one that it decides about: (10 - 2 * 3) / 11.
    #[test]
    fn the_request_that_is_decided_about_counts_in_its_own_share() {
        let share = share(2.0, 10, 3);
        assert!((share - 4.0 / 11.0).abs() < 0.012, "{share}");
    }

    #[test]
    fn each_request_counts_for_thirty_seconds() {
        let began = Instant::now();
        let throttle = ClientThrottle::new(2.0, Rng::seeded(1), began);
        for second in 0..100 {
            let now = began + second * SECOND;
            throttle.count(ONE_REQUEST, now);
            assert_eq!(throttle.sums(now), (u64::from(second + 1).min(30), 0), "{second}");
        }
    }
}
