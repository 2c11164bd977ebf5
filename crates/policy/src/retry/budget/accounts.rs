//! The tokens of a budget: the balance of each method at a given time.

use std::collections::HashMap;
use tokio::time::Instant;

/// A pot that all methods share, and the account of each method in debt or with savings.
///
/// All amounts are in [`UNIT`]s of a token.
#[derive(Debug)]
pub(super) struct Accounts {
    /// The deposit of a success.
    ratio: i64,
    /// The limit of the pot.
    most: i64,
    /// Tokens a second, which is units a nanosecond.
    per_second: f64,
    pot: i64,
    /// When time was last credited to the pot, and the remainder below a unit.
    refilled: Instant,
    fraction: f64,
    /// Above 0 the savings of a method, below 0 its debt to the pot.
    balances: HashMap<Box<str>, i64>,
    /// The account of all methods without their own.
    untracked: i64,
}

/// A token.
pub(super) const UNIT: i64 = 1_000_000_000;

/// The number of paths is unbounded: this many methods have their own accounts.
const TRACKED: usize = 1000;

/// Twice the highest cost: so one attempt is possible, and as much is left.
const LEAST: i64 = 4 * UNIT;

// === impl Accounts ===

impl Accounts {
    pub(super) fn new(ratio: f64, burst: u32, per_second: f64, now: Instant) -> Self {
        let pot = i64::from(burst) * UNIT;
        // Rounds down, except for the error of the multiplication.
        let ratio = (ratio * UNIT as f64 + 1e-4) as i64;
        Self {
            ratio,
            most: pot.max(LEAST),
            per_second,
            pot,
            refilled: now,
            fraction: 0.0,
            balances: HashMap::new(),
            untracked: 0,
        }
    }

    /// Whether a success changes nothing: as long as the pot is full, no method has an account.
    pub(super) const fn is_idle(&self) -> bool {
        self.ratio == 0 || self.is_full()
    }

    /// The tokens in the pot, and their limit.
    pub(super) fn pot(&mut self, now: Instant) -> (i64, i64) {
        self.refill(now);
        (self.pot, self.most)
    }

    /// A call of `method` has succeeded.
    pub(super) fn deposit(&mut self, method: Option<&str>, now: Instant) {
        self.refill(now);
        match method {
            Some(method) => self.credit(method, self.ratio),
            None => self.add(self.ratio),
        }
    }

    /// Returns what `method` has withdrawn.
    pub(super) fn refund(&mut self, method: &str, amount: i64) {
        self.credit(method, amount);
    }

