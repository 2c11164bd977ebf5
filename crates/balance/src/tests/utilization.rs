//! Servers that report their load, and the calls they get.

use super::*;
use crate::report::Report;
use prost::Message;
use tonic::metadata::BinaryMetadataValue;

const CPU: Report =
    Report { cpu_utilization: 0.0, rps_fractional: 100.0, eps: 0.0, application_utilization: 0.0 };

fn with(mut status: Status, report: &[u8]) -> Status {
    let value = BinaryMetadataValue::from_bytes(report);
    status.metadata_mut().insert_bin("endpoint-load-metrics-bin", value);
    status
}

/// An answer with these bytes as the report in its trailers.
fn answer(report: &[u8]) -> Answer {
    Answer::MessageThenStatus(encode(&1_u32), with(Status::ok(""), report))
}

fn reports(report: Report) -> Answer {
    answer(&report.encode_to_vec())
}

fn busy(cpu_utilization: f64) -> Answer {
    reports(Report { cpu_utilization, ..CPU })
}

/// How many of `count` calls each server gets.
async fn spread(world: &World, balance: &Balance, count: usize) -> Vec<usize> {
    let before = world.attempts();
    calls(balance, count).await;
    world.attempts().iter().zip(before).map(|(now, before)| now - before).collect()
}

/// Connected, and after so many calls and the blackout.
async fn proven(world: &World, options: Options) -> Balance {
    let balance = world.balance(options);
    sleep(SECOND).await;
    calls(&balance, 20).await;
    sleep(12 * SECOND).await;
    balance
}

