//! A limit on the load that retries and hedges add.

mod buckets;

use crate::{Code, Invalid, Stage, Verdict};
use buckets::{Buckets, UNIT};
use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError,
    atomic::{AtomicBool, Ordering},
};
use tokio::time::Instant;

/// How many attempts beyond the first the calls of a client may make.
///
/// In any order of events, the further attempts that a server may have executed are at most `ratio
/// · calls + burst + per_second · seconds`. The cost of another attempt depends on what it follows:
///
/// | after | tokens |
/// |---|---|
/// | a request that never left the client | 0 |
/// | a failure that may pass, or as a hedge | 1 |
/// | a timeout, as the server may still be executing it | 2 |
/// | `RESOURCE_EXHAUSTED` or pushback, as the server is overloaded | 2 |
///
/// *Deposits:* the shared bucket begins with `burst` tokens, gains `per_second` with time, and
/// holds at most `burst` (at least 4). While it is not full, each call that succeeds deposits
/// `ratio` for its own method: first into the shared bucket, as much as the method has withdrawn
/// from it; then into the method's own bucket, up to a tenth of the shared one's limit (at least
/// 4); the rest into the shared bucket. A further attempt withdraws from its method's bucket, then
/// from the shared one. When the shared bucket is full, the buckets of methods are removed.
///
/// *Withdrawals:* no method withdraws from another's bucket. In a client that calls several
/// methods, a method leaves at least as much in the shared bucket as it has withdrawn from it: one
/// that always fails gets half of it, two get two thirds. In a client that calls one, that method
/// may take all of it. There are buckets for 1,000 methods; the others share one.
///
/// *Why tokens by time:* an outage empties the shared bucket, and a client with one call a minute
/// would need hours to refill it. tower's `TpsBudget` and linkerd give 10 tokens a second, here it
/// is 1: each client of a fleet has them, and all clients retry at the same time in an outage of a
/// server.
///
/// It goes beyond gRFC A6, whose throttle is off unless the service config sets it.
///
/// ```
/// use cinchona_policy::retry::Budget;
///
/// let budget = Budget::new(0.1, 10)?.with_per_second(0.5)?;
/// assert!(Budget::new(-0.1, 10).is_err());
/// assert!(budget.with_per_second(f64::NAN).is_err());
/// # Ok::<_, cinchona_policy::Invalid>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    ratio: f64,
    burst: u32,
    per_second: f64,
}

/// The budget of a running client; shared by clones. Without a budget, every attempt is allowed.
#[derive(Clone, Debug)]
pub struct SharedBudget(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    /// Whether a success need not be recorded.
    is_idle: AtomicBool,
    /// Whether calls of more than one method have been seen.
    has_several: AtomicBool,
    /// The method that was seen first.
    first: OnceLock<Box<str>>,
    buckets: Mutex<Buckets>,
}

// === impl Budget ===

impl Budget {
    /// Allows `ratio` further attempts for each call, `burst` besides, and 1 a second
    /// ([`with_per_second`](Self::with_per_second)).
    ///
    /// # Errors
    /// When `ratio` is not in 0 to 100.
    pub fn new(ratio: f64, burst: u32) -> Result<Self, Invalid> {
        if !(0.0..=100.0).contains(&ratio) {
            return Err(Invalid::new("ratio", ratio, "0 to 100"));
        }
        Ok(Self { ratio, burst, per_second: 1.0 })
    }

    /// Adds `per_second` tokens with each second, up to `burst`, however few calls there are. With
    /// 0 only successes bring tokens. Default 1.
    ///
    /// # Errors
    /// When `per_second` is not in 0 to 1,000,000.
    pub fn with_per_second(self, per_second: f64) -> Result<Self, Invalid> {
        if !(0.0..=1e6).contains(&per_second) {
            return Err(Invalid::new("per_second", per_second, "0 to 1000000"));
        }
        Ok(Self { per_second, ..self })
    }
}

impl Default for Budget {
    /// 0.2 further attempts a call, 100 besides, and 1 a second.
    fn default() -> Self {
        Self { ratio: 0.2, burst: 100, per_second: 1.0 }
    }
}

// === impl SharedBudget ===

impl SharedBudget {
    /// One that begins `now`, with a burst to spend.
    #[inline]
    pub fn new(budget: Option<Budget>, now: Instant) -> Self {
        Self(budget.map(|budget| Arc::new(Inner::new(budget, now))))
    }

    /// A call of `method` has succeeded.
    #[inline]
    pub fn deposit(&self, method: &str, now: impl FnOnce() -> Instant) {
        if let Some(inner) = self.0.as_deref()
            && inner.takes_deposits(method)
        {
            inner.update(|buckets| buckets.deposit(method, now()));
        }
    }

    /// Whether another attempt of a call of `method` is allowed, and withdraws its cost.
    #[inline]
    pub fn withdraw(&self, method: &str, cost: u32, now: Instant) -> bool {
        let Some(inner) = self.0.as_deref().filter(|_| cost > 0) else { return true };
        let is_alone = !inner.has_met_several(method);
        inner.update(|buckets| buckets.withdraw(method, tokens(cost), is_alone, now))
    }