    /// Whether `method` can withdraw `amount`, and does: from its savings, then from the pot, in
    /// which it leaves as much as its debt unless it `is_alone`.
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
        let (pot, most) = (self.pot, self.most);
        let balance = self.balance(method);
        let (saved, owed) = ((*balance).max(0), (-*balance).max(0));
        let taken = (amount - saved).max(0);
        let is_fair = is_alone || owed == 0 || owed + taken <= pot - taken;
        if taken > pot || (taken > 0 && !is_fair) {
            return false;
        }
        *balance = (*balance - amount).max(-most);
        self.pot -= taken;
        true
    }

    /// Repays the debt of `method`, saves the rest, and moves the excess into the pot.
    fn credit(&mut self, method: &str, amount: i64) {
        let most = (self.most / 10).max(LEAST);
        let balance = self.balance(method);
        let repaid = (-*balance).clamp(0, amount);
        *balance += repaid;
        let saved = (amount - repaid).min(most - *balance);
        *balance += saved;
        self.add(amount - saved);
    }

    /// Credits the time that has passed.
    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.refilled).as_nanos();
        let earned = passed as f64 * self.per_second + self.fraction;
        self.refilled = self.refilled.max(now);
        self.fraction = earned.fract();
        self.add(earned as i64);
    }

    const fn is_full(&self) -> bool {
        self.pot == self.most
    }

    fn add(&mut self, amount: i64) {
        self.pot = self.pot.saturating_add(amount).min(self.most);
        if self.is_full() {
            self.balances.clear();
            self.untracked = 0;
        }
    }

    fn balance(&mut self, method: &str) -> &mut i64 {
        if self.balances.len() < TRACKED && !self.balances.contains_key(method) {
            self.balances.insert(method.into(), 0);
        }
        self.balances.get_mut(method).unwrap_or(&mut self.untracked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);
    const METHODS: [&str; 4] = ["a", "b", "c", "d"];

    fn balance_of(accounts: &Accounts, method: &str) -> i64 {
        accounts.balances.get(method).copied().unwrap_or(0)
    }

    /// How often `method` can withdraw one token.
    fn paid(accounts: &mut Accounts, method: &str, tries: usize, now: Instant) -> usize {
        (0..tries).filter(|_| accounts.withdraw(method, UNIT, false, now)).count()
    }

    proptest! {
        #[test]
        fn no_method_spends_what_another_saved_or_more_of_the_pot_than_it_leaves(
            ratio in 0.0..2.0f64,
            burst in 0u32..30,
            per_second in prop_oneof![Just(0.0), 0.0..3.0f64],
            steps in proptest::collection::vec((0..METHODS.len(), 0i64..3, 0u64..1000), 0..300),
        ) {
            let mut now = Instant::now();
            let mut accounts = Accounts::new(ratio, burst, per_second, now);
            for (index, tokens, millis) in steps {
                now += Duration::from_millis(millis / 10);
                let method = METHODS[index];
                accounts.refill(now);
                let before: Vec<i64> = METHODS.map(|method| balance_of(&accounts, method)).into();
                let (pot, amount) = (accounts.pot, tokens * UNIT);
                if tokens == 0 {
                    accounts.deposit(Some(method), now);
                } else if accounts.withdraw(method, amount, false, now) {
                    let (owed, left) = (-balance_of(&accounts, method), accounts.pot);
                    prop_assert!(before[index] >= 0 || owed <= left, "owes {owed}, left {left}");
                    let saved = before[index].max(0).min(amount);
                    prop_assert_eq!(pot - left, amount - saved);
                } else {
                    // It is in debt, or there is not enough.
                    prop_assert!(before[index] < 0 || pot + before[index] < amount);
                }
                if !accounts.is_full() {
                    for other in (0..METHODS.len()).filter(|other| *other != index) {
                        prop_assert_eq!(balance_of(&accounts, METHODS[other]), before[other]);
                    }
                }
                prop_assert!((0..=accounts.most).contains(&accounts.pot));
            }
        }
    }

    #[test]
    fn a_success_repays_then_saves_then_fills_the_pot() {
        let now = Instant::now();
        let mut accounts = Accounts::new(0.5, 100, 0.0, now);
        assert_eq!(paid(&mut accounts, "bad", 80, now), 50);
        assert_eq!(paid(&mut accounts, "good", 1, now), 1);
        assert_eq!(accounts.pot, 49 * UNIT);
        (0..2).for_each(|_| accounts.deposit(Some("good"), now));
        assert_eq!((balance_of(&accounts, "good"), accounts.pot), (0, 50 * UNIT));
        (0..20).for_each(|_| accounts.deposit(Some("good"), now));
        assert_eq!((balance_of(&accounts, "good"), accounts.pot), (10 * UNIT, 50 * UNIT));
        (0..4).for_each(|_| accounts.deposit(Some("good"), now));
        assert_eq!((balance_of(&accounts, "good"), accounts.pot), (10 * UNIT, 52 * UNIT));
        assert_eq!(paid(&mut accounts, "good", 10, now), 10);
        assert_eq!(accounts.pot, 52 * UNIT);
        (0..96).for_each(|_| accounts.deposit(None, now));
        assert!(accounts.is_full() && accounts.balances.is_empty());
    }

    #[test]
    fn ten_successes_at_a_tenth_pay_for_one_attempt() {
        for (ratio, needed) in
            [(0.1, 10), (0.2, 5), (0.29, 4), (0.07, 15), (0.001, 1000), (100.0, 1)]
        {
            let now = Instant::now();
            let mut accounts = Accounts::new(ratio, 0, 0.0, now);
            (1..needed).for_each(|_| accounts.deposit(Some("a"), now));
            assert_eq!(paid(&mut accounts, "a", 1, now), 0, "{ratio}");
            accounts.deposit(Some("a"), now);
            assert_eq!(paid(&mut accounts, "a", 1, now), 1, "{ratio}");
        }
    }

    #[test]
    fn time_worth_less_than_a_unit_is_not_lost_however_often_it_is_read() {
        for per_second in [0.7, 1e-3, 3e-7, 12_345.678] {
            let began = Instant::now();
            let mut accounts = Accounts::new(0.0, 1_000_000, per_second, began);
            accounts.pot = 0;
            let mut now = began;
            for step in 0..10_000u64 {
                now += Duration::from_nanos(step % 97);
                accounts.refill(now);
            }
            let exact = (now - began).as_secs_f64() * per_second * UNIT as f64;
            assert!((accounts.pot as f64 - exact).abs() < 2.0, "{} of {exact}", accounts.pot);
        }
    }

    #[test]
    fn any_value_any_idleness_and_a_clock_that_goes_back_work() {
        let began = Instant::now();
        for ratio in [0.0, f64::MIN_POSITIVE, 1e-9, 100.0] {
            for burst in [0, 1, u32::MAX] {
                for per_second in [0.0, f64::MIN_POSITIVE, 1e-12, 1e6] {
                    let mut accounts = Accounts::new(ratio, burst, per_second, began);
                    let years = |n: u64| began + Duration::from_secs(n * 365 * 86_400);
                    for now in [began, began, years(500), began, years(2), years(90_000)] {
                        for method in METHODS {
                            accounts.withdraw(method, 2 * UNIT, true, now);
                            accounts.deposit(Some(method), now);
                            accounts.refund(method, 2 * UNIT);
                        }
                        let (pot, most) = accounts.pot(now);
                        assert!((0..=most).contains(&pot), "{pot} of {most}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_pot_without_a_burst_fills_up_to_four_tokens() {
        let now = Instant::now();
        let mut accounts = Accounts::new(0.0, 0, 1.0, now);
        assert_eq!(accounts.pot(now), (0, 4 * UNIT));
        assert_eq!(accounts.pot(now + 3600 * SECOND), (4 * UNIT, 4 * UNIT));
    }

    #[test]
    fn what_costs_nothing_is_paid_by_the_one_who_owes_more_than_there_is() {
        let now = Instant::now();
        let mut accounts = Accounts::new(0.0, 10, 0.0, now);
        assert!(accounts.withdraw("bad", 5 * UNIT, true, now));
        assert!(accounts.withdraw("bad", 2 * UNIT, true, now));
        assert!(!accounts.withdraw("bad", UNIT, false, now), "it owes 7 of the 3 that are left");
        assert!(accounts.withdraw("bad", 0, false, now));
    }

    #[test]
    fn a_thousand_methods_have_accounts_and_the_others_share_one() {
        let now = Instant::now();
        let mut accounts = Accounts::new(0.01, 100, 0.0, now);
        accounts.withdraw("bad", 50 * UNIT, false, now);
        for n in 0..5000 {
            accounts.deposit(Some(&format!("/a.B/{n}")), now);
        }
        assert_eq!(accounts.balances.len(), TRACKED);
        assert_eq!(accounts.untracked, 10 * UNIT);
        accounts.deposit(Some("/a.B/0"), now);
        assert_eq!(balance_of(&accounts, "/a.B/0"), UNIT / 50);
        assert!(accounts.withdraw("/a.B/4999", UNIT, false, now));
        assert_eq!(accounts.untracked, 9 * UNIT);
    }
}
