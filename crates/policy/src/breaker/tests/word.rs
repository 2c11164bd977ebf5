//! The state in one word, beside a plain record of the same rules.

use crate::breaker::{
    limits::{Limits, Run},
    pass::Pass,
    state::{Admission, Cell, Change, Kind, Sample},
};
use proptest::prelude::*;

/// What the word means.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Closed { failures: u64, began: u64, on_probation: bool },
    Open { until: u64 },
    HalfOpen { under_way: u32, succeeded: u32, one_more: u64 },
    Isolated,
}

const CLOSED: State = State::Closed { failures: 0, began: 0, on_probation: false };
const ON_PROBATION: State = State::Closed { failures: 0, began: 0, on_probation: true };

/// What a pass means.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Role {
    opening: u64,
    is_probe: bool,
    is_beside: bool,
}

#[derive(Debug)]
struct Model {
    state: State,
    opening: u64,
}

impl Model {
    fn role(&self, is_probe: bool, is_beside: bool) -> Role {
        Role { opening: self.opening, is_probe, is_beside }
    }

    fn kind(&self) -> Kind {
        match self.state {
            State::Closed { .. } => Kind::Closed,
            State::Open { .. } => Kind::Open,
            State::HalfOpen { .. } => Kind::HalfOpen,
            State::Isolated => Kind::Isolated,
        }
    }

    fn next(&mut self, state: State) {
        self.opening += 1;
        self.state = state;
    }

    fn would_admit(&self, limits: &Limits, now: u64) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until } => until <= now,
            State::HalfOpen { under_way, one_more, .. } => {
                under_way < limits.probes || one_more <= now / 1000
            }
            State::Isolated => false,
        }
    }

    fn admit(&mut self, limits: &Limits, now: u64) -> Result<Role, Option<u64>> {
        if !self.would_admit(limits, now) {
            return Err(match self.state {
                State::Open { until } => Some(until - now),
                _ => None,
            });
        }
        let later = (now + limits.patience).div_ceil(1000);
        match &mut self.state {
            State::HalfOpen { under_way, one_more, .. } => {
                if *under_way >= limits.probes {
                    *one_more = later;
                }
                *under_way += 1;
            }
            State::Open { .. } => {
                self.state = State::HalfOpen { under_way: 1, succeeded: 0, one_more: later };
            }
            _ => return Ok(self.role(false, false)),
        }
        Ok(self.role(true, false))
    }

    fn answered(&mut self, role: Role, limits: &Limits) -> Change {
        if role.opening != self.opening || !(role.is_probe || role.is_beside) {
            return Change::Nothing;
        }
        match self.state {
            State::Closed { .. } | State::Isolated => Change::Nothing,
            _ if role.is_beside => {
                self.state = ON_PROBATION;
                Change::OnProbation
            }
            _ => self.succeeded_one(limits, ON_PROBATION, Change::OnProbation),
        }
    }

    fn succeeded_one(&mut self, limits: &Limits, closed: State, change: Change) -> Change {
        let State::HalfOpen { under_way, succeeded, .. } = &mut self.state else {
            return Change::Nothing;
        };
        *under_way -= 1;
        *succeeded += 1;
        if *succeeded < limits.successes {
            return Change::Nothing;
        }
        self.state = closed;
        change
    }

    fn leave(&mut self, role: Role, end: Sample, limits: &Limits, now: u64, until: u64) -> Change {
        if role.opening != self.opening {
            return Change::Nothing;
        }
        match (self.state, end) {
            (State::Closed { on_probation: true, .. }, Sample::Failure) => {
                self.next(State::Open { until });
                Change::ProbeFailed
            }
            (State::Closed { failures, began, .. }, Sample::Failure) => {
                let Some(run) = limits.run else { return Change::Nothing };
                let began = if failures == 0 { now } else { began };
                let (failures, lasted) = (failures + 1, now - began);
                let most = u64::from(run.failures);
                let is_enough = match failures >= most {
                    true => lasted >= run.lasting,
                    false => {
                        run.lasting > 0 && lasted >= 4 * run.lasting && failures >= most.div_ceil(2)
                    }
                };
                if is_enough {
                    self.next(State::Open { until });
                    return Change::Opened(failures as u32);
                }
                self.state = State::Closed { failures, began, on_probation: false };
                Change::Nothing
            }
            (State::Closed { .. }, Sample::Success) if self.state != CLOSED => {
                self.state = CLOSED;
                Change::Recovered
            }
            (State::Open { .. } | State::HalfOpen { .. }, Sample::Success) if role.is_beside => {
                self.state = CLOSED;
                Change::Closed
            }
            (State::HalfOpen { .. }, Sample::Failure) if !role.is_beside => {
                self.next(State::Open { until });
                Change::ProbeFailed
            }
            (State::HalfOpen { .. }, Sample::Success) if role.is_probe => {
                self.succeeded_one(limits, CLOSED, Change::Closed)
            }
            (State::HalfOpen { .. }, _) if role.is_probe => {
                if let State::HalfOpen { under_way, .. } = &mut self.state {
                    *under_way -= 1;
                }
                Change::Nothing
            }
            _ => Change::Nothing,
        }
    }
}