    /// Returns the cost of an attempt that is not made.
    #[inline]
    pub fn refund(&self, method: &str, cost: u32) {
        if let Some(inner) = self.0.as_deref() {
            inner.update(|buckets| buckets.refund(method, tokens(cost)));
        }
    }

    /// The tokens in the shared bucket, and its limit; `None` if every attempt is allowed.
    #[inline]
    pub fn tokens(&self, now: Instant) -> Option<(f64, f64)> {
        let whole = |units: i64| units as f64 / UNIT as f64;
        let (left, most) = self.0.as_deref()?.update(|buckets| buckets.shared(now));
        Some((whole(left), whole(most)))
    }
}

const fn tokens(whole: u32) -> i64 {
    whole as i64 * UNIT
}

// === impl Inner ===

impl Inner {
    fn new(Budget { ratio, burst, per_second }: Budget, now: Instant) -> Self {
        let buckets = Buckets::new(ratio, burst, per_second, now);
        Self {
            is_idle: AtomicBool::new(buckets.is_idle()),
            has_several: AtomicBool::new(false),
            first: OnceLock::new(),
            buckets: Mutex::new(buckets),
        }
    }

    /// Whether a success of `method` must be deposited.
    #[inline]
    fn takes_deposits(&self, method: &str) -> bool {
        self.has_met_several(method);
        !self.is_idle.load(Ordering::Relaxed)
    }

    /// Whether methods other than `method` are called, too: known before the first of them fails.
    #[inline]
    fn has_met_several(&self, method: &str) -> bool {
        if self.has_several.load(Ordering::Relaxed) {
            return true;
        }
        let is_another = &**self.first.get_or_init(|| method.into()) != method;
        if is_another {
            self.has_several.store(true, Ordering::Relaxed);
        }
        is_another
    }

    /// A success comes here only while the shared bucket is not full. Code that holds the lock does
    /// not wait.
    fn update<T>(&self, change: impl FnOnce(&mut Buckets) -> T) -> T {
        let mut buckets: MutexGuard<'_, Buckets> =
            self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut buckets);
        self.is_idle.store(buckets.is_idle(), Ordering::Relaxed);
        changed
    }
}

/// The cost of another attempt after one that ended so, in tokens.
pub(super) const fn cost(verdict: Verdict, pushed_back: bool) -> u32 {
    match verdict {
        Verdict::NotProcessed(Stage::NoConnection | Stage::NotWritten) => 0,
        _ if pushed_back => 2,
        Verdict::Deadline
        | Verdict::MaybeProcessed(Code::DeadlineExceeded | Code::ResourceExhausted) => 2,
        _ => HEDGE,
    }
}

