//! Crashes are detected in time, and no running node is convicted.

use super::model::Net;
use crate::{
    Rng,
    cluster::{Event, suspicion::State},
};
use rand::RngExt;
use std::time::Duration;

fn is_failure(event: &Event) -> bool {
    matches!(event, Event::NodeFailed { .. })
}

/// How long it takes until each of the others has convicted a crashed node.
fn detection_times(heartbeat: u64, loss: f64, crashes: u64) -> Vec<u64> {
    let mut times = Vec::new();
    for seed in 0..crashes {
        let mut net = Net::of(5, seed, |settings| {
            settings.heartbeat = Duration::from_millis(heartbeat);
            settings.reachable_within = 5 * settings.heartbeat;
        });
        net.loss = loss;
        net.run(4000 + 50 * (seed % 20));
        let crashed = (seed % 5) as usize;
        net.nodes[crashed].is_up = false;
        let at = net.ms;
        net.run(4000);
        for n in (0..5).filter(|n| *n != crashed) {
            let failures = net.when(n, is_failure);
            assert_eq!(failures.len(), 1, "seed {seed}: {failures:?}");
            times.push(failures[0] - at);
        }
    }
    times.sort_unstable();
    times
}

/// Heartbeats in ms, loss, crashes; the same seeds each time.
const CASES: [(u64, f64, u64); 3] = [(200, 0.0, 300), (200, 0.02, 60), (500, 0.0, 60)];

fn at(times: &[u64], share: f64) -> u64 {
    times[((times.len() - 1) as f64 * share) as usize]
}

/// The detection times, as a table and as charts.
fn document(all: &[Vec<u64>]) -> String {
    let mut text =
        "# How long until a crash is detected\n\nFive nodes of which one crashes, in a model \
                    network in virtual time; from the crash until another node\nsays `NodeFailed`. \
                    Written by `UPDATE=1 cargo test -p cinchona-policy documented`.\n\n"
            .to_owned();
    text += "| heartbeat | packets lost | crashes | least | p50 | p90 | p99 | most |\n";
    text += "|---|---|---|---|---|---|---|---|\n";
    for ((heartbeat, loss, crashes), times) in CASES.iter().zip(all) {
        let shares = [0.0, 0.5, 0.9, 0.99, 1.0].map(|share| format!("{} ms", at(times, share)));
        let (loss, shares) = (loss * 100.0, shares.join(" | "));
        text += &format!("| {heartbeat} ms | {loss} % | {crashes} | {shares} |\n");
    }
    for ((heartbeat, loss, _), times) in CASES.iter().zip(all) {
        let loss = loss * 100.0;
        text += &format!("\nHeartbeats each {heartbeat} ms, {loss} % lost:\n\n```text\n");
        for bucket in times[0] / 100..=times[times.len() - 1] / 100 {
            let share = times.iter().filter(|time| **time / 100 == bucket).count();
            let share = 100.0 * share as f64 / times.len() as f64;
            let bar = "#".repeat(share.round() as usize);
            let line = format!("{:>4} ms {share:>5.1} % {bar}", bucket * 100);
            text += &format!("{}\n", line.trim_end());
        }
        text += "```\n";
    }
    text
}

#[test]
fn crashes_are_noticed_in_time_as_documented() {
    let all = CASES.map(|(heartbeat, loss, crashes)| detection_times(heartbeat, loss, crashes));
    for times in &all {
        let (p50, p99) = (at(times, 0.5), at(times, 0.99));
        assert!(p50 <= 2000 && p99 <= 3000, "{p50} {p99}");
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/DETECTION.md");
    let text = document(&all);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), text, "UPDATE=1 writes it anew");
}

#[test]
fn an_hour_with_loss_and_paused_observers_convicts_no_node() {
    for seed in 0..3 {
        let mut net = Net::of(5, seed, |_| {});
        net.loss = 0.02;
        net.forget_events();
        let rng = Rng::seeded(seed);
        // 20 minutes each: an hour in all.
        for _ in 0..40 {
            net.run(28_000 + 50 * rng.draw().random_range(0..20_u64));
            let paused = rng.draw().random_range(0..5_usize);
            net.nodes[paused].paused_until = net.ms + 2000;
            net.run(2000);
            net.run(1000);
            // It was silent for 2 s itself: others may rightly suspect and convict it.
            for n in (0..5).filter(|n| *n != paused) {
                let ids: Vec<_> = net.when(n, |event| {
                    matches!(event, Event::NodeFailed { node } if *node != format!("n{paused}"))
                });
                assert!(ids.is_empty(), "seed {seed}, n{n}: {:?}", net.nodes[n].events);
            }
            assert!(net.when(paused, is_failure).is_empty(), "{:?}", net.nodes[paused].events);
            net.forget_events();
        }
    }
}

#[test]
fn thirty_percent_loss_for_a_minute_convicts_no_node_and_splits_nothing() {
    for seed in 0..5 {
        let mut net = Net::of(5, seed, |_| {});
        net.loss = 0.3;
        net.forget_events();
        for _ in 0..600 {
            net.run(100);
            assert_eq!(net.writable().len(), 5);
        }
        for n in 0..5 {
            let is_bad = |event: &Event| {
                is_failure(event) || matches!(event, Event::PartitionDetected { .. })
            };
            assert!(net.when(n, is_bad).is_empty(), "{:?}", net.nodes[n].events);
        }
    }
}

#[test]
fn a_crashed_node_is_suspected_fails_and_recovers_when_it_is_started_again() {
    let mut net = Net::of(3, 7, |_| {});
    assert_eq!(net.when(0, |event| matches!(event, Event::NodeJoined { .. })).len(), 2);
    net.forget_events();
    net.nodes[2].is_up = false;
    net.run(5000);
    let seen: Vec<_> = net.nodes[0].events.iter().map(|(_, event)| event.clone()).collect();
    let node = "n2".to_owned();
    assert!(matches!(&seen[0], Event::NodeSuspected { node, phi } if node == "n2" && *phi >= 3.0));
    assert_eq!(seen[1], Event::NodeFailed { node: node.clone() });
    assert_eq!(
        seen[2],
        Event::PartitionDetected {
            minority: vec![node.clone()],
            majority: vec!["n0".into(), "n1".into()],
        }
    );
    assert_eq!(net.nodes[0].view.nodes(net.now()).nth(1).unwrap().state, State::Failed);
    net.forget_events();
    net.restart(2);
    net.run(5000);
    let seen: Vec<_> = net.nodes[0].events.iter().map(|(_, event)| event.clone()).collect();
    assert_eq!(seen, [Event::NodeRecovered { node }, Event::PartitionHealed]);
    assert_eq!(net.writable(), [0, 1, 2]);
}

#[test]
fn failing_calls_convict_a_silent_node_sooner() {
    let mut times = [false, true].map(|failing| {
        let mut net = Net::of(3, 3, |_| {});
        net.run(30_000);
        net.nodes[2].is_up = false;
        let at = net.ms;
        for _ in 0..60 {
            net.run(50);
            let now = net.now();
            if failing {
                net.nodes[0].view.report("n2", true, now);
            }
        }
        net.when(0, is_failure)[0] - at
    });
    times.sort_unstable_by(|a, b| b.cmp(a));
    assert!(times[1] < times[0], "{times:?}");
}
