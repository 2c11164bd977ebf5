//! A ceiling on what retries and hedges may add to the load.

use cinchona_core::{Invalid, Stage, Verdict};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tonic::Code;

/// How many attempts beyond the first all calls of a client may make together.
///
/// Whatever happens, and in whatever order, the attempts that a server may have executed are at
/// most `(1 + ratio) · calls + burst`. Each call that succeeds earns `ratio`; another attempt
/// costs, by what it follows:
///
/// | after | costs |
/// |---|---|
/// | a request that never left the client | 0 |
/// | a failure that may pass, or as a hedge | 1 |
/// | a timeout, as the server may still be at it | 2 |
/// | `RESOURCE_EXHAUSTED` or pushback, as the server says that it is too much | 2 |
///
/// It goes beyond gRFC A6, whose throttle is off unless the service config sets it.
///
/// ```
/// use cinchona_retry::Budget;
///
/// let budget = Budget::new(0.1, 10)?;
/// assert!(Budget::new(-0.1, 10).is_err());
/// # Ok::<_, cinchona_core::Invalid>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    ratio: f64,
    burst: u32,
}

/// The budget of a client, in thousandths; shared by clones.
#[derive(Clone, Debug)]
pub(crate) struct Purse(Option<Arc<Balance>>);

#[derive(Debug)]
struct Balance {
    earning: u64,
    most: u64,
    left: AtomicU64,
}

const UNIT: u64 = 1000;

// === impl Budget ===

impl Budget {
    /// Allows `ratio` further attempts for each call, and `burst` besides.
    ///
    /// # Errors
    /// When `ratio` is not in 0 to 100.
    pub fn new(ratio: f64, burst: u32) -> Result<Self, Invalid> {
        if !(0.0..=100.0).contains(&ratio) {
            return Err(Invalid::new("ratio", ratio, "0 to 100"));
        }
        Ok(Self { ratio, burst })
    }
}

impl Default for Budget {
    /// 0.2 further attempts a call, and 100 besides.
    fn default() -> Self {
        Self { ratio: 0.2, burst: 100 }
    }
}

// === impl Purse ===

impl Purse {
    /// A full purse; without a budget, one that is never empty.
    pub(crate) fn new(budget: Option<Budget>) -> Self {
        Self(budget.map(|Budget { ratio, burst }| {
            let most = u64::from(burst) * UNIT;
            let earning = (ratio * UNIT as f64) as u64;
            Arc::new(Balance { earning, most, left: AtomicU64::new(most) })
        }))
    }

    /// A call has succeeded.
    pub(crate) fn earn(&self) {
        let Some(Balance { earning, most, left }) = self.0.as_deref() else { return };
        // Most of the time it is full, and nobody has to write.
        let earned = |left: u64| (left < *most).then(|| (left + earning).min(*most));
        _ = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, earned);
    }

    /// Whether another attempt can be paid for, and pays for it.
    pub(crate) fn spend(&self, cost: u64) -> bool {
        self.0.as_deref().is_none_or(|Balance { left, .. }| {
            let spent = |left: u64| left.checked_sub(cost * UNIT);
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spent).is_ok()
        })
    }

    /// What is in it, and at most; none where it is never empty.
    pub(crate) fn tokens(&self) -> Option<(f64, f64)> {
        let Balance { most, left, .. } = self.0.as_deref()?;
        let whole = |thousandths: u64| thousandths as f64 / UNIT as f64;
        Some((whole(left.load(Ordering::Relaxed)), whole(*most)))
    }
}

/// What another attempt costs after one that ended so.
pub(crate) const fn cost(verdict: Verdict, pushed_back: bool) -> u64 {
    match verdict {
        Verdict::NotProcessed(Stage::Unconnected | Stage::Unsent) => 0,
        _ if pushed_back => 2,
        Verdict::Deadline
        | Verdict::MaybeProcessed(Code::DeadlineExceeded | Code::ResourceExhausted) => 2,
        _ => HEDGE,
    }
}

/// What a hedge costs.
pub(crate) const HEDGE: u64 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::thread;

    proptest! {
        #[test]
        fn attempts_never_exceed_the_ceiling_whatever_the_interleaving(
            ratio in 0.0..2.0f64, burst in 0u32..20,
            threads in proptest::collection::vec(
                proptest::collection::vec((any::<bool>(), 1u64..3), 0..200), 1..4,
            ),
        ) {
            let purse = Purse::new(Some(Budget::new(ratio, burst).unwrap()));
            let counts: Vec<(u64, u64)> = thread::scope(|scope| {
                let run = |steps: Vec<(bool, u64)>| {
                    let purse = purse.clone();
                    scope.spawn(move || {
                        let (mut calls, mut extra) = (0, 0);
                        for (succeeds, cost) in steps {
                            if succeeds {
                                calls += 1;
                                purse.earn();
                            } else if purse.spend(cost) {
                                extra += 1;
                            }
                        }
                        (calls, extra)
                    })
                };
                let running: Vec<_> = threads.into_iter().map(run).collect();
                running.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let calls: u64 = counts.iter().map(|(calls, _)| calls).sum();
            let extra: u64 = counts.iter().map(|(_, extra)| extra).sum();
            prop_assert!(extra as f64 <= ratio * calls as f64 + f64::from(burst) + 1e-9);
        }
    }

    #[test]
    fn what_never_left_costs_nothing_and_a_timeout_costs_double() {
        assert_eq!(cost(Verdict::NotProcessed(Stage::Unsent), false), 0);
        assert_eq!(cost(Verdict::NotProcessed(Stage::Unseen), false), 1);
        assert_eq!(cost(Verdict::MaybeProcessed(Code::Unavailable), false), 1);
        assert_eq!(cost(Verdict::MaybeProcessed(Code::Unavailable), true), 2);
        assert_eq!(cost(Verdict::Deadline, false), 2);
        let purse = Purse::new(Some(Budget::new(0.5, 2).unwrap()));
        assert!(purse.spend(2) && !purse.spend(1) && purse.spend(0));
        purse.earn();
        assert!(!purse.spend(1));
        purse.earn();
        assert!(purse.spend(1));
    }

    #[test]
    fn a_ratio_out_of_range_is_refused_by_name() {
        for ratio in [-0.1, f64::NAN, 101.0] {
            assert_eq!(Budget::new(ratio, 1).unwrap_err().field(), "ratio");
        }
    }

    #[test]
    fn what_is_left_can_be_seen() {
        let purse = Purse::new(Some(Budget::new(0.5, 2).unwrap()));
        assert_eq!(purse.tokens(), Some((2.0, 2.0)));
        assert!(purse.spend(2));
        purse.earn();
        assert_eq!(purse.tokens(), Some((0.5, 2.0)));
        assert_eq!(Purse::new(None).tokens(), None);
    }
}
