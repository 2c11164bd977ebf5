//! The programs, as processes on loopback sockets.

use outside::{Server, ask, client, output};
use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};
use tokio::time::sleep;

#[test]
fn the_client_prints_the_result_alone() {
    let server = Server::start(&[]);
    let (code, out, err) = ask(&["add", "10", "5", "--addr", &server.addr]);
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "15\n", ""));
    let (code, out, _) = ask(&["range", "3", "1", "--step", "-1", "--addr", &server.addr]);
    assert_eq!((code, out.as_str()), (Some(0), "3\n2\n1\n"));
    let (code, out, _) = ask(&["sum", "1", "-2.5", "4", "--addr", &server.addr]);
    assert_eq!((code, out.as_str()), (Some(0), "2.5\n"));
}

#[test]
fn a_failed_call_exits_with_1_and_its_ledger() {
    let server = Server::start(&["--failure-rate", "1"]);
    let args = ["add", "10", "5", "--addr", &server.addr, "--retry-on", "unavailable"];
    let fast = ["--backoff", "1ms", "--jitter", "0s", "--max-retries", "2"];
    let (code, out, err) = ask(&[&args[..], &fast].concat());
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(
        err.contains("UNAVAILABLE: simulated failure\n3 attempts, stopped: exhausted"),
        "{err}"
    );
    assert_eq!(err.matches("attempt failed, retrying").count(), 2, "{err}");
}

#[test]
fn an_explained_call_is_drawn_with_its_attempts_its_waits_and_its_endpoints() {
    let server = Server::start(&["--fault", "first=2 status=UNAVAILABLE:busy"]);
    let args = ["add", "10", "5", "--explain", "--addr", &server.addr];
    let retries = ["--retry-on", "unavailable", "--backoff", "1ms", "--jitter", "0s"];
    let (code, out, err) = ask(&[&args[..], &retries].concat());
    assert_eq!((code, out.as_str()), (Some(0), "15\n"));
    let drawn = |err: &str| err.lines().filter(|line| line.contains('|')).count();
    assert!(err.contains("3 attempts in ") && err.contains(", succeeded\n"), "{err}");
    assert_eq!((drawn(&err), err.matches(&*server.addr).count()), (3, 3), "{err}");
    let first = err.lines().find(|line| line.contains("#1")).unwrap();
    assert!(first.contains("first") && first.contains("| UNAVAILABLE after"), "{err}");
    assert!(first.contains(", then waited ") && first.contains('#'), "{err}");
    assert!(err.lines().any(|line| line.contains("#3") && line.contains("| OK after ")), "{err}");

    let (code, out, err) = ask(&[&args[..], &retries].concat());
    assert_eq!((code, out.as_str(), drawn(&err)), (Some(0), "15\n", 1), "{err}");

    let gone = ["add", "1", "2", "--explain", "--addr", "127.0.0.1:1", "--max-retries", "0"];
    let (code, out, err) = ask(&[&gone[..], &["--fallback", "default:7"]].concat());
    assert_eq!((code, out.as_str()), (Some(0), "7\n"));
    assert!(err.contains("(no connection)") && err.contains("degraded: default"), "{err}");
}

#[test]
fn a_service_config_is_read_from_a_file() {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let (good, bad) = (dir.join("good.json"), dir.join("bad.json"));
    let policy = |attempts: u32| {
        format!(
            r#"{{ "methodConfig": [{{ "name": [{{ "service": "calculator.Calculator" }}],
            "retryPolicy": {{ "maxAttempts": {attempts}, "initialBackoff": "0.001s",
            "maxBackoff": "0.001s", "backoffMultiplier": 1,
            "retryableStatusCodes": ["UNAVAILABLE"] }} }}] }}"#
        )
    };
    std::fs::write(&good, policy(5)).unwrap();
    std::fs::write(&bad, policy(1)).unwrap();
    let server = Server::start(&["--failure-rate", "1"]);
    let args = ["add", "10", "5", "--addr", &server.addr, "--service-config"];
    let (code, _, err) = ask(&[&args[..], &[good.to_str().unwrap()]].concat());
    assert!(code == Some(1) && err.contains("5 attempts, stopped: exhausted"), "{err}");
    let (code, _, err) = ask(&[&args[..], &[bad.to_str().unwrap()]].concat());
    let place = "methodConfig[0].retryPolicy.maxAttempts";
    assert!(code == Some(2) && err.contains(place), "{code:?} {err}");
}

#[test]
fn what_of_a_service_config_does_not_act_is_told_and_message_sizes_act() {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("sizes.json");
    let json = r#"{ "methodConfig": [{ "name": [{ "service": "calculator.Calculatr" }] },
        { "name": [{}], "maxRequestMessageBytes": 3, "timeuot": "1s" }],
        "loadBalancingConfig": [{ "round_robin": {} }] }"#;
    std::fs::write(&file, json).unwrap();
    let server = Server::start(&[]);
    let file = file.to_str().unwrap();
    let args = ["add", "10", "5", "--addr", &server.addr, "--service-config", file];
    let (code, _, err) = ask(&args);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("trying to send message larger than max"), "{err}");
    assert!(err.contains("service config: methodConfig[1].timeuot: is unknown"), "{err}");
    assert!(err.contains("service config: methodConfig[0].name[0]: names no method"), "{err}");
    assert_eq!(err.matches("service config: ").count(), 2, "{err}");
}