/// The cost of a hedge, in tokens.
pub(super) const HEDGE: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{sync::atomic::AtomicU64, thread, time::Duration};

    const METHODS: [&str; 3] = ["/a.B/Good", "/a.B/Bad", "/a.B/Other"];

    /// What a thread does next.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Succeed(usize),
        Try(usize, u32),
        /// A hedge is withdrawn for, and not made.
        Refund(usize),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let method = || 0..METHODS.len();
        prop_oneof![
            4 => method().prop_map(Step::Succeed),
            4 => (method(), 0u32..3).prop_map(|(method, cost)| Step::Try(method, cost)),
            1 => method().prop_map(Step::Refund),
            1 => (0u64..2_000_000_000).prop_map(Step::Wait),
        ]
    }

    fn budget(ratio: f64, burst: u32, per_second: f64) -> Budget {
        Budget::new(ratio, burst).unwrap().with_per_second(per_second).unwrap()
    }

    fn in_use(budget: Budget) -> (SharedBudget, Instant) {
        let now = Instant::now();
        (SharedBudget::new(Some(budget), now), now)
    }

    /// The calls that have succeeded, and the tokens that were withdrawn.
    fn run(budget: &SharedBudget, steps: Vec<Step>, clock: &AtomicU64, began: Instant) -> [u64; 2] {
        let now = || began + Duration::from_nanos(clock.load(Ordering::SeqCst));
        let (mut calls, mut spent) = (0, 0);
        for step in steps {
            match step {
                Step::Succeed(method) => {
                    calls += 1;
                    budget.deposit(METHODS[method], now);
                }
                Step::Try(method, cost) => {
                    let is_paid = budget.withdraw(METHODS[method], cost, now());
                    spent += u64::from(is_paid) * u64::from(cost);
                }
                Step::Refund(method) => {
                    if budget.withdraw(METHODS[method], HEDGE, now()) {
                        budget.refund(METHODS[method], HEDGE);
                    }
                }
                Step::Wait(nanos) => _ = clock.fetch_add(nanos, Ordering::SeqCst),
            }
        }
        [calls, spent]
    }

    proptest! {
        #[test]
        fn attempts_never_exceed_the_ceiling_whatever_the_interleaving(
            ratio in prop_oneof![Just(0.0), 0.0..2.0f64],
            burst in 0u32..20,
            per_second in prop_oneof![Just(0.0), 0.0..5.0f64],
            threads in proptest::collection::vec(proptest::collection::vec(step(), 0..200), 1..4),
        ) {
            let (shared, began) = in_use(budget(ratio, burst, per_second));
            let clock = AtomicU64::new(0);
            let done: Vec<[u64; 2]> = thread::scope(|scope| {
                let start = |steps| scope.spawn(|| run(&shared, steps, &clock, began));
                let running: Vec<_> = threads.into_iter().map(start).collect();
                running.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let calls: u64 = done.iter().map(|[calls, _]| calls).sum();
            let spent: u64 = done.iter().map(|[_, spent]| spent).sum();
            let seconds = clock.load(Ordering::SeqCst) as f64 / 1e9;
            let ceiling = ratio * calls as f64 + f64::from(burst) + per_second * seconds;
            prop_assert!(spent as f64 <= ceiling + 1e-6, "{spent} of {ceiling}");
        }
    }

    #[test]
    fn a_request_that_never_left_costs_nothing_and_a_timeout_costs_double() {
        assert_eq!(cost(Verdict::NotProcessed(Stage::NotWritten), false), 0);
        assert_eq!(cost(Verdict::NotProcessed(Stage::RefusedStream), false), 1);
        assert_eq!(cost(Verdict::MaybeProcessed(Code::Unavailable), false), 1);
        assert_eq!(cost(Verdict::MaybeProcessed(Code::Unavailable), true), 2);
        assert_eq!(cost(Verdict::Deadline, false), 2);
        let (shared, now) = in_use(budget(0.5, 2, 0.0));
        let withdraw = |cost| shared.withdraw("/a.B/C", cost, now);
        let deposit = || shared.deposit("/a.B/C", || now);
        assert!(withdraw(2) && !withdraw(1) && withdraw(0));
        deposit();
        assert!(!withdraw(1));
        deposit();
        assert!(withdraw(1));
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        for bad in [-0.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX] {
            let refused = Budget::new(bad, 1).unwrap_err();
            assert_eq!((refused.field(), refused.allowed()), ("ratio", "0 to 100"));
            let refused = Budget::default().with_per_second(bad).unwrap_err();
            assert_eq!((refused.field(), refused.allowed()), ("per_second", "0 to 1000000"));
        }
    }

    #[test]
    fn the_tokens_left_include_those_gained_by_time() {
        let (shared, now) = in_use(budget(0.5, 5, 2.0));
        assert_eq!(shared.tokens(now), Some((5.0, 5.0)));
        assert!(shared.withdraw("/a.B/C", 2, now) && shared.withdraw("/a.B/C", 2, now));
        shared.deposit("/a.B/C", || now);
        assert_eq!(shared.tokens(now), Some((1.5, 5.0)));
        assert_eq!(shared.tokens(now + Duration::from_secs(1)), Some((3.5, 5.0)));
        assert_eq!(shared.tokens(now + Duration::from_secs(3600)), Some((5.0, 5.0)));
        assert_eq!(SharedBudget::new(None, now).tokens(now), None);
    }

    #[test]
    fn while_the_shared_bucket_is_full_a_success_reads_no_clock_and_takes_no_lock() {
        let no_clock = || unreachable!("the bucket is full");
        let (shared, now) = in_use(Budget::default());
        // No other thread gets the lock: one that wants it would block.
        let locked = shared.0.as_ref().unwrap().buckets.lock().unwrap();
        for method in METHODS {
            shared.deposit(method, no_clock);
        }
        assert!(shared.withdraw(METHODS[0], 0, now), "nor does what costs nothing");
        drop(locked);
        assert!(shared.withdraw(METHODS[0], 1, now));
        // Seconds later it is full again, which the first reader finds.
        shared.deposit(METHODS[1], || now + Duration::from_secs(2));
        shared.deposit(METHODS[1], no_clock);
    }

    #[test]
    fn a_hedge_that_is_not_made_returns_its_cost() {
        let (shared, now) = in_use(budget(0.5, 4, 0.0));
        assert!(shared.withdraw(METHODS[0], 2, now));
        assert_eq!(shared.tokens(now), Some((2.0, 4.0)));
        shared.refund(METHODS[0], 2);
        assert_eq!(shared.tokens(now), Some((4.0, 4.0)));
    }

    #[test]
    fn a_success_without_a_deposit_writes_nothing() {
        let (shared, now) = in_use(budget(0.0, 3, 0.0));
        assert!(shared.withdraw(METHODS[0], 2, now));
        shared.deposit(METHODS[0], || unreachable!("there is no ratio"));
    }

    #[test]
    fn a_method_alone_may_take_all_and_one_of_several_half() {
        for (others, taken) in [(&METHODS[..0], 10), (&METHODS[1..], 5)] {
            let (shared, now) = in_use(budget(0.2, 10, 0.0));
            for other in others {
                shared.deposit(other, || now);
            }
            let paid = (0..50).filter(|_| shared.withdraw(METHODS[0], 1, now)).count();
            assert_eq!(paid, taken, "besides {others:?}");
        }
    }
}