/// Both, and the calls in flight.
struct Both {
    cell: Cell,
    model: Model,
    limits: Limits,
    calls: Vec<(Pass, Role)>,
    now: u64,
}

impl Both {
    fn step(&mut self, what: u8, which: usize, wait: u64) {
        self.now += wait;
        let (now, until) = (self.now, self.now + 1500);
        let call = (!self.calls.is_empty()).then(|| which % self.calls.len());
        match (what, call) {
            (0..=5, _) => self.admit(),
            (6, _) => {
                let beside = self.cell.admit_beside();
                let is_let = self.model.state != State::Isolated;
                assert_eq!(beside.is_some(), is_let);
                self.calls.extend(beside.map(|pass| (pass, self.model.role(false, true))));
            }
            (7, _) => {
                let kind = if which.is_multiple_of(2) { Kind::Closed } else { Kind::Isolated };
                assert_eq!(self.cell.force(kind), self.model.kind());
                self.model.next(if which.is_multiple_of(2) { CLOSED } else { State::Isolated });
            }
            (8, Some(call)) => {
                let (pass, role) = self.calls[call];
                let is_closed = role.opening == self.model.opening
                    && matches!(self.model.state, State::Closed { .. });
                assert_eq!(self.cell.is_closed_since(pass), is_closed);
                assert_eq!(self.cell.trip(pass, || until), is_closed);
                if is_closed {
                    self.model.next(State::Open { until });
                }
            }
            (9..=10, Some(call)) => {
                let (pass, role) = &mut self.calls[call];
                let (left, change) = self.cell.answered(*pass, &self.limits);
                assert_eq!(change, self.model.answered(*role, &self.limits));
                (*pass, *role) = (left, Role { is_probe: false, is_beside: false, ..*role });
            }
            (_, Some(call)) => {
                let (pass, role) = self.calls.swap_remove(call);
                let end = [Sample::Failure, Sample::Success, Sample::Ignored][which % 3];
                let change = self.cell.leave(pass, end, &self.limits, || now, || until);
                assert_eq!(change, self.model.leave(role, end, &self.limits, now, until));
            }
            (_, None) => {}
        }
        self.compare();
    }

    fn admit(&mut self) {
        let before = self.model.kind();
        let admission = self.cell.admit(&self.limits, || self.now);
        let expected = self.model.admit(&self.limits, self.now);
        match (admission, expected) {
            (Admission::Rejected(left), Err(expected)) => assert_eq!(left, expected),
            (Admission::HalfOpened(pass), Ok(role)) => {
                assert_eq!(before, Kind::Open);
                self.calls.push((pass, role));
            }
            (Admission::Admitted(pass), Ok(role)) => {
                assert_ne!(before, Kind::Open);
                self.calls.push((pass, role));
            }
            differing => panic!("{differing:?}"),
        }
    }

