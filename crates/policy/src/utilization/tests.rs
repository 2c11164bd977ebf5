//! Reports, the weights they make, and when those are used.

use super::*;
use proptest::{collection::vec, prelude::*};

const SECOND: Duration = Duration::from_secs(1);

fn report(cpu: f64, application: f64, qps: f64, eps: f64) -> Report {
    Report { cpu_utilization: cpu, rps_fractional: qps, eps, application_utilization: application }
}

fn with_penalty(error_utilization_penalty: f64) -> Utilization {
    Utilization { error_utilization_penalty, ..Utilization::default() }
}

#[test]
fn the_weight_is_that_of_the_formula() {
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    for ((cpu, application, qps, eps), penalty, expected) in [
        ((0.5, 0.0, 100.0, 0.0), 1.0, Some(200.0)),
        ((0.5, 0.25, 100.0, 0.0), 1.0, Some(400.0)),
        ((0.0, 0.25, 100.0, 0.0), 1.0, Some(400.0)),
        ((0.5, -1.0, 100.0, 0.0), 1.0, Some(200.0)),
        ((0.5, nan, 100.0, 0.0), 1.0, Some(200.0)),
        ((2.0, 0.0, 100.0, 0.0), 1.0, Some(50.0)),
        ((0.5, 0.0, 100.0, 50.0), 1.0, Some(100.0)),
        ((0.5, 0.0, 100.0, 50.0), 3.0, Some(50.0)),
        ((0.5, 0.0, 100.0, 50.0), 0.0, Some(200.0)),
        ((0.5, 0.0, 100.0, -50.0), 1.0, Some(200.0)),
        ((0.5, 0.0, 100.0, nan), 1.0, Some(200.0)),
        ((0.0, 0.0, 100.0, 0.0), 1.0, None),
        ((0.0, 0.0, 100.0, 50.0), 1.0, None),
        ((-0.5, 0.0, 100.0, 0.0), 1.0, None),
        ((nan, 0.0, 100.0, 0.0), 1.0, None),
        ((inf, 0.0, 100.0, 0.0), 1.0, None),
        ((0.5, 0.0, 0.0, 0.0), 1.0, None),
        ((0.5, 0.0, -1.0, 0.0), 1.0, None),
        ((0.5, 0.0, nan, 0.0), 1.0, None),
        ((0.5, 0.0, inf, 0.0), 1.0, None),
        ((0.5, 0.0, inf, inf), 1.0, None),
        ((0.5, 0.0, 100.0, inf), 1.0, None),
        ((1e-300, 0.0, 1e300, 0.0), 1.0, None),
    ] {
        let weight = with_penalty(penalty).weight(&report(cpu, application, qps, eps));
        assert_eq!(weight, expected, "{cpu}, {application}, {qps}, {eps}, {penalty}");
    }
}

proptest! {
    #[test]
    fn no_numbers_make_a_weight_that_is_no_number_above_0(bits in any::<[u64; 5]>()) {
        let [cpu, application, qps, eps, penalty] = bits.map(f64::from_bits);
        if let Ok(settings) = with_penalty(penalty).checked()
            && let Some(weight) = settings.weight(&report(cpu, application, qps, eps))
        {
            prop_assert!(weight.is_finite() && weight > 0.0, "{weight}");
        }
        sound(&report(cpu, application, qps, eps))?;
    }

    #[test]
    fn weights_over_their_mean_are_bounded(bits in vec(any::<Option<u64>>(), 0..8)) {
        let is_weight = |weight: &f64| weight.is_finite() && *weight > 0.0;
        let weights = bits.iter().map(|bits| bits.map(f64::from_bits).filter(is_weight));
        if let Some(over) = over_mean(weights) {
            prop_assert!(over.iter().all(|weight| (0.01..=10.0).contains(weight)), "{over:?}");
        }
    }
}

fn sound(report: &Report) -> Result<(), TestCaseError> {
    let now = Instant::now();
    let settings = Utilization { blackout_period: Duration::ZERO, ..Utilization::default() };
    let reported = Reported::new(settings, now);
    reported.hear(report, now + SECOND);
    if let Some(weight) = reported.weight(now + SECOND) {
        prop_assert!(weight.is_finite() && weight > 0.0, "{weight}");
    }
    Ok(())
}