fn are_within_five_percent(seen: &[usize], weights: &[f64]) {
    let (calls, sum) = (seen.iter().sum::<usize>() as f64, weights.iter().sum::<f64>());
    for (seen, weight) in seen.iter().zip(weights) {
        let (share, expected) = (*seen as f64 / calls, weight / sum);
        assert!((share - expected).abs() < 0.05 * expected, "{share}, not {expected}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_third_of_the_utilization_gets_three_times_the_calls_after_the_blackout() {
    let world = World::new([busy(0.2), busy(0.6)]);
    let balance = world.balance(by(Picker::WeightedRoundRobin));
    sleep(SECOND).await;
    assert_eq!(spread(&world, &balance, 400).await, [200, 200]);
    sleep(9 * SECOND).await;
    assert_eq!(spread(&world, &balance, 400).await, [200, 200], "in turns");
    sleep(2 * SECOND).await;
    are_within_five_percent(&spread(&world, &balance, 400).await, &[3.0, 1.0]);
}

#[tokio::test(start_paused = true)]
async fn weights_expire_and_have_another_blackout() {
    let world = World::new([busy(0.2), busy(0.6)]);
    let balance = proven(&world, by(Picker::WeightedRoundRobin)).await;
    sleep(160 * SECOND).await;
    are_within_five_percent(&spread(&world, &balance, 400).await, &[3.0, 1.0]);
    sleep(181 * SECOND).await;
    assert_eq!(spread(&world, &balance, 400).await, [200, 200]);
    sleep(9 * SECOND).await;
    assert_eq!(spread(&world, &balance, 400).await, [200, 200], "the blackout again");
    sleep(2 * SECOND).await;
    are_within_five_percent(&spread(&world, &balance, 400).await, &[3.0, 1.0]);
}

#[tokio::test(start_paused = true)]
async fn a_new_connection_begins_with_a_blackout() {
    let mut world = World::new([busy(0.2), busy(0.6)]);
    let balance = proven(&world, by(Picker::WeightedRoundRobin)).await;
    world.kill(0);
    sleep(MS).await;
    world.revive(0);
    sleep(3 * SECOND).await;
    assert_eq!(spread(&world, &balance, 400).await, [200, 200]);
    sleep(12 * SECOND).await;
    are_within_five_percent(&spread(&world, &balance, 400).await, &[3.0, 1.0]);
}

#[tokio::test(start_paused = true)]
async fn one_that_reports_alone_changes_nothing() {
    let world = World::new([busy(0.9), ok(), ok()]);
    let balance = proven(&world, by(Picker::WeightedRoundRobin)).await;
    assert_eq!(spread(&world, &balance, 300).await, [100; 3]);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_without_a_valid_report_gets_the_mean() {
    for other in [ok(), answer(b"no protobuf"), answer(&[]), busy(-1.0), busy(f64::NAN)] {
        let world = World::new([busy(0.2), busy(0.6), other.clone()]);
        let balance = proven(&world, by(Picker::WeightedRoundRobin)).await;
        let seen = spread(&world, &balance, 1200).await;
        are_within_five_percent(&seen, &[3.0, 1.0, 2.0]);
    }
}

#[tokio::test(start_paused = true)]
async fn errors_count_as_utilization() {
    // 0.1 + 20 / 100 is 0.3.
    let failing = reports(Report { cpu_utilization: 0.1, eps: 20.0, ..CPU });
    let world = World::new([failing, busy(0.1)]);
    let balance = proven(&world, by(Picker::WeightedRoundRobin)).await;
    are_within_five_percent(&spread(&world, &balance, 400).await, &[1.0, 3.0]);
    let utilization = Utilization { error_utilization_penalty: 0.0, ..Utilization::default() };
    let options = Options { utilization, ..by(Picker::WeightedRoundRobin) };
    let balance = proven(&world, options).await;
    assert_eq!(spread(&world, &balance, 400).await, [200, 200]);
}

#[tokio::test(start_paused = true)]
async fn weights_by_utilization_replace_those_of_the_targets() {
    let world = World::new([busy(0.2), busy(0.6)]);
    let targets: Vec<Target> =
        [1, 9].iter().zip(world.targets()).map(|(w, t)| Target { weight: *w, ..t }).collect();
    let balance = world.balance_over(targets, by(Picker::WeightedRoundRobin));
    sleep(SECOND).await;
    are_within_five_percent(&spread(&world, &balance, 400).await, &[1.0, 9.0]);
    sleep(12 * SECOND).await;
    are_within_five_percent(&spread(&world, &balance, 400).await, &[3.0, 1.0]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_without_a_body_reports_too() {
    let refuses = |cpu_utilization| {
        let report = Report { cpu_utilization, ..CPU }.encode_to_vec();
        Answer::Status(with(Status::unavailable("busy"), &report))
    };
    let world = World::new([refuses(0.2), refuses(0.6)]);
    let balance = proven(&world, by(Picker::WeightedRoundRobin)).await;
    are_within_five_percent(&spread(&world, &balance, 400).await, &[3.0, 1.0]);
}

#[tokio::test(start_paused = true)]
async fn weights_follow_what_is_reported_at_their_period() {
    let utilization = Utilization {
        blackout_period: Duration::ZERO,
        weight_update_period: 5 * SECOND,
        ..Utilization::default()
    };
    let world = World::new([busy(0.2), busy(0.6)]);
    let balance = world.balance(Options { utilization, ..by(Picker::WeightedRoundRobin) });
    sleep(SECOND).await;
    assert_eq!(spread(&world, &balance, 400).await, [200, 200]);
    sleep(3 * SECOND).await;
    assert_eq!(spread(&world, &balance, 400).await, [200, 200], "not weighed yet");
    sleep(2 * SECOND).await;
    are_within_five_percent(&spread(&world, &balance, 400).await, &[3.0, 1.0]);
}

#[tokio::test(start_paused = true)]
async fn other_pickers_ignore_reports() {
    let world = World::new([busy(0.2), busy(0.6)]);
    let balance = proven(&world, by(Picker::RoundRobin)).await;
    assert_eq!(spread(&world, &balance, 400).await, [200, 200]);
    assert!(
        balance
            .0
            .set
            .choice
            .get()
            .nodes
            .iter()
            .all(|node| node.reported_weight(Instant::now()).is_none())
    );
}

#[tokio::test(start_paused = true)]
async fn bad_settings_of_utilization_are_refused() {
    let utilization = Utilization { error_utilization_penalty: -1.0, ..Utilization::default() };
    let options = Options { utilization, ..Options::default() };
    let refused = Balance::new(vec![target(0)], options).unwrap_err();
    assert_eq!(refused.field(), "error_utilization_penalty");
    let utilization = Utilization { weight_update_period: Duration::MAX, ..Utilization::default() };
    let options = Options { utilization, ..by(Picker::WeightedRoundRobin) };
    assert_eq!(call(&World::of(1).balance(options)).await, Code::Ok, "no instant overflows");
}
