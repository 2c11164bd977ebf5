//! `calculator-load`, as a process.

use outside::{Paged, Server, http, output};
use std::{process::Command, thread, time::Duration};

/// Runs it: its exit code, its output and its errors.
fn run(args: &[&str]) -> (Option<i32>, String, String) {
    output(&Command::new(env!("CARGO_BIN_EXE_calculator-load")).args(args).output().unwrap())
}

/// The report of a load, as JSON.
fn load(args: &[&str]) -> serde_json::Value {
    let (code, out, err) = run(&[&["-O", "json"], args].concat());
    assert_eq!(code, Some(0), "{err}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn a_load_is_reported_as_json_and_judged_by_its_thresholds() {
    let server = Server::start(&["--failure-rate", "0.5"]);
    let load = ["--rps", "200", "-z", "1s", "-O", "json", "--addr", &server.addr];
    for (most, expected) in [("1", 0), ("0.1", 1)] {
        let (code, out, err) = run(&[&load[..], &["--max-failures", most]].concat());
        assert_eq!(code, Some(expected), "{err}");
        let report: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(report["calls"], 200);
        assert_eq!(report["missed"].as_array().unwrap().len() as i32, expected);
        let failed = report["codes"]["UNAVAILABLE"].as_u64().unwrap();
        assert_eq!(report["succeeded"].as_u64().unwrap() + failed, 200);
        assert_eq!(report["failed_attempts"]["surfaced"].as_u64(), Some(failed));
        assert!(report["latency_ms"]["p99.9"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn a_load_tells_how_long_calls_took() {
    let server = Server::start(&["--slow-rate", "1", "--slow-delay", "300ms"]);
    let report = load(&["--rps", "20", "-z", "1s", "--addr", &server.addr]);
    for quantile in ["p50", "p99", "max"] {
        assert!(report["latency_ms"][quantile].as_f64().unwrap() >= 300.0, "{report}");
    }
}

#[test]
fn the_last_answer_outlives_the_server() {
    let server = Server::start(&[]);
    let addr = server.addr.clone();
    let loading = thread::spawn(move || {
        load(&["--addr", &addr, "--fallback", "cached:1m", "-z", "4s", "--rps", "50"])
    });
    // real clock: the server is a process.
    thread::park_timeout(Duration::from_secs(2));
    drop(server);
    let report = loading.join().unwrap();
    let (calls, degraded) = (report["calls"].as_u64(), report["degraded"].as_u64().unwrap());
    assert_eq!((calls, report["failed"].as_u64()), (Some(200), Some(0)), "{report}");
    assert!((1..=150).contains(&degraded), "{report}");
}

#[test]
fn a_breaker_spares_a_server_that_fails() {
    let failing = Server::start(&["--mode", "failure"]);
    let args = ["--addr", &failing.addr, "--max-retries", "0", "-z", "1s", "--rps", "100"];
    let report = load(&[&args[..], &["--breaker", "consecutive:3,open:5s", "-c", "1"]].concat());
    let errors = &report["errors"];
    assert_eq!(errors["/calculator.Calculator/Add: circuit breaker is open"], 97, "{report}");
    assert_eq!(errors["simulated failure"], 3, "{report}");
    let shadow = load(&[&args[..], &["--breaker", "consecutive:3,shadow"]].concat());
    assert_eq!(shadow["errors"]["simulated failure"], 100, "{shadow}");
}

#[test]
fn who_is_over_its_quota_is_told_so_and_does_not_retry() {
    let server = Server::start(&["--quota", "5"]);
    let args = ["--addr", &server.addr, "--retry-on", "resource-exhausted"];
    let report = load(&[&args[..], &["-z", "1s", "--rps", "100"]].concat());
    assert_eq!(report["attempts"], 100, "{report}");
    let refused = report["codes"]["RESOURCE_EXHAUSTED"].as_u64().unwrap();
    assert!((80..=95).contains(&refused), "{report}");
}

#[test]
fn what_is_over_the_limit_is_turned_away() {
    let slow = ["--limit", "2", "--slow-rate", "1", "--slow-delay", "500ms"];
    let server = Server::start(&slow);
    let args = ["--addr", &server.addr, "--max-retries", "0", "-z", "2s", "--rps", "50"];
    let report = load(&args);
    let away = report["errors"]["overloaded"].as_u64().unwrap();
    assert!((80..=98).contains(&away), "{report}");
    assert!(report["succeeded"].as_u64().unwrap() >= 2, "{report}");
}

#[test]
fn servers_that_shed_are_not_left_alone_by_a_breaker() {
    // Together they can do 60 a second.
    let slow = ["--limit", "4", "--slow-rate", "1", "--slow-delay", "200ms"];
    let servers = [0; 3].map(|_| Server::start(&slow));
    let all = servers.each_ref().map(|server| &*server.addr).join(",");
    let args = ["--endpoints", &all, "--max-retries", "0", "-z", "3s", "--rps", "200"];
    let report = load(&[&args[..], &["--breaker", "default", "-c", "256"]].concat());
    assert!(report["errors"]["overloaded"].as_u64().unwrap() > 100, "{report}");
    assert!(report["succeeded"].as_u64().unwrap() >= 90, "{report}");
    assert!(report["errors"].get("circuit breaker is open").is_none(), "{report}");
}

#[test]
fn a_load_has_a_page_with_its_breakers_and_its_metrics() {
    let server = Server::start(&[]);
    let load = Paged::load(&["--breaker", "default", "--addr", &server.addr]);
    let page = &load.page;
    let breaker = format!("breaker\",\"name\":\"{}\"", server.addr);
    // It ends with the load at the latest.
    while !http(page, "GET /api/state", "").contains(&breaker) {}
    let metrics = http(page, "GET /metrics", "");
    assert!(metrics.contains("cinchona_balance_calls_total{"), "{metrics}");
}
