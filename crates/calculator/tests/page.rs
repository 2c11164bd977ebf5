//! The dashboard of the server, asked as a browser would.

use outside::{Server, ask, http};

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
