//! The programs with breaker, fallback, quota and limit, as processes on loopback sockets.

use outside::{Server, ask};
use std::{thread, time::Duration};
use tokio::time::Instant;

/// Exit code, result, and what was said beside it, of 10 + 5.
fn add(server: &Server, args: &[&str]) -> (Option<i32>, String, String) {
    ask(&[&["add", "10", "5", "--addr", &server.addr, "--max-retries", "0"], args].concat())
}

/// The report of a load, as JSON.
fn load(args: &[&str]) -> serde_json::Value {
    let (code, out, err) = ask(&[&["load", "-O", "json"], args].concat());
    assert_eq!(code, Some(0), "{err}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn a_degraded_server_says_so_with_each_answer() {
    let (normal, degraded) = (Server::start(&[]), Server::start(&["--mode", "degraded"]));
    assert_eq!(add(&normal, &[]), (Some(0), "15\n".into(), String::new()));
    assert_eq!(add(&degraded, &[]), (Some(0), "15\n".into(), "degraded: service\n".into()));
}

#[test]
fn a_call_that_failed_is_answered_by_another_server_or_by_default() {
    let (failing, other) = (Server::start(&["--mode", "failure"]), Server::start(&[]));
    let (code, _, err) = add(&failing, &[]);
    assert!(code == Some(1) && err.contains("UNAVAILABLE"), "{err}");
    let (code, out, err) = add(&failing, &["--fallback", "cached,default:7"]);
    assert_eq!((code, out.as_str()), (Some(0), "7\n"));
    assert!(err.ends_with("\ndegraded: default\n"), "{err}");
    let alternate = format!("default:7,alternate:{}", other.addr);
    let (code, out, err) = add(&failing, &["--fallback", &alternate]);
    assert_eq!((code, out.as_str()), (Some(0), "15\n"));
    assert!(err.ends_with("\ndegraded: alternate\n"), "{err}");
    // What has an effect has no second answer.
    let args = ["increment", "--addr", &failing.addr, "--fallback", "default:7"];
    assert_eq!(ask(&[&args[..], &["--max-retries", "0"]].concat()).0, Some(1));
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
fn what_is_wrong_with_an_option_is_said() {
    for (args, error) in [
        (["--breaker", "rate:7"], "failure_rate: 7 is not allowed; the range is above 0 to 1"),
        (["--breaker", "sometimes"], "\"sometimes\" is none of default, consecutive:N"),
        (["--fallback", "alternate"], "\"alternate\" is none of cached"),
    ] {
        let (code, _, err) = ask(&[&["add", "1", "2"], &args[..]].concat());
        assert!(code == Some(2) && err.contains(error), "{err}");
    }
}

#[test]
fn faults_are_injected_by_rules_and_by_a_file_that_changes() {
    let rule = "method=/calculator.Calculator/Add first=2 status=UNAVAILABLE:busy";
    let server = Server::start(&["--fault", rule]);
    let add = |server: &Server, args: &[&str]| {
        let fast = ["--backoff", "1ms", "--jitter", "0s", "--retry-on", "unavailable"];
        ask(&[&["add", "10", "5", "--addr", &server.addr], &fast[..], args].concat())
    };
    let (code, out, err) = add(&server, &[]);
    assert_eq!((code, out.as_str()), (Some(0), "15\n"), "{err}");
    assert!(err.contains("3 attempts"), "{err}");

    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults");
    std::fs::write(&file, "# nothing yet\n").unwrap();
    let server = Server::start(&["--faults-file", file.to_str().unwrap()]);
    assert_eq!(add(&server, &[]).0, Some(0));
    std::fs::write(&file, "gone: drop  # the connection\n").unwrap();
    // real clock: the server is a process, which looks at its file twice a second.
    let began = Instant::now();
    while add(&server, &["--max-retries", "0"]).0 == Some(0) {
        assert!(Instant::now() - began < Duration::from_secs(10));
        thread::park_timeout(Duration::from_millis(100));
    }
    let (code, _, err) = ask(&["add", "1", "2", "--fault"]);
    assert_eq!(code, Some(2), "the client injects nothing: {err}");
}
