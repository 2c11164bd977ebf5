//! The places for probes.

use crate::breaker::{
    limits::{Limits, Run},
    state::{Admission, Cell, Kind, Sample},
};
use proptest::prelude::*;

proptest! {
    /// Whatever the outcomes of calls, wherever they are dropped, and whichever heads arrive, a
    /// place for a probe never leaks.
    #[test]
    fn places_never_leak(
        steps in proptest::collection::vec((0..4usize, 0..7u8, 0..8000u64), 1..200),
        probes in 1..4u32,
    ) {
        let run = Some(Run { failures: 2, lasting: 0 });
        let limits = Limits { run, probes, successes: 2, patience: 1 << 40 };
        let (cell, mut under_way, mut now) = (Cell::new(), Vec::new(), 0);
        let mut last = cell.kind();
        for (which, what, pause) in steps {
            now += pause;
            if what < 2 || under_way.is_empty() {
                if let Admission::Admitted(pass) | Admission::HalfOpened(pass) =
                    cell.admit(&limits, || now)
                {
                    under_way.push((pass, cell.kind()));
                }
            } else if what == 5 {
                let which = which % under_way.len();
                let (pass, _) = &mut under_way[which];
                *pass = cell.answered(*pass, &limits).0;
            } else if what == 6 {
                under_way.extend(cell.admit_beside().map(|pass| (pass, cell.kind())));
            } else {
                let (pass, _) = under_way.swap_remove(which % under_way.len());
                let outcome =
                    [Sample::Success, Sample::Failure, Sample::Ignored][usize::from(what - 2)];
                cell.leave(pass, outcome, &limits, || now, || now + 5000);
            }
            if cell.kind() != last {
                last = cell.kind();
                // From here on the calls in flight are stragglers.
                under_way.retain(|(_, kind)| *kind == Kind::HalfOpen && last == Kind::HalfOpen);
            }
        }
        for (pass, _) in under_way {
            cell.leave(pass, Sample::Ignored, &limits, || now, || now + 5000);
        }
        // All have ended: there is a place for each probe, and for no more.
        now += 10_000;
        let entered = (0..10).filter(|_| {
            !matches!(cell.admit(&limits, || now), Admission::Rejected(_))
        });
        let most = if last == Kind::Closed { 10 } else { probes as usize };
        prop_assert_eq!(entered.count(), most);
    }
}
