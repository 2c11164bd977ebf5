//! The tokens of a budget: those of each method, and those of all, at a given time.

use std::collections::HashMap;
use tokio::time::Instant;

/// A bucket that all methods share, and the bucket of each method that has called since it was
/// full.
///
/// All amounts are in [`UNIT`]s of a token.
#[derive(Debug)]
pub(super) struct Buckets {
    /// The deposit of a success.
    ratio: i64,
    /// The limit of the shared bucket.
    most: i64,
    /// Tokens a second, which is units a nanosecond.
    per_second: f64,
    shared: i64,
    /// When the tokens of time were last deposited in the shared bucket, and the remainder below a
    /// unit.
    refilled: Instant,
    fraction: f64,
    /// Above 0 the tokens in a method's bucket; below 0 it is empty, and the method has withdrawn
    /// so many from the shared one.
    by_method: HashMap<Box<str>, i64>,
    /// The bucket of all methods without their own.
    others: i64,
}

/// A token.
pub(super) const UNIT: i64 = 1_000_000_000;

/// The number of paths is unbounded: this many methods have a bucket.
const TRACKED: usize = 1000;

/// Twice the highest cost: so one attempt is possible, and as much is left.
const LEAST: i64 = 4 * UNIT;

// === impl Buckets ===

impl Buckets {
    pub(super) fn new(ratio: f64, burst: u32, per_second: f64, now: Instant) -> Self {
        let shared = i64::from(burst) * UNIT;
        // Rounds down, except for the error of the multiplication.
        let ratio = (ratio * UNIT as f64 + 1e-4) as i64;
        Self {
            ratio,
            most: shared.max(LEAST),
            per_second,
            shared,
            refilled: now,
            fraction: 0.0,
            by_method: HashMap::new(),
            others: 0,
        }
    }

    /// Whether a success changes nothing: while the shared bucket is full, no method has one.
    pub(super) const fn is_idle(&self) -> bool {
        self.ratio == 0 || self.is_full()
    }

    /// The tokens in the shared bucket, and its limit.
    pub(super) fn shared(&mut self, now: Instant) -> (i64, i64) {
        self.refill(now);
        (self.shared, self.most)
    }

    /// A call of `method` has succeeded.
    pub(super) fn deposit(&mut self, method: &str, now: Instant) {
        self.refill(now);
        self.add_of(method, self.ratio);
    }

    /// Returns what `method` has withdrawn.
    pub(super) fn refund(&mut self, method: &str, amount: i64) {
        self.add_of(method, amount);
    }

    /// Whether `method` can withdraw `amount`, and does: from its bucket, then from the shared one,
    /// in which it leaves as much as it has withdrawn unless it `is_alone`.
    ///
    /// Switches share a buffer in this way (dynamic thresholds, Choudhury and Hahne 1998).
    pub(super) fn withdraw(
        &mut self,
        method: &str,
        amount: i64,
        is_alone: bool,
        now: Instant,
    ) -> bool {
        self.refill(now);
        let (shared, most) = (self.shared, self.most);
        let own = self.of(method);
        let (saved, before) = ((*own).max(0), (-*own).max(0));
        let taken = (amount - saved).max(0);
        let is_fair = is_alone || before == 0 || before + taken <= shared - taken;
        if taken > shared || (taken > 0 && !is_fair) {
            return false;
        }
        *own = (*own - amount).max(-most);
        self.shared -= taken;
        true
    }

    /// Deposits into the shared bucket what `method` has withdrawn from it, then into the method's
    /// own, and what does not fit there into the shared one.
    fn add_of(&mut self, method: &str, amount: i64) {
        let most = (self.most / 10).max(LEAST);
        let own = self.of(method);
        let returned = (-*own).clamp(0, amount);
        *own += returned;
        let saved = (amount - returned).min(most - *own);
        *own += saved;
        self.add(amount - saved);
    }

