//! The state of a circuit.

use super::{
    limits::{Limits, Run},
    pass::Pass,
    state::{Admission, Cell, Change, Kind, Sample},
};
use loom::{sync::Arc, thread};

const LIMITS: Limits = Limits {
    run: Some(Run { failures: 1, lasting: 0 }),
    probes: 1,
    successes: 1,
    patience: 60_000,
};

fn entered(cell: &Cell, now: u64) -> Option<Pass> {
    match cell.admit(&LIMITS, || now) {
        Admission::Admitted(pass) | Admission::HalfOpened(pass) => Some(pass),
        Admission::Rejected(_) => None,
    }
}

/// A circuit that is open until 100 ms.
fn open() -> Arc<Cell> {
    let cell = Arc::new(Cell::new());
    let pass = entered(&cell, 0).expect("it is closed");
    assert_eq!(cell.leave(pass, Sample::Failure, &LIMITS, || 100, || 100), Change::Opened(1));
    cell
}

#[test]
fn of_concurrent_failures_one_opens_it() {
    loom::model(|| {
        let cell = Arc::new(Cell::new());
        let caller = |cell: Arc<Cell>| {
            move || {
                let pass = entered(&cell, 0)?;
                Some(cell.leave(pass, Sample::Failure, &LIMITS, || 100, || 100))
            }
        };
        let other = thread::spawn(caller(cell.clone()));
        let changes = [caller(cell.clone())(), other.join().expect("it ends")];
        let opened = changes.iter().filter(|change| **change == Some(Change::Opened(1)));
        assert_eq!(opened.count(), 1);
        assert_eq!(cell.kind(), Kind::Open);
    });
}

#[test]
fn only_one_probe_is_in_flight_and_a_dropped_one_gives_its_place_back() {
    loom::model(|| {
        let cell = open();
        let caller = |cell: Arc<Cell>| {
            move || {
                let pass = entered(&cell, 200)?;
                assert_eq!(cell.kind(), Kind::HalfOpen, "no other call decides");
                Some(cell.leave(pass, Sample::Ignored, &LIMITS, || 300, || 300))
            }
        };
        let other = thread::spawn(caller(cell.clone()));
        let ended = [caller(cell.clone())(), other.join().expect("it ends")];
        assert!(ended.iter().flatten().all(|change| *change == Change::Nothing));
        // No place has leaked: the next probe is admitted, and closes it.
        let pass = entered(&cell, 200).expect("there is a place");
        assert_eq!(cell.leave(pass, Sample::Success, &LIMITS, || 300, || 300), Change::Closed);
    });
}

#[test]
fn a_straggler_never_changes_a_state_that_is_not_its_own() {
    loom::model(|| {
        let cell = Arc::new(Cell::new());
        let straggler = entered(&cell, 0).expect("it is closed");
        let breaking = {
            let cell = cell.clone();
            thread::spawn(move || {
                let pass = entered(&cell, 0).expect("it is closed");
                assert_eq!(
                    cell.leave(pass, Sample::Failure, &LIMITS, || 100, || 100),
                    Change::Opened(1)
                );
                let probe = entered(&cell, 100).expect("it is time");
                assert_eq!(cell.leave(probe, Sample::Success, &LIMITS, || 0, || 0), Change::Closed);
            })
        };
        // A success from before the opening closes nothing and does not count.
        assert_eq!(cell.leave(straggler, Sample::Success, &LIMITS, || 0, || 0), Change::Nothing);
        breaking.join().expect("it ends");
        assert_eq!(cell.kind(), Kind::Closed);
    });
}

#[test]
fn isolating_wins_over_all_outcomes_of_calls() {
    loom::model(|| {
        let cell = open();
        let probing = {
            let cell = cell.clone();
            thread::spawn(move || {
                let pass = entered(&cell, 200)?;
                Some(cell.leave(pass, Sample::Success, &LIMITS, || 300, || 300))
            })
        };
        cell.force(Kind::Isolated);
        probing.join().expect("it ends");
        assert_eq!(cell.kind(), Kind::Isolated);
        assert_eq!(entered(&cell, 1000), None);
    });
}

#[test]
fn the_head_of_a_probe_and_its_end_count_once_and_leave_no_place_behind() {
    loom::model(|| {
        let cell = open();
        let probe = entered(&cell, 200).expect("it is time");
        let beside = cell.admit_beside().expect("it is not isolated");
        let other = {
            let cell = cell.clone();
            thread::spawn(move || cell.leave(beside, Sample::Success, &LIMITS, || 200, || 300))
        };
        let (rest, head) = cell.answered(probe, &LIMITS);
        let ended = cell.leave(rest, Sample::Ignored, &LIMITS, || 200, || 300);
        let changes = [head, ended, other.join().expect("it ends")];
        let closed = |change: &&Change| matches!(change, Change::Closed | Change::OnProbation);
        assert_eq!(changes.iter().filter(closed).count(), 1, "{changes:?}");
        assert_eq!(cell.kind(), Kind::Closed);
    });
}
