//! Outlier detection as gRPC's own tests have it.

use super::*;
use crate::Rng;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

/// Endpoints with so many calls that succeeded and that failed.
fn tallies(counts: &[(u64, u64)]) -> Vec<Tally> {
    let tally = |(succeeded, failed): &(u64, u64)| Tally {
        succeeded: AtomicU64::new(*succeeded),
        failed: AtomicU64::new(*failed),
        ..Tally::default()
    };
    counts.iter().map(tally).collect()
}

fn swept(detection: &OutlierDetection, counts: &[(u64, u64)]) -> Vec<usize> {
    let mut ejections = vec![Ejection::default(); counts.len()];
    let tallies = tallies(counts);
    let tallies: Vec<&Tally> = tallies.iter().collect();
    detection.sweep(
        &tallies,
        &mut ejections,
        &mut Ejections::default(),
        Instant::now(),
        &Rng::seeded(1),
    );
    let ejected = ejections.iter().enumerate().filter(|(_, ejection)| ejection.since.is_some());
    ejected.map(|(index, _)| index).collect()
}

fn by_rate() -> OutlierDetection {
    OutlierDetection {
        success_rate: Some(SuccessRate { request_volume: 10, ..SuccessRate::default() }),
        max_ejection_percent: 100,
        ..OutlierDetection::default()
    }
}

fn by_percentage() -> OutlierDetection {
    OutlierDetection {
        failure_percentage: Some(FailurePercentage {
            request_volume: 10,
            ..FailurePercentage::default()
        }),
        max_ejection_percent: 100,
        ..OutlierDetection::default()
    }
}

const FIVE_ONE_BAD: [(u64, u64); 5] = [(50, 0), (50, 0), (50, 0), (50, 0), (0, 50)];

// catalogue: CU-outlier-detection, GO-outlier-detection
#[tokio::test(start_paused = true)]
async fn the_one_far_below_the_mean_is_ejected() {
    assert_eq!(swept(&by_rate(), &FIVE_ONE_BAD), [4]);
    assert_eq!(swept(&by_rate(), &[(50, 1); 5]), [0; 0]);
    assert_eq!(swept(&by_percentage(), &FIVE_ONE_BAD), [4]);
    assert_eq!(swept(&by_percentage(), &[(15, 85), (15, 85), (14, 86), (50, 0), (50, 0)]), [2]);
    assert_eq!(swept(&OutlierDetection::default(), &FIVE_ONE_BAD), [0; 0], "off by default");
}

// catalogue: JV-outlier-detection
#[tokio::test(start_paused = true)]
async fn the_deviation_is_that_of_the_whole_population() {
    // The vector of grpc-java's tests: mean 394, deviation 147.32277488562318.
    let counts = [600, 470, 170, 430, 300].map(|good| (good, 1000 - good));
    let tallies = tallies(&counts);
    let volumes: Vec<Volume> = tallies.iter().enumerate().map(|(n, tally)| tally.take(n)).collect();
    let least = SuccessRate { stdev_factor: 1000, ..SuccessRate::default() }.least(&volumes);
    assert!((least - (0.394 - 0.147_322_774_885_623_18)).abs() < 1e-12);
}

