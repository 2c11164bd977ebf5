//! The server's dashboard, asked as a browser would.

use crate::programs::{Server, ask};
use std::{
    io::{Read, Write},
    net::TcpStream,
};

/// The answer to a request, head and all.
pub(crate) fn http(page: &str, request: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(page).unwrap();
    let (length, close) = (body.len(), "connection: close");
    let head = format!("{request} HTTP/1.1\r\nhost: {page}\r\ncontent-length: {length}\r\n{close}");
    write!(stream, "{head}\r\ncontent-type: application/json\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn faults_are_set_and_removed_on_the_page_and_counted_in_the_metrics() {
    let server = Server::start(&["--dashboard", "127.0.0.1:0"]);
    let page = server.says("dashboard on ");
    assert!(http(&page, "GET /", "").contains("<title>"));
    let add = || ask(&["add", "10", "5", "--addr", &server.addr, "--max-retries", "0"]).0;
    assert_eq!(add(), Some(0));
    let rule = r#"{"id": "down", "rule": "status=UNAVAILABLE:busy ttl=60s"}"#;
    assert!(http(&page, "POST /api/faults", rule).starts_with("HTTP/1.1 204"));
    assert_eq!(add(), Some(1));
    let state = http(&page, "GET /api/state", "");
    assert!(state.contains(r#""id":"down""#) && state.contains(r#""injected":1"#), "{state}");
    let metrics = http(&page, "GET /metrics", "");
    assert!(metrics.contains("cinchona_fault_injected_total{kind=\"status\"} 1\n"), "{metrics}");
    let removed = http(&page, "POST /api/faults/remove", r#"{"id": "down"}"#);
    assert!(removed.starts_with("HTTP/1.1 204"), "{removed}");
    assert_eq!(add(), Some(0));
    let wrong = http(&page, "POST /api/faults", r#"{"id": "x", "rule": "rate=3 hang ttl=1s"}"#);
    assert!(wrong.starts_with("HTTP/1.1 422") && wrong.contains("\n       ^"), "{wrong}");
}