/// Options of a client that withstands lost replies.
const PATIENT: [&str; 8] =
    ["--retry-on", "unavailable", "--backoff", "1ms", "--jitter", "0s", "--max-retries", "50"];

fn patient(server: &Server, args: &[&str]) -> (Option<i32>, String) {
    let args = [args, &["--addr", &server.addr, "--no-retry-budget"], &PATIENT].concat();
    let (code, out, _) = ask(&args);
    (code, out)
}

#[test]
fn increments_whose_replies_are_lost_happen_once_unless_nothing_is_remembered() {
    let count = |store| {
        let losing = ["--failure-rate", "0.3", "--fail-when", "after", "--store", store];
        let server = Server::start(&losing);
        let (code, _) = patient(&server, &["increment", "1", "--times", "300", "-c", "16"]);
        assert_eq!(code, Some(0));
        patient(&server, &["counter"]).1.trim().parse::<u32>().unwrap()
    };
    assert_eq!(count("memory"), 300);
    assert!(count("none") > 330);
}

#[test]
fn every_operation_with_an_effect_is_done_once_for_one_request_id() {
    let server = Server::start(&["--failure-rate", "0.3", "--fail-when", "after"]);
    let said = |args: &[&str]| patient(&server, args);
    let done = |out: &str| (Some(0), out.to_owned());
    for _ in 0..2 {
        assert_eq!(said(&["set", "a", "100", "--request-id", "1"]), done(""));
        assert_eq!(said(&["withdraw", "a", "30", "--request-id", "2"]), done("70\n"));
        assert_eq!(said(&["append", "b", "x", "--request-id", "3"]), done("x\n"));
        assert_eq!(said(&["increment", "5", "--request-id", "4"]), done("5\n"));
        assert_eq!(said(&["increment", "--key", "a", "--request-id", "5"]), done("71\n"));
        assert_eq!(said(&["balance", "a"]), done("71\n"));
        assert_eq!(said(&["get", "b"]), done("x\n"));
        assert_eq!(said(&["counter"]), done("5\n"));
    }
    assert_eq!(said(&["withdraw", "a", "31", "--request-id", "2"]), (Some(1), String::new()));
    assert_eq!(said(&["withdraw", "a", "500"]), (Some(1), String::new()));
    assert_eq!(said(&["reset"]), done("0\n"));
    assert_eq!(said(&["delete", "b"]), done(""));
    assert_eq!(said(&["get", "b"]), (Some(1), String::new()));
}

#[test]
fn what_is_kept_in_a_file_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("redb:{}", dir.path().join("kept.redb").display());
    for expected in ["3\n", "3\n"] {
        let server = Server::start(&["--store", &store]);
        let increment = ["increment", "3", "--request-id", "the same", "--addr", &server.addr];
        let (code, out, err) = ask(&increment);
        assert_eq!((code, out.as_str()), (Some(0), expected), "{err}");
    }
}

#[test]
fn bad_usage_exits_with_2_and_names_what_is_wrong() {
    for (args, said) in [
        (&["add", "10"][..], "<B>"),
        (&["add", "10", "5", "--timeout", "2"], "--timeout"),
        (&["add", "10", "5", "--retry-on", "invalid-argument"], "INVALID_ARGUMENT"),
        (&["add", "10", "5", "--retry-on", "nonsense"], "not a gRPC code"),
        (&["add", "10", "5", "--addr", "no port"], "--endpoints"),
        (&["add", "10", "5", "--lb", "best"], "p2c-ewma"),
        (&["add", "10", "5", "--lb", "weighted:3,1"], "2 weights for 1 servers"),
        (&["add", "10", "5", "--lb", "weighted:0"], "at least 1"),
    ] {
        let (code, _, err) = ask(args);
        assert!(code == Some(2) && err.contains(said), "{args:?}: {code:?} {err}");
    }
    let server = |args| {
        output(&Command::new(env!("CARGO_BIN_EXE_calculator-server")).args(args).output().unwrap())
    };
    for (args, wrong) in [
        (["--failure-rate", "1.5"], "failure_rate"),
        (["--slow-rate=-0.1", "--seed=1"], "slow_rate"),
        (["--slow-delay=-3s", "--seed=1"], "-3s"),
        (["--store", "disk"], "memory, redb:PATH, redis:URL or none"),
        (["--cache-size", "0"], "--cache-size"),
    ] {
        let (code, _, err) = server(args);
        assert!(code == Some(2) && err.contains(wrong), "{args:?}: {code:?} {err}");
    }
}

// real clock: the programs are processes.
#[tokio::test]
async fn a_client_outlives_a_server_that_starts_late() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let asking = client(&["add", "10", "5", "--addr", &free, "--retry-on", "unavailable"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    sleep(Duration::from_millis(600)).await;
    let _server = Server::on(&free, &[]);
    let (code, out, _) = output(&asking.wait_with_output().unwrap());
    assert_eq!((code, out.as_str()), (Some(0), "15\n"));
}

#[cfg(unix)]
// real clock: the programs are processes.
#[tokio::test]
async fn a_server_that_is_told_to_stop_ends_its_calls_first() {
    let server = Server::start(&["--slow-rate", "1", "--slow-delay", "1500ms"]);
    let asking = client(&["add", "10", "5", "--addr", &server.addr, "--max-retries", "0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    sleep(Duration::from_millis(500)).await;
    server.signal("TERM");
    let (code, out, _) = output(&asking.wait_with_output().unwrap());
    assert_eq!((code, out.as_str()), (Some(0), "15\n"));
    assert!(server.ends());
}
