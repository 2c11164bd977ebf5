//! The programs with breakers, second answers and faults, as processes on loopback sockets.

use outside::{Server, ask};
use std::{thread, time::Duration};
use tokio::time::Instant;

/// Exit code, result, and what was said beside it, of 10 + 5.
fn add(server: &Server, args: &[&str]) -> (Option<i32>, String, String) {
    ask(&[&["add", "10", "5", "--addr", &server.addr, "--max-retries", "0"], args].concat())
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
