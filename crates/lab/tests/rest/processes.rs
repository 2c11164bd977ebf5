//! `calculator-rest` as a process: what it opens, how it ends, and what it never says.

use super::SECOND;
use outside::{Server, ask, http};
use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
};
use tokio::time::Instant;

const REST: &str = "calculator-rest";

fn serve(args: &[&str]) -> Server {
    Server::of(REST, args)
}

fn post(addr: &str, path: &str, header: &str) -> String {
    let request = format!("POST {path} HTTP/1.1\r\n{header}");
    http(addr, request.trim_end(), "{}")
}

#[test]
fn the_program_serves_the_same_calls_by_rest_and_by_grpc() {
    let server = serve(&[]);
    let answer = http(&server.addr, "POST /v1/add", r#"{"a":10,"b":5}"#);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(r#"{"value":15}"#), "{answer}");
    assert_eq!(ask(&["add", "10", "5", "--addr", &server.addr]).0, Some(0));
}

// catalogue: S-E17
#[cfg(target_os = "linux")]
#[test]
fn rest_opens_no_address_of_its_own_and_the_program_says_what_it_opens() {
    let flags = ["--fault", "rate=1% status=UNAVAILABLE"];
    let server = Server::logging_of(REST, ("RUST_LOG", "info"), &flags);
    let sockets = server.sockets();
    assert_eq!(sockets, [server.addr.parse().unwrap()]);
    assert!(sockets[0].ip().is_loopback());
    let log = server.stop();
    assert!(log.contains("the same calls as JSON"), "{log}");
}

// catalogue: S-C8
#[test]
fn rest_leads_to_no_fault_control() {
    let server = serve(&["--fault", "rate=1% status=UNAVAILABLE"]);
    for path in ["/cinchona.fault.v1.FaultControl/Clear", "/v1/faults", "/api/faults/clear"] {
        for header in ["", "x-forwarded-for: 127.0.0.1", "content-type: application/grpc"] {
            assert!(post(&server.addr, path, header).starts_with("HTTP/1.1 404"), "{path}");
        }
    }
}

// real clock: the server is a process.
// catalogue: S-E18
#[tokio::test]
async fn a_connection_that_never_speaks_http_is_closed_after_10_s() {
    let server = serve(&[]);
    let mut held = Vec::new();
    for sent in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"] {
        let mut stream = TcpStream::connect(&server.addr).unwrap();
        stream.write_all(sent).unwrap();
        stream.set_read_timeout(Some(20 * SECOND)).unwrap();
        held.push((sent, stream));
    }
    let began = Instant::now();
    for (sent, mut stream) in held {
        if let Err(error) = stream.read_to_end(&mut Vec::new()) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{sent:?}");
        }
    }
    let took = Instant::now() - began;
    assert!(took > 8 * SECOND && took < 15 * SECOND, "{took:?}");
}

const HEAD: &str =
    "host: localhost\r\ncontent-type: application/json\r\ncontent-length: 14\r\n\r\n";

fn add() -> String {
    format!("POST /v1/add HTTP/1.1\r\n{HEAD}")
}

/// A client that sends this, and then neither sends nor reads.
fn holds(addr: &str, sends: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.write_all(sends.as_bytes()).unwrap();
    stream
}

/// A request that is answered, on a connection that stays.
fn answered(addr: &str) -> TcpStream {
    let mut stream = holds(addr, &format!("{}{{\"a\":1,\"b\":22}}", add()));
    let mut answer = [0; 4096];
    let length = stream.read(&mut answer).unwrap();
    assert!(answer[..length].starts_with(b"HTTP/1.1 200"));
    stream
}

#[cfg(unix)]
// real clock: the server is a process.
// catalogue: S-P7
#[tokio::test]
async fn a_server_with_rest_ends_within_its_grace_whoever_holds_it_up() {
    // What the machine may add where it is busy.
    const SLACK: std::time::Duration = std::time::Duration::from_secs(5);
    let delay = "method=/calculator.Calculator/Subtract delay=2500ms";
    let server = serve(&["--grace", "4s", "--fault", delay]);
    let addr = server.addr.clone();
    let held = [
        holds(&addr, ""),
        holds(&addr, "POST /v1/add HT"),
        holds(&addr, &format!("{}{{\"a\"", add())),
        answered(&addr),
    ];
    let short = {
        let addr = addr.clone();
        thread::spawn(move || http(&addr, "POST /v1/subtract", r#"{"a":3,"b":2}"#))
    };
    tokio::time::sleep(SECOND / 2).await;
    let began = Instant::now();
    server.signal("TERM");
    assert!(server.ends(), "its exit status");
    let took = Instant::now() - began;
    // One more for the runtime.
    assert!(took < 5 * SECOND + SLACK, "{took:?}");
    let answer = short.join().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(r#"{"value":1}"#), "{answer}");
    drop(held);
}

#[cfg(unix)]
// real clock: the server is a process.
// catalogue: S-P7
#[tokio::test]
async fn a_connection_that_rests_between_requests_holds_up_nothing() {
    let server = serve(&["--grace", "60s"]);
    let idle = answered(&server.addr);
    let began = Instant::now();
    server.signal("TERM");
    assert!(server.ends(), "its exit status");
    assert!(Instant::now() - began < 7 * SECOND, "{:?}", Instant::now() - began);
    drop(idle);
}

/// What is in every secret of these tests, and nowhere else.
const MARK: &str = "swordfish";

// catalogue: S-E1
#[cfg(unix)]
#[test]
fn no_answer_and_no_line_of_a_log_has_a_secret_a_message_or_the_place_of_the_store() {
    let levels = ("RUST_LOG", "info,cinchona=trace,calculator=trace,lab=trace");
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join(MARK);
    std::fs::create_dir(&place).unwrap();
    let token = format!("{MARK}-token");
    for store in [
        "memory".to_owned(),
        // Nobody is there.
        format!("redis://:{MARK}@127.0.0.1:9/1"),
        format!("redb:{}/calls.redb", place.display()),
    ] {
        let busy = ["--fault", "every=2 status=UNAVAILABLE:busy"];
        let args = ["--store", &store, "--fault-token", &token];
        let server = Server::logging_of(REST, levels, &[&args[..], &busy].concat());
        let append = format!("POST /v1/values/{MARK}/append HTTP/1.1\r\nauthorization: Bearer x");
        let mut said = String::new();
        for (request, body) in [
            ("POST /v1/add", r#"{"a": 10, "b": 5}"#),
            ("POST /v1/counter/increment", "{}"),
            ("GET /v1/counter", ""),
            ("GET /no/such/path", ""),
        ] {
            let answer = http(&server.addr, request, body);
            assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
            said += &answer;
        }
        for authorized in [append.clone() + MARK, append] {
            // Its answer has the text, as it is to.
            http(&server.addr, &authorized, &format!(r#"{{"text": "{MARK}"}}"#));
        }
        said += &server.stop();
        let line = said.lines().find(|line| line.contains(MARK));
        assert_eq!(line, None, "{store}");
    }
}