    fn compare(&self) {
        assert_eq!(self.cell.kind(), self.model.kind());
        let remaining = match self.model.state {
            State::Open { until } => Some(until.saturating_sub(self.now)),
            _ => None,
        };
        assert_eq!(self.cell.remaining(self.now), remaining);
        let is_let = self.model.would_admit(&self.limits, self.now);
        assert_eq!(self.cell.would_admit(&self.limits, || self.now), is_let);
        for (pass, role) in &self.calls {
            assert_eq!(
                [pass.is(Pass::PROBE), pass.is(Pass::BESIDE)],
                [role.is_probe, role.is_beside]
            );
            assert_eq!(pass.awaits_head(), role.is_probe || role.is_beside);
        }
    }
}

fn limits() -> impl Strategy<Value = Limits> {
    let run = (1..5_u32, prop_oneof![Just(0), 1..800_u64])
        .prop_map(|(failures, lasting)| Run { failures, lasting });
    let run = prop_oneof![1 => Just(None), 5 => run.prop_map(Some)];
    (run, 1..4_u32, 1..4_u32, 0..4000_u64).prop_map(|(run, probes, successes, patience)| Limits {
        run,
        probes,
        successes,
        patience,
    })
}

fn play(limits: Limits, begin: u64, steps: Vec<(u8, usize, u64)>) {
    let model = Model { state: CLOSED, opening: 0 };
    let mut both = Both { cell: Cell::new(), model, limits, calls: Vec::new(), now: begin };
    for (what, which, wait) in steps {
        both.step(what, which, wait);
    }
}

proptest! {
    /// Also where the milliseconds do not fit into 29 bits; the word's seconds fit for 34 years.
    #[test]
    fn the_word_says_what_a_plain_record_of_the_same_rules_says(
        limits in limits(),
        begin in prop_oneof![Just(0), (1_u64 << 29) - 5000..1 << 29, 0..1_u64 << 39],
        steps in prop::collection::vec(
            (0..20_u8, any::<usize>(), prop_oneof![Just(0), Just(1), 0..1200_u64]),
            1..200,
        ),
    ) {
        play(limits, begin, steps);
    }
}

const LIMITS: Limits =
    Limits { run: Some(Run { failures: 1, lasting: 0 }), probes: 1, successes: 1, patience: 0 };

fn admitted(cell: &Cell, limits: &Limits, now: u64) -> Option<Pass> {
    match cell.admit(limits, || now) {
        Admission::Admitted(pass) | Admission::HalfOpened(pass) => Some(pass),
        Admission::Rejected(_) => None,
    }
}

#[test]
fn a_circuit_that_opens_for_ever_is_open_in_thirty_years() {
    const YEARS: u64 = 30 * 365 * 24 * 3600 * 1000;
    let cell = Cell::new();
    let pass = admitted(&cell, &LIMITS, 0).unwrap();
    assert!(cell.trip(pass, || u64::MAX));
    assert_eq!(admitted(&cell, &LIMITS, YEARS), None);
    assert!(cell.remaining(YEARS) > Some(YEARS));
}

#[test]
fn who_waits_for_ever_before_one_more_probe_waits_thirty_years() {
    const YEARS: u64 = 30 * 365 * 24 * 3600 * 1000;
    let (cell, limits) = (Cell::new(), Limits { patience: u64::MAX, ..LIMITS });
    assert!(cell.trip(admitted(&cell, &limits, 0).unwrap(), || 100));
    assert!(admitted(&cell, &limits, 100).is_some());
    assert_eq!(admitted(&cell, &limits, YEARS), None);
}

