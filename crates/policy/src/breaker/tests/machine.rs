//! A circuit from the first failure to the last, without a service and without a wait.

use crate::{
    Code, Evidence, Rng,
    breaker::{BreakerPolicy, Kind, Machine, Pass, Reason, Turned},
};
use std::time::Duration;
use tokio::time::Instant;

const MS: Duration = Duration::from_millis(1);
const GOOD: Evidence = Evidence::Good(Code::Ok);
const BAD: Evidence = Evidence::Bad(Code::Unavailable);

/// It opens after two failures in a row, for 1 s ±20 % at first.
fn machine(began: Instant) -> Machine {
    let two = BreakerPolicy::default().with_consecutive_failures(Some(2)).unwrap();
    Machine::new(two, Rng::seeded(1), began)
}

fn entered(machine: &Machine, now: Instant) -> Pass {
    machine.enter(1, || now).0.unwrap()
}

fn leaves(machine: &Machine, pass: Pass, evidence: Evidence, now: Instant) -> Option<Turned> {
    machine.leave(pass, evidence, || MS, || now)
}

fn turned(reason: Reason, calls: Option<u64>) -> Option<Turned> {
    Some(Turned { reason, calls })
}

#[test]
fn each_change_of_its_state_is_returned_once_and_with_its_reason() {
    let began = Instant::now();
    let machine = machine(began);
    let [one, other, straggler] = [(); 3].map(|()| entered(&machine, began));
    assert_eq!(leaves(&machine, one, BAD, began), None);
    let opened = leaves(&machine, other, BAD, began);
    assert_eq!((opened, machine.kind()), (turned(Reason::Failures, Some(2)), Kind::Open));
    assert_eq!(leaves(&machine, straggler, GOOD, began), None, "it began before that");

    let wait = machine.next_probe_in(began).unwrap();
    assert!((800 * MS..=1200 * MS).contains(&wait), "{wait:?}");
    let early = began + wait - MS;
    assert!(!machine.would_admit(|| 1, || early));
    assert_eq!(machine.enter(1, || early), (Err(Some(MS)), None));
    let due = began + wait;
    assert!(machine.would_admit(|| 1, || due));
    let (probe, change) = machine.enter(1, || due);
    assert_eq!((change, machine.kind()), (turned(Reason::Waited, None), Kind::HalfOpen));
    let failed = leaves(&machine, probe.unwrap(), BAD, due);
    assert_eq!((failed, machine.kind()), (turned(Reason::ProbeFailed, Some(1)), Kind::Open));

    let again = machine.next_probe_in(due).unwrap();
    assert!((1600 * MS..=2400 * MS).contains(&again), "twice as long: {again:?}");
    let (probe, _) = machine.enter(1, || due + again);
    let closed = leaves(&machine, probe.unwrap(), GOOD, due + again);
    assert_eq!((closed, machine.kind()), (turned(Reason::ProbeSucceeded, None), Kind::Closed));
    assert_eq!(machine.next_probe_in(due + again), None);
}

#[test]
fn a_working_method_is_admitted_beside_the_failing_one_and_closes_it() {
    let now = Instant::now();
    let machine = machine(now);
    for pass in [(); 2].map(|()| entered(&machine, now)) {
        leaves(&machine, pass, BAD, now);
    }
    assert!(!machine.would_admit(|| 1, || now) && machine.would_admit(|| 3, || now));
    let pass = machine.enter(3, || now).0.unwrap();
    let (pass, change) = machine.answered(pass, || MS, || now);
    assert_eq!((change, machine.kind()), (turned(Reason::ProbeSucceeded, None), Kind::Closed));
    // It is on probation: the first call that ends decides.
    let opened = leaves(&machine, pass.unwrap(), BAD, now);
    assert_eq!(opened, turned(Reason::ProbeFailed, Some(1)));
}

#[test]
fn by_hand_it_is_isolated_until_it_is_closed() {
    let now = Instant::now();
    let machine = machine(now);
    let by_hand = turned(Reason::ByHand, None);
    assert_eq!([Kind::Isolated; 2].map(|kind| machine.force(kind)), [by_hand, None]);
    let later = now + Duration::from_secs(3600);
    assert!(!machine.would_admit(|| 3, || later));
    assert_eq!(machine.enter(3, || later), (Err(None), None));
    assert_eq!((machine.force(Kind::Closed), machine.kind()), (by_hand, Kind::Closed));
}

#[test]
fn a_slow_head_of_a_probe_is_a_failure_where_slow_calls_count() {
    let now = Instant::now();
    let policy = BreakerPolicy::default().with_slow_calls(10 * MS, 0.5).unwrap();
    let policy = policy.with_min_calls(2).unwrap();
    let machine = Machine::new(policy, Rng::seeded(1), now);
    assert!(machine.needs_latency() && !self::machine(now).needs_latency());
    assert_eq!(machine.failure_rate(now), None);
    let ends = |took| machine.leave(entered(&machine, now), GOOD, || took, || now);
    assert_eq!(ends(MS), None);
    assert_eq!(ends(10 * MS), turned(Reason::SlowCalls, Some(1)));
    assert_eq!(machine.failure_rate(now), Some(0.0));
    let due = now + machine.next_probe_in(now).unwrap();
    let probe = machine.enter(1, || due).0.unwrap();
    let (rest, change) = machine.answered(probe, || 10 * MS, || due);
    assert_eq!((rest, change), (None, turned(Reason::ProbeFailed, Some(1))));
}

#[test]
fn the_failure_rate_is_the_share_of_the_calls_that_are_evidence_since_it_was_closed() {
    let now = Instant::now();
    let policy = BreakerPolicy::default().with_failure_rate(0.5).unwrap();
    let machine = Machine::new(policy, Rng::seeded(1), now);
    let nothing = Evidence::Nothing(Some(Code::Cancelled));
    for evidence in [GOOD, BAD, nothing, GOOD, GOOD] {
        leaves(&machine, entered(&machine, now), evidence, now);
    }
    assert_eq!(machine.failure_rate(now), Some(0.25));
    machine.force(Kind::Closed);
    assert_eq!(machine.failure_rate(now), None);
}

#[test]
fn after_a_success_it_opens_again_for_as_short_as_at_first() {
    let mut now = Instant::now();
    let machine = machine(now);
    let opens = |now| {
        for pass in [(); 2].map(|()| entered(&machine, now)) {
            leaves(&machine, pass, BAD, now);
        }
        machine.next_probe_in(now).unwrap()
    };
    for _ in 0..5 {
        let wait = opens(now);
        assert!((800 * MS..=1200 * MS).contains(&wait), "{wait:?}");
        now += wait;
        let probe = entered(&machine, now);
        let closed = leaves(&machine, probe, GOOD, now);
        assert_eq!(closed, turned(Reason::ProbeSucceeded, None));
    }
}