#[tokio::test(start_paused = true)]
async fn with_too_few_calls_or_hosts_no_endpoint_is_ejected() {
    for detection in [by_rate(), by_percentage()] {
        assert_eq!(swept(&detection, &FIVE_ONE_BAD[1..]), [0; 0], "four hosts");
        assert_eq!(swept(&detection, &[(5, 0), (5, 0), (5, 0), (5, 0), (0, 5)]), [0; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_are_ejected_than_the_maximum_allows() {
    let all_bad = [(0, 50); 10];
    for (percent, expected) in [(0, 0), (10, 1), (11, 2), (50, 5), (100, 10)] {
        let detection = OutlierDetection { max_ejection_percent: percent, ..by_percentage() };
        assert_eq!(swept(&detection, &all_bad).len(), expected, "{percent} %");
    }
    let few = OutlierDetection { max_ejection_percent: 10, ..by_percentage() };
    assert_eq!(swept(&few, &FIVE_ONE_BAD), [4], "of five, 10 % still lets one go");
}

// catalogue: X-enforcement-1-percent
#[tokio::test(start_paused = true)]
async fn enforcement_is_a_chance() {
    let enforced = |percent| {
        let failure = FailurePercentage {
            enforcement_percentage: percent,
            ..by_percentage().failure_percentage.unwrap()
        };
        let detection = OutlierDetection { failure_percentage: Some(failure), ..by_percentage() };
        swept(&detection, &[(0, 50); 1000]).len()
    };
    assert_eq!((enforced(0), enforced(100)), (0, 1000));
    assert!((250..350).contains(&enforced(30)));
    assert!((1..30).contains(&enforced(1)), "1 % is not 0 %");
}

// catalogue: X-both-ejection-algorithms
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_both_algorithms_find_is_ejected_once() {
    let detection = OutlierDetection { success_rate: by_rate().success_rate, ..by_percentage() };
    let tallies = tallies(&FIVE_ONE_BAD);
    let tallies: Vec<&Tally> = tallies.iter().collect();
    let mut ejections = [Ejection::default(); 5];
    detection.sweep(
        &tallies,
        &mut ejections,
        &mut Ejections::default(),
        Instant::now(),
        &Rng::seeded(1),
    );
    assert_eq!(ejections[4].multiplier, 1);
}

// catalogue: JS-outlier-detection
#[tokio::test(start_paused = true)]
async fn each_ejection_is_longer_and_is_forgotten_step_by_step() {
    let detection = by_percentage();
    let (rng, began) = (Rng::seeded(1), Instant::now());
    let mut ejections = [Ejection::default(); 5];
    let mut sweep = |at: u32, counts: &[(u64, u64)]| {
        let tallies = tallies(counts);
        let tallies: Vec<&Tally> = tallies.iter().collect();
        detection.sweep(
            &tallies,
            &mut ejections,
            &mut Ejections::default(),
            began + at * SECOND,
            &rng,
        );
        (ejections[4].since.is_some(), ejections[4].multiplier)
    };
    let quiet = [(0, 0); 5];
    assert_eq!(sweep(10, &FIVE_ONE_BAD), (true, 1));
    assert_eq!(sweep(40, &quiet), (true, 1), "30 s, and no less");
    assert_eq!(sweep(50, &FIVE_ONE_BAD), (false, 1), "ejected ones are not ejected again");
    assert_eq!(sweep(60, &FIVE_ONE_BAD), (true, 2));
    assert_eq!(sweep(120, &quiet), (true, 2));
    assert_eq!(sweep(130, &quiet), (false, 2));
    assert_eq!(sweep(140, &quiet), (false, 1));
    assert_eq!(sweep(150, &quiet), (false, 0));
    assert_eq!(sweep(160, &quiet), (false, 0));
}

#[test]
fn failures_in_a_row_are_counted_until_one_succeeds() {
    let tally = Tally::default();
    let (good, bad) = (Evidence::Good(Code::Ok), Evidence::Bad(Code::Unavailable));
    assert_eq!([tally.count(bad), tally.count(bad)], [1, 2]);
    assert_eq!([tally.count(Evidence::Nothing(None)), tally.count(bad)], [0, 3]);
    assert_eq!([tally.count(good), tally.count(bad)], [0, 1]);
    assert_eq!([tally.count(Evidence::Good(Code::NotFound)), tally.count(bad)], [0, 1]);
    assert_eq!(tally.read(), (1, 6), "in A50, every code but OK is a failure");
}

#[test]
fn a_value_outside_its_range_is_refused() {
    let failure = |threshold| FailurePercentage { threshold, ..FailurePercentage::default() };
    for (detection, field) in [
        (OutlierDetection { max_ejection_percent: 101, ..by_rate() }, "max_ejection_percent"),
        (OutlierDetection { interval: Duration::ZERO, ..by_rate() }, "interval"),
        (OutlierDetection { consecutive_failures: Some(0), ..by_rate() }, "consecutive_failures"),
        (
            OutlierDetection { failure_percentage: Some(failure(101)), ..by_rate() },
            "failure_percentage.threshold",
        ),
    ] {
        assert_eq!(detection.checked().unwrap_err().field(), field);
    }
    by_rate().checked().unwrap();
}

proptest! {
    #[test]
    fn ejections_never_exceed_their_cap(
        percent in 0_u32..=100,
        rounds in prop::collection::vec(prop::collection::vec((0_u64..100, 0_u64..100), 12), 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _entered = runtime.enter();
        let detection = OutlierDetection {
            max_ejection_percent: percent,
            success_rate: by_rate().success_rate,
            ..by_percentage()
        };
        let (rng, began) = (Rng::seeded(1), Instant::now());
        let mut ejections = [Ejection::default(); 12];
        for (n, counts) in (1..).zip(&rounds) {
            let tallies = tallies(counts);
            let tallies: Vec<&Tally> = tallies.iter().collect();
            let (now, mut found) = (began + n * 10 * SECOND, Ejections::default());
            detection.sweep(&tallies, &mut ejections, &mut found, now, &rng);
            let ejected = ejections.iter().filter(|ejection| ejection.since.is_some()).count();
            prop_assert!(ejected <= (12 * percent as usize).div_ceil(100));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_outlier_is_counted_by_its_method_and_by_why_it_was_not_ejected() {
    let swept = |detection: OutlierDetection, counts: &[(u64, u64)]| {
        let (tallies, mut found) = (tallies(counts), Ejections::default());
        let tallies: Vec<&Tally> = tallies.iter().collect();
        let mut ejections = vec![Ejection::default(); counts.len()];
        detection.sweep(&tallies, &mut ejections, &mut found, Instant::now(), &Rng::seeded(1));
        found
    };
    let all_bad = [(0, 50); 5];
    let few = OutlierDetection { max_ejection_percent: 40, ..by_percentage() };
    let found = swept(few, &all_bad);
    let enforced: Vec<_> = found.enforced().filter(|(_, count)| *count > 0).collect();
    assert_eq!(enforced, [("failure_percentage", 2)]);
    let unenforced: Vec<_> = found.unenforced().filter(|(.., count)| *count > 0).collect();
    assert_eq!(unenforced, [("failure_percentage", "max_ejection_overflow", 3)]);

    let never = SuccessRate { enforcement_percentage: 0, request_volume: 10, ..Default::default() };
    let found = swept(OutlierDetection { success_rate: Some(never), ..by_rate() }, &FIVE_ONE_BAD);
    assert!(found.enforced().all(|(_, count)| count == 0));
    let unenforced: Vec<_> = found.unenforced().filter(|(.., count)| *count > 0).collect();
    assert_eq!(unenforced, [("success_rate", "enforcement_percentage", 1)]);
}

#[test]
fn what_was_swept_is_still_in_the_counters() {
    let tally = Tally::default();
    let (good, bad) = (Evidence::Good(Code::Ok), Evidence::Bad(Code::Unavailable));
    for evidence in [good, bad, good] {
        tally.count(evidence);
    }
    assert_eq!((tally.take(0).total, tally.take(0).total), (3, 0));
    assert_eq!(tally.read(), (2, 1));
}

/// A50: an outlier is below what the deviation allows, and not just at it.
#[tokio::test(start_paused = true)]
async fn endpoints_that_fail_alike_are_no_outliers() {
    assert_eq!(swept(&by_rate(), &[(25, 25); 5]), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_an_ejection_is_told_with_its_method_and_never_less_than_nothing() {
    let (detection, now) = (by_percentage(), Instant::now());
    let mut ejections = [Ejection::default(); 5];
    assert_eq!(detection.left(&ejections[4], now), None);
    let (found, mut counts) = ((4, Method::ConsecutiveFailures), Ejections::default());
    assert!(detection.eject(found, || false, &mut ejections, &mut counts, now));
    for (passed, left) in [(0, 30), (29, 1), (30, 0), (31, 0)] {
        let left = Some((Method::ConsecutiveFailures, left * SECOND));
        assert_eq!(detection.left(&ejections[4], now + passed * SECOND), left);
    }
}

#[test]
fn failures_before_an_ejection_do_not_count_after_it() {
    let (tally, bad) = (Tally::default(), Evidence::Bad(Code::Unavailable));
    assert_eq!([tally.count(bad), tally.count(bad)], [1, 2]);
    tally.begin_anew();
    assert_eq!(tally.count(bad), 1);
    assert_eq!(tally.read(), (0, 3), "the counters go on");
}