#[test]
fn of_probes_that_never_end_no_more_are_under_way_than_the_word_counts() {
    let cell = Cell::new();
    assert!(cell.trip(admitted(&cell, &LIMITS, 0).unwrap(), || 100));
    let probes = (1..1000).filter_map(|second| admitted(&cell, &LIMITS, second * 1000));
    let probes: Vec<_> = probes.collect();
    assert_eq!(probes.len(), 255);
    // And one that ends gives its place back.
    let change = cell.leave(probes[0], Sample::Ignored, &LIMITS, || 0, || 0);
    assert_eq!(change, Change::Nothing);
    assert!(admitted(&cell, &LIMITS, 1_000_000).is_some());
    assert_eq!(admitted(&cell, &LIMITS, 1_001_000), None);
}

#[test]
fn a_run_longer_than_the_word_counts_is_counted_as_the_longest() {
    const MOST: u32 = 65_535;
    let run = Some(Run { failures: MOST, lasting: 1000 });
    let (cell, limits) = (Cell::new(), Limits { run, ..LIMITS });
    let pass = admitted(&cell, &limits, 0).unwrap();
    for _ in 0..70_000 {
        let change = cell.leave(pass, Sample::Failure, &limits, || 7, || 5000);
        assert_eq!(change, Change::Nothing, "it has not lasted");
    }
    let change = cell.leave(pass, Sample::Failure, &limits, || 1007, || 5000);
    assert_eq!(change, Change::Opened(MOST));
}

/// Threads may come here in another order than they have read the clock.
#[test]
fn a_failure_that_was_before_the_first_of_the_run_is_no_long_run() {
    let run = Some(Run { failures: 2, lasting: 1000 });
    let (cell, limits) = (Cell::new(), Limits { run, ..LIMITS });
    let pass = admitted(&cell, &limits, 0).unwrap();
    let fails = |now| cell.leave(pass, Sample::Failure, &limits, || now, || 5000);
    assert_eq!([fails(10_000), fails(9_999), fails(10_999)], [Change::Nothing; 3]);
    assert_eq!(fails(11_000), Change::Opened(4));
}

/// Of as many openings as there may be calls for, none is taken for another.
#[test]
fn a_pass_is_of_its_own_opening_alone() {
    let cell = Cell::new();
    let mut earlier = Vec::new();
    for _ in 0..300 {
        let pass = admitted(&cell, &LIMITS, 0).unwrap().of_method(u32::MAX);
        assert!(cell.is_closed_since(pass));
        assert!(!earlier.iter().any(|pass| cell.is_closed_since(*pass)));
        assert_eq!(pass.method(), u32::MAX);
        assert_eq!(Pass::of(pass.number()), pass);
        assert_eq!(pass.of_method(7).method(), 7);
        assert_eq!(pass.of_method(7).epoch(), pass.epoch());
        earlier.push(pass);
        cell.force(Kind::Closed);
    }
}

#[test]
fn so_many_failures_are_an_outage_once_they_last_or_half_of_them_after_four_times_as_long() {
    let (slow, fast) = (Run { failures: 5, lasting: 100 }, Run { failures: 5, lasting: 0 });
    for (run, failures, lasted, is_enough) in [
        (slow, 5, 100, true),
        (slow, 5, 99, false),
        (slow, 4, 399, false),
        (slow, 4, 400, true),
        (slow, 3, 400, true),
        (slow, 2, u64::MAX, false),
        (fast, 5, 0, true),
        (fast, 4, u64::MAX, false),
    ] {
        assert_eq!(run.is_enough(failures, lasted), is_enough, "{failures} in {lasted} ms");
    }
}

/// What is longer is taken for a failure that was before the first of the run.
#[test]
fn a_run_may_last_half_of_the_milliseconds_that_the_word_distinguishes() {
    const HALF: u64 = (1 << 28) - 1;
    let run = Some(Run { failures: 2, lasting: 1000 });
    for (lasts, change) in [(HALF, Change::Opened(2)), (HALF + 1, Change::Nothing)] {
        let (cell, limits) = (Cell::new(), Limits { run, ..LIMITS });
        let pass = admitted(&cell, &limits, 0).unwrap();
        let fails = |now| cell.leave(pass, Sample::Failure, &limits, || now, || 5000);
        assert_eq!([fails(7), fails(7 + lasts)], [Change::Nothing, change]);
    }
}