#[test]
fn an_endpoint_without_a_weight_gets_the_mean_of_the_others() {
    for (weights, expected) in [
        (vec![], None),
        (vec![None, None], None),
        (vec![Some(1.0)], None),
        (vec![None, Some(1.0), None], None),
        (vec![Some(3.0), Some(1.0)], Some(vec![1.5, 0.5])),
        (vec![Some(3.0), None, Some(1.0)], Some(vec![1.5, 1.0, 0.5])),
        (vec![Some(f64::MAX), Some(f64::MAX)], Some(vec![1.0, 1.0])),
        (vec![Some(f64::MAX), Some(f64::MIN_POSITIVE)], Some(vec![2.0, 0.01])),
    ] {
        assert_eq!(over_mean(weights.iter().copied()), expected, "{weights:?}");
    }
    let one_of_many: Vec<_> = std::iter::once(1e6).chain([1.0; 99]).map(Some).collect();
    let over = over_mean(one_of_many.into_iter()).unwrap();
    assert_eq!((over[0], over[1]), (10.0, 0.01), "at most a thousand times as often");
}

/// The reports of an endpoint at 1 s, 2 s, ... and the seconds at which its weight can be used.
fn usable(
    settings: Utilization,
    seconds: u32,
    is_heard: impl Fn(u32) -> bool,
    connects: u32,
) -> Vec<u32> {
    let began = Instant::now();
    let reported = Reported::new(settings, began);
    let report = report(0.5, 0.0, 100.0, 0.0);
    let mut usable = Vec::new();
    for second in 1..=seconds {
        let now = began + second * SECOND;
        if second == connects {
            reported.begins_anew();
        }
        if is_heard(second) {
            reported.hear(&report, now);
        }
        if let Some(weight) = reported.weight(now) {
            assert_eq!(weight, 200.0);
            usable.push(second);
        }
    }
    usable
}

#[tokio::test(start_paused = true)]
async fn a_weight_is_used_after_the_blackout_and_until_it_expires() {
    let settings = Utilization {
        blackout_period: 3 * SECOND,
        weight_expiration_period: 5 * SECOND,
        ..Utilization::default()
    };
    let none = u32::MAX;
    assert_eq!(usable(settings, 9, |_| false, none), [0; 0]);
    assert_eq!(usable(settings, 9, |_| true, none), [4, 5, 6, 7, 8, 9]);
    assert_eq!(usable(settings, 9, |_| true, 6), [4, 5, 9], "a new connection");
    // Two reports, silence, and reports again from 9 s on.
    let silent = |second| second <= 2 || second >= 9;
    assert_eq!(usable(settings, 14, silent, none), [4, 5, 6, 12, 13, 14]);
    let at_once = Utilization { blackout_period: Duration::ZERO, ..settings };
    assert_eq!(usable(at_once, 9, |second| second == 1, none), [1, 2, 3, 4, 5]);
    assert_eq!(usable(at_once, 9, |second| second == 1, 3), [1, 2, 3, 4, 5]);
    let never = Utilization { weight_expiration_period: Duration::ZERO, ..at_once };
    assert_eq!(usable(never, 9, |_| true, none), [0; 0]);
}

#[test]
fn settings_outside_their_range_are_refused_by_name() {
    let refused = |settings: Utilization| settings.checked().unwrap_err().field();
    let settings =
        Utilization { weight_update_period: Duration::from_millis(99), ..Utilization::default() };
    assert_eq!(refused(settings), "weight_update_period");
    for penalty in [-0.1, f64::NAN, f64::INFINITY] {
        assert_eq!(refused(with_penalty(penalty)), "error_utilization_penalty", "{penalty}");
    }
    let least = Utilization {
        blackout_period: Duration::ZERO,
        weight_expiration_period: Duration::ZERO,
        weight_update_period: Duration::from_millis(100),
        error_utilization_penalty: 0.0,
    };
    assert!(least.checked().is_ok());
    assert!(Utilization::default().checked().is_ok());
}