    /// Deposits the tokens of the time that has passed.
    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.refilled).as_nanos();
        let earned = passed as f64 * self.per_second + self.fraction;
        self.refilled = self.refilled.max(now);
        self.fraction = earned.fract();
        self.add(earned as i64);
    }

    const fn is_full(&self) -> bool {
        self.shared == self.most
    }

    fn add(&mut self, amount: i64) {
        self.shared = self.shared.saturating_add(amount).min(self.most);
        if self.is_full() {
            self.by_method.clear();
            self.others = 0;
        }
    }

    /// The tokens of `method`.
    fn of(&mut self, method: &str) -> &mut i64 {
        if self.by_method.len() < TRACKED && !self.by_method.contains_key(method) {
            self.by_method.insert(method.into(), 0);
        }
        self.by_method.get_mut(method).unwrap_or(&mut self.others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);
    const METHODS: [&str; 4] = ["a", "b", "c", "d"];

    fn tokens_of(buckets: &Buckets, method: &str) -> i64 {
        buckets.by_method.get(method).copied().unwrap_or(0)
    }

    /// How often `method` can withdraw one token.
    fn paid(buckets: &mut Buckets, method: &str, tries: usize, now: Instant) -> usize {
        (0..tries).filter(|_| buckets.withdraw(method, UNIT, false, now)).count()
    }

    proptest! {
        #[test]
        fn no_method_takes_what_another_saved_or_more_of_the_shared_bucket_than_it_leaves(
            ratio in 0.0..2.0f64,
            burst in 0u32..30,
            per_second in prop_oneof![Just(0.0), 0.0..3.0f64],
            steps in proptest::collection::vec((0..METHODS.len(), 0i64..3, 0u64..1000), 0..300),
        ) {
            let mut now = Instant::now();
            let mut buckets = Buckets::new(ratio, burst, per_second, now);
            for (index, tokens, millis) in steps {
                now += Duration::from_millis(millis / 10);
                let method = METHODS[index];
                buckets.refill(now);
                let before: Vec<i64> = METHODS.map(|method| tokens_of(&buckets, method)).into();
                let (shared, amount) = (buckets.shared, tokens * UNIT);
                if tokens == 0 {
                    buckets.deposit(method, now);
                } else if buckets.withdraw(method, amount, false, now) {
                    let (taken, left) = (-tokens_of(&buckets, method), buckets.shared);
                    prop_assert!(before[index] >= 0 || taken <= left, "took {taken}, left {left}");
                    let saved = before[index].max(0).min(amount);
                    prop_assert_eq!(shared - left, amount - saved);
                } else {
                    // It has withdrawn too much, or there is not enough.
                    prop_assert!(before[index] < 0 || shared + before[index] < amount);
                }
                if !buckets.is_full() {
                    for other in (0..METHODS.len()).filter(|other| *other != index) {
                        prop_assert_eq!(tokens_of(&buckets, METHODS[other]), before[other]);
                    }
                }
                prop_assert!((0..=buckets.most).contains(&buckets.shared));
            }
        }
    }

    #[test]
    fn a_success_returns_what_was_taken_then_saves_then_fills_the_shared_bucket() {
        let now = Instant::now();
        let mut buckets = Buckets::new(0.5, 100, 0.0, now);
        assert_eq!(paid(&mut buckets, "bad", 80, now), 50);
        assert_eq!(paid(&mut buckets, "good", 1, now), 1);
        assert_eq!(buckets.shared, 49 * UNIT);
        (0..2).for_each(|_| buckets.deposit("good", now));
        assert_eq!((tokens_of(&buckets, "good"), buckets.shared), (0, 50 * UNIT));
        (0..20).for_each(|_| buckets.deposit("good", now));
        assert_eq!((tokens_of(&buckets, "good"), buckets.shared), (10 * UNIT, 50 * UNIT));
        (0..4).for_each(|_| buckets.deposit("good", now));
        assert_eq!((tokens_of(&buckets, "good"), buckets.shared), (10 * UNIT, 52 * UNIT));
        assert_eq!(paid(&mut buckets, "good", 10, now), 10);
        assert_eq!(buckets.shared, 52 * UNIT);
        (0..116).for_each(|_| buckets.deposit("good", now));
        assert!(buckets.is_full() && buckets.by_method.is_empty());
    }

    #[test]
    fn ten_successes_at_a_tenth_pay_for_one_attempt() {
        for (ratio, needed) in
            [(0.1, 10), (0.2, 5), (0.29, 4), (0.07, 15), (0.001, 1000), (100.0, 1)]
        {
            let now = Instant::now();
            let mut buckets = Buckets::new(ratio, 0, 0.0, now);
            (1..needed).for_each(|_| buckets.deposit("a", now));
            assert_eq!(paid(&mut buckets, "a", 1, now), 0, "{ratio}");
            buckets.deposit("a", now);
            assert_eq!(paid(&mut buckets, "a", 1, now), 1, "{ratio}");
        }
    }

    #[test]
    fn time_worth_less_than_a_unit_is_not_lost_however_often_it_is_read() {
        for per_second in [0.7, 1e-3, 3e-7, 12_345.678] {
            let began = Instant::now();
            let mut buckets = Buckets::new(0.0, 1_000_000, per_second, began);
            buckets.shared = 0;
            let mut now = began;
            for step in 0..10_000u64 {
                now += Duration::from_nanos(step % 97);
                buckets.refill(now);
            }
            let exact = (now - began).as_secs_f64() * per_second * UNIT as f64;
            assert!((buckets.shared as f64 - exact).abs() < 2.0, "{} of {exact}", buckets.shared);
        }
    }

    #[test]
    fn any_value_any_idleness_and_a_clock_that_goes_back_work() {
        let began = Instant::now();
        for ratio in [0.0, f64::MIN_POSITIVE, 1e-9, 100.0] {
            for burst in [0, 1, u32::MAX] {
                for per_second in [0.0, f64::MIN_POSITIVE, 1e-12, 1e6] {
                    let mut buckets = Buckets::new(ratio, burst, per_second, began);
                    let years = |n: u64| began + Duration::from_secs(n * 365 * 86_400);
                    for now in [began, began, years(500), began, years(2), years(90_000)] {
                        for method in METHODS {
                            buckets.withdraw(method, 2 * UNIT, true, now);
                            buckets.deposit(method, now);
                            buckets.refund(method, 2 * UNIT);
                        }
                        let (shared, most) = buckets.shared(now);
                        assert!((0..=most).contains(&shared), "{shared} of {most}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_bucket_without_a_burst_fills_up_to_four_tokens() {
        let now = Instant::now();
        let mut buckets = Buckets::new(0.0, 0, 1.0, now);
        assert_eq!(buckets.shared(now), (0, 4 * UNIT));
        assert_eq!(buckets.shared(now + 3600 * SECOND), (4 * UNIT, 4 * UNIT));
    }

    #[test]
    fn what_costs_nothing_is_paid_by_the_method_that_took_more_than_it_left() {
        let now = Instant::now();
        let mut buckets = Buckets::new(0.0, 10, 0.0, now);
        assert!(buckets.withdraw("bad", 5 * UNIT, true, now));
        assert!(buckets.withdraw("bad", 2 * UNIT, true, now));
        assert!(!buckets.withdraw("bad", UNIT, false, now), "it took 7, and 3 are left");
        assert!(buckets.withdraw("bad", 0, false, now));
    }

    #[test]
    fn a_thousand_methods_have_buckets_and_the_others_share_one() {
        let now = Instant::now();
        let mut buckets = Buckets::new(0.01, 100, 0.0, now);
        buckets.withdraw("bad", 50 * UNIT, false, now);
        for n in 0..5000 {
            buckets.deposit(&format!("/a.B/{n}"), now);
        }
        assert_eq!(buckets.by_method.len(), TRACKED);
        assert_eq!(buckets.others, 10 * UNIT);
        buckets.deposit("/a.B/0", now);
        assert_eq!(tokens_of(&buckets, "/a.B/0"), UNIT / 50);
        assert!(buckets.withdraw("/a.B/4999", UNIT, false, now));
        assert_eq!(buckets.others, 9 * UNIT);
    }
}
