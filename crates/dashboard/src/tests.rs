//! The dashboard over a socket, with requests written by hand.

use crate::{Console, Dashboard, FaultRule, Feed, Health, Link, Map, Spot, Tile};
use cinchona_core::{Mode, Secret, Switch};
use std::{
    future::pending,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::oneshot,
    time::{Instant, timeout},
};

const JSON: &str = "content-type: application/json\r\n";
const CARET: &str = "not a rate\n  rate=3\n       ^\n  allowed: 0 to 1";

/// A console that records its calls.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<String>>>, Switch);

impl Recorder {
    fn tell(&self, what: String) -> Result<(), String> {
        self.0.lock().unwrap().push(what);
        Ok(())
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Console for Recorder {
    fn list(&self) -> Vec<FaultRule> {
        let (id, rule) = ("slow".into(), "delay=1s".into());
        vec![FaultRule { id, rule, matched: 7, injected: 3, age: Duration::from_secs(2) }]
    }
    fn set(&self, id: &str, rule: &str) -> Result<(), String> {
        if rule == "rate=3" { Err(CARET.into()) } else { self.tell(format!("set {id} {rule}")) }
    }
    fn remove(&self, id: &str) -> Result<(), String> {
        self.tell(format!("remove {id}"))
    }
    fn clear(&self) -> Result<(), String> {
        self.tell("clear".into())
    }
    fn hint(&self) -> &str {
        "<b>names</b> are free"
    }
    fn switch(&self) -> Option<&Switch> {
        Some(&self.1)
    }
}

fn sample(recorder: &Recorder) -> Dashboard {
    let feed = Feed::new();
    feed.push("breaker <eu-1> opened");
    let tiles = || {
        let (state, health) = ("open".into(), Health::Bad);
        let numbers = vec![("failures".into(), 61.5, "%"), ("p99".into(), f64::NAN, "ms")];
        vec![Tile { state, health, numbers, ..Tile::new("breaker", "<script>alert(1)</script>") }]
    };
    let dashboard = Dashboard::new().events(feed).tiles(tiles).faults(recorder.clone());
    dashboard.metrics(|| "# TYPE calls_total counter\ncalls_total 3\n".into())
}

async fn started(dashboard: Dashboard) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(dashboard.serve(listener, pending()));
    address
}

/// Sends a request with these lines after the first, and a body; returns the status, the head and
/// the body.
async fn ask(at: SocketAddr, line: &str, more: &str, body: &str) -> (u16, String, String) {
    let host = if more.lines().any(|line| line.starts_with("host:")) {
        ""
    } else {
        &format!("host: {at}\r\n")
    };
    let length = body.len();
    let head = format!("{line} HTTP/1.1\r\n{host}{more}connection: close\r\n");
    let request = format!("{head}content-length: {length}\r\n\r\n{body}");
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    // A reset after the answer, when the body was not read.
    _ = stream.read_to_end(&mut response).await;
    let response = String::from_utf8(response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").expect("an answer");
    (head[9..12].parse().unwrap(), head.to_lowercase(), body.to_owned())
}

async fn post(at: SocketAddr, path: &str, more: &str, body: &str) -> (u16, String) {
    let (status, _, body) = ask(at, &format!("POST {path}"), more, body).await;
    (status, body)
}

#[tokio::test]
async fn the_page_and_its_parts_come_with_headers_that_lock_them_in() {
    let at = started(sample(&Recorder::default())).await;
    for (path, kind) in
        [("/", "text/html"), ("/app.js", "text/javascript"), ("/app.css", "text/css")]
    {
        let (status, head, body) = ask(at, &format!("GET {path}"), "", "").await;
        assert_eq!(status, 200, "{path}");
        assert!(head.contains(&format!("content-type: {kind}; charset=utf-8")), "{head}");
        assert!(!body.is_empty() && !body.contains("://cdn"));
    }
    for path in ["/", "/nothing", "/api/state"] {
        let (_, head, _) = ask(at, &format!("GET {path}"), "", "").await;
        assert!(head.contains("x-content-type-options: nosniff"), "{head}");
        assert!(head.contains("cache-control: no-store"), "{head}");
        assert!(head.contains("x-frame-options: deny"), "{head}");
        assert!(head.contains("content-security-policy: default-src 'none'; script-src 'self'"));
        assert!(!head.contains("unsafe-inline"), "{head}");
    }
}

#[test]
fn the_page_has_no_inline_code_and_loads_from_no_other_host() {
    let page = include_str!("../page/index.html");
    let script = include_str!("../page/app.js");
    assert_eq!(page.matches("<script").count(), 1);
    for strange in [" onclick", " onload", " style=", "<style", "http:", "https:", "javascript:"] {
        assert!(!page.contains(strange), "{strange}");
    }
    for strange in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
        assert!(!script.contains(strange), "{strange}");
    }
}

#[tokio::test]
async fn a_watcher_sees_a_snapshot_and_the_next_within_a_second_each() {
    let at = started(sample(&Recorder::default())).await;
    let mut stream = BufReader::new(TcpStream::connect(at).await.unwrap());
    let request = "GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    for is_first in [true, false] {
        let line = timeout(Duration::from_secs(1), data(&mut stream)).await.unwrap();
        let state: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(state["is_first"], is_first);
        assert_eq!(state["tiles"][0]["state"], "open");
        assert_eq!(state["events"].as_array().unwrap().len(), usize::from(is_first));
    }
}

async fn data(stream: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    while !line.starts_with("data: ") {
        line.clear();
        assert!(stream.read_line(&mut line).await.unwrap() > 0, "the stream ended");
    }
    line["data: ".len()..].to_owned()
}

#[tokio::test]
async fn hostile_names_are_escaped_and_values_that_are_no_number_are_null() {
    let at = started(sample(&Recorder::default())).await;
    let (status, head, body) = ask(at, "GET /api/state", "", "").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: application/json"), "{head}");
    assert!(!body.contains('<') && body.contains("\\u003cscript\\u003e"), "{body}");
    let state: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(state["tiles"][0]["name"], "<script>alert(1)</script>");
    assert_eq!(state["tiles"][0]["numbers"][1], serde_json::json!(["p99", null, "ms"]));
    assert_eq!(state["events"][0]["text"], "breaker <eu-1> opened");
    assert_eq!(state["faults"]["rules"][0]["injected"], 3);
    assert_eq!(state["faults"]["mode"], "enforce");
}

#[tokio::test]
async fn a_map_a_hint_and_the_heat_of_a_tile_are_in_the_state_if_set() {
    let (bare, recorder) = (started(Dashboard::new()).await, Recorder::default());
    let state = async |at| {
        let (_, _, body) = ask(at, "GET /api/state", "", "").await;
        serde_json::from_str::<serde_json::Value>(&body).unwrap()
    };
    assert_eq!(state(bare).await["map"], serde_json::Value::Null);
    let link = Link { from: "a".into(), to: "b".into(), health: Health::Bad };
    let nodes = vec![Spot::new("a"), Spot { phi: f64::INFINITY, ..Spot::new("b") }];
    let map = Map { nodes, links: vec![link] };
    let heat = vec![("<1 ms".into(), vec![0.0, 7.0])];
    let tile = Tile { heat, share: Some(0.5), ..Tile::new("client", "calls") };
    let dashboard = sample(&recorder).map(move || map.clone()).tiles(move || vec![tile.clone()]);
    let state = state(started(dashboard).await).await;
    assert_eq!(state["map"]["links"][0]["health"], "bad");
    assert_eq!(state["map"]["nodes"][1]["phi"], serde_json::Value::Null);
    assert_eq!(state["tiles"][0]["heat"], serde_json::json!([["<1 ms", [0.0, 7.0]]]));
    assert_eq!(state["tiles"][0]["share"], 0.5);
    assert_eq!(state["faults"]["hint"], "<b>names</b> are free");
}

#[tokio::test]
async fn metrics_are_served_if_set() {
    let at = started(sample(&Recorder::default())).await;
    let (status, head, body) = ask(at, "GET /metrics", "", "").await;
    assert!(status == 200 && head.contains("text/plain; version=0.0.4"), "{head}");
    assert_eq!(body, "# TYPE calls_total counter\ncalls_total 3\n");
    let bare = started(Dashboard::new()).await;
    assert_eq!(ask(bare, "GET /metrics", "", "").await.0, 404);
    assert_eq!(post(bare, "/api/faults/clear", JSON, "{}").await.0, 404);
}

#[tokio::test]
async fn a_change_that_is_accepted_calls_the_console_once() {
    let recorder = Recorder::default();
    let at = started(sample(&recorder)).await;
    let own = format!("{JSON}origin: http://{at}\r\nsec-fetch-site: same-origin\r\n");
    let set = r#"{"id": "slow", "rule": " delay=1s ttl=60s "}"#;
    assert_eq!(post(at, "/api/faults", &own, set).await, (204, String::new()));
    assert_eq!(post(at, "/api/faults/remove", JSON, r#"{"id": "slow"}"#).await.0, 204);
    assert_eq!(post(at, "/api/faults/clear", JSON, "{}").await.0, 204);
    assert_eq!(recorder.all(), ["set slow delay=1s ttl=60s", "remove slow", "clear"]);
    assert_eq!(post(at, "/api/faults/switch", JSON, r#"{"mode": "off"}"#).await.0, 204);
    assert_eq!(recorder.1.mode(), Mode::Off);
    assert_eq!(post(at, "/api/faults/switch", JSON, r#"{"mode": "no"}"#).await.0, 422);
}

#[tokio::test]
async fn an_error_of_the_console_is_returned_with_its_caret() {
    let at = started(sample(&Recorder::default())).await;
    let answer = post(at, "/api/faults", JSON, r#"{"id": "a", "rule": "rate=3"}"#).await;
    assert_eq!(answer, (422, CARET.to_owned()));
}

#[tokio::test]
async fn a_change_without_permission_is_refused() {
    let recorder = Recorder::default();
    let at = started(sample(&recorder)).await;
    let whole = r#"{"id": "a", "rule": "panic"}"#;
    let oversized = format!(r#"{{"id": "a", "rule": "{}"}}"#, "x".repeat(64 * 1024));
    let with = |more: &str| format!("{JSON}{more}\r\n");
    for (status, more, body) in [
        (403, with("origin: http://evil.example"), whole),
        (403, with("origin: null"), whole),
        (403, with("origin: http://localhost:1"), whole),
        (403, with("sec-fetch-site: cross-site"), whole),
        (403, with("sec-fetch-site: same-site"), whole),
        (415, String::new(), whole),
        (415, "content-type: text/plain\r\n".into(), whole),
        (415, with("content-type: text/plain"), whole),
        (413, JSON.into(), &oversized),
        (400, JSON.into(), r#"{"id": "a", "rule""#),
        (400, JSON.into(), r#"["a"]"#),
        (400, JSON.into(), r#"{"id": "a"}"#),
        (400, JSON.into(), r#"{"id": " ", "rule": "panic"}"#),
        (400, JSON.into(), r#"{"id": "a", "rule": "panic", "other": 1}"#),
        (400, JSON.into(), ""),
        (421, with("host: evil.example"), whole),
    ] {
        assert_eq!(post(at, "/api/faults", &more, body).await.0, status, "{more:?}");
    }
    for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
        for path in ["/api/faults", "/api/faults/remove", "/api/faults/clear"] {
            assert_eq!(ask(at, &format!("{method} {path}"), JSON, whole).await.0, 405);
        }
    }
    assert!(recorder.all().is_empty());
}

#[tokio::test]
async fn with_a_token_even_loopback_needs_it() {
    let recorder = Recorder::default();
    let token = || Secret::new("s3cret").unwrap();
    let at = started(sample(&recorder).with_token(token())).await;
    for (status, more) in [(401, ""), (401, "authorization: Bearer guess\r\n")] {
        let answer = post(at, "/api/faults/clear", &format!("{JSON}{more}"), "{}").await;
        assert_eq!(answer.0, status);
    }
    assert!(recorder.all().is_empty());
    let right = format!("{JSON}authorization: Bearer s3cret\r\n");
    assert_eq!(post(at, "/api/faults/clear", &right, "{}").await.0, 204);
    assert_eq!(recorder.all(), ["clear"]);
    let (_, _, state) = ask(at, "GET /api/state", "", "").await;
    assert!(state.contains(r#""needs_token":true"#) && !state.contains("s3cret"));
    assert!(!format!("{:?}", sample(&recorder).with_token(token())).contains("s3cret"));
}

#[tokio::test]
async fn no_path_leads_outside() {
    let at = started(sample(&Recorder::default())).await;
    for path in [
        "/../etc/passwd",
        "/..%2fetc/passwd",
        "/%2e%2e/etc/passwd",
        "/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/..%5cetc%5cpasswd",
        "/app.js/../../etc/passwd",
        "//etc/passwd",
        "/api/../../etc/passwd",
        "/index.html",
        "/Cargo.toml",
        "/api/faults/",
        "/app.js%00.html",
    ] {
        let (status, _, body) = ask(at, &format!("GET {path}"), "", "").await;
        assert_eq!((status, body.as_str()), (404, ""), "{path}");
    }
}

#[tokio::test]
async fn a_dashboard_answers_for_the_names_that_it_was_given_and_for_no_other() {
    let dashboard = sample(&Recorder::default()).with_hosts(["orders.internal", ""]);
    let at = started(dashboard).await;
    for path in ["/", "/metrics", "/api/state"] {
        let line = format!("GET {path}");
        for host in ["orders.internal", "Orders.Internal:9090", "localhost", "127.0.0.1:1"] {
            let (status, _, _) = ask(at, &line, &format!("host: {host}\r\n"), "").await;
            assert_eq!(status, 200, "{host}{path}");
        }
        for host in ["internal", "x.orders.internal", "orders.internal.evil.example", "", ":80"] {
            let (status, _, body) = ask(at, &line, &format!("host: {host}\r\n"), "").await;
            assert!(status == 421 && body.contains("with_hosts"), "{host}{path}: {status} {body}");
        }
    }
    let absolute = "GET http://orders.internal/metrics";
    assert_eq!(ask(at, absolute, "host: orders.internal\r\n", "").await.0, 200);
    let other = "GET http://evil.example/metrics";
    assert_eq!(ask(at, other, "host: orders.internal\r\n", "").await.0, 421);
}

#[tokio::test]
async fn a_request_for_a_foreign_host_sees_nothing() {
    let at = started(sample(&Recorder::default())).await;
    for host in ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io:80", ""] {
        let (status, _, body) = ask(at, "GET /api/state", &format!("host: {host}\r\n"), "").await;
        assert!(status == 421 && !body.contains("tiles"), "{host}");
    }
    let twice = "host: localhost\r\nhost: evil.example\r\n";
    assert_ne!(ask(at, "GET /api/state", twice, "").await.0, 200);
    let absolute = "GET http://evil.example/api/state";
    assert_ne!(ask(at, absolute, "host: localhost\r\n", "").await.0, 200);
    for host in ["localhost", "LocalHost:8080", "127.0.0.1", "[::1]:1"] {
        assert_eq!(ask(at, "GET /", &format!("host: {host}\r\n"), "").await.0, 200, "{host}");
    }
}

#[tokio::test]
async fn shutting_down_ends_the_streams_of_watchers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(Dashboard::new().serve(listener, async { _ = stopped.await }));
    let mut stream = BufReader::new(TcpStream::connect(at).await.unwrap());
    stream.write_all(b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    data(&mut stream).await;
    stop.send(()).unwrap();
    timeout(Duration::from_secs(5), served).await.unwrap().unwrap().unwrap();
}

/// A stream of events from this loopback address.
async fn watching(from: &str, at: SocketAddr) -> BufReader<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    let mut stream = BufReader::new(socket.connect(at).await.unwrap());
    stream.write_all(b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    data(&mut stream).await;
    stream
}

/// Whether the stream ends, by its connection or its last chunk.
async fn is_ended(stream: &mut BufReader<TcpStream>) -> bool {
    let ending = async {
        let mut line = String::new();
        while stream.read_line(&mut line).await.is_ok_and(|n| n > 0) && line != "0\r\n" {
            line.clear();
        }
    };
    timeout(Duration::from_millis(1200), ending).await.is_ok()
}

// real clock: a watcher is a socket.
// catalogue: S-E18
#[tokio::test]
async fn the_operator_can_watch_beside_many_strangers_and_nothing_is_asked_without_watchers() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let tiles = move || {
        count.fetch_add(1, Ordering::Relaxed);
        Vec::new()
    };
    let at = started(Dashboard::new().tiles(tiles)).await;
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    let mut strangers = Vec::new();
    for n in 0..100 {
        strangers.push(watching(if n % 2 == 0 { "127.0.0.2" } else { "127.0.0.3" }, at).await);
    }
    let mut operator = watching("127.0.0.1", at).await;
    for n in 0..40 {
        strangers.push(watching(if n % 2 == 0 { "127.0.0.2" } else { "127.0.0.3" }, at).await);
    }
    assert!(is_ended(&mut strangers[0]).await, "it has lost its place to a later one");
    let last = strangers.last_mut().unwrap();
    let ended = tokio::join!(is_ended(&mut operator), is_ended(last));
    assert_eq!(ended, (false, false));
    let mut own = Vec::new();
    for _ in 0..20 {
        own.push(watching("127.0.0.1", at).await);
    }
    assert!(is_ended(&mut operator).await && !is_ended(own.last_mut().unwrap()).await);
    drop((strangers, operator, own));
    let end = Instant::now() + Duration::from_secs(5);
    while asked.load(Ordering::Relaxed) != 0 && Instant::now() < end {
        asked.store(0, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

/// Half a request, which is never completed.
async fn half(at: SocketAddr, sent: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(sent).await.unwrap();
    stream
}

// catalogue: S-E18
#[tokio::test(start_paused = true)]
async fn a_request_has_10_s_for_its_head_and_a_connection_that_is_idle_has_no_longer() {
    let at = started(sample(&Recorder::default())).await;
    let began = Instant::now();
    let whole = b"GET /app.css HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let sent: [&[u8]; 4] = [b"", b"GET / HT", b"GET / HTTP/1.1\r\nhost: localh", whole];
    let mut all = Vec::new();
    for sent in sent {
        all.push(half(at, sent).await);
    }
    let mut trickling = half(at, b"GET / HTTP/1.1\r\n").await;
    let trickle = async move {
        // Waits until the connection is closed.
        while trickling.write_all(b"x: 1\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let ended = async {
        for mut stream in all {
            let mut rest = Vec::new();
            _ = stream.read_to_end(&mut rest).await;
        }
    };
    timeout(Duration::from_secs(20), async { tokio::join!(trickle, ended) }).await.unwrap();
    assert!(Instant::now() - began > Duration::from_secs(9), "a slow one has its time");
}

// real clock: sockets.
// catalogue: S-E18
#[tokio::test]
async fn five_hundred_half_requests_hold_neither_places_nor_the_operator() {
    let recorder = Recorder::default();
    let at = started(sample(&recorder)).await;
    let mut operator = watching("127.0.0.1", at).await;
    let mut halves = Vec::new();
    for _ in 0..500 {
        halves.push(half(at, b"GET /api/state HTTP/1.1\r\nhost: lo").await);
    }
    assert_eq!(post(at, "/api/faults/clear", JSON, "{}").await.0, 204);
    assert!(!is_ended(&mut operator).await, "a connection with a request stays before one without");
    let mut open = 0;
    for stream in &mut halves {
        let read = timeout(Duration::from_millis(1), stream.read(&mut [0])).await;
        open += usize::from(read.is_err());
    }
    assert!(open <= 64, "{open}");
}

// catalogue: S-C8
#[tokio::test]
async fn a_request_through_a_proxy_changes_nothing_without_the_token() {
    let recorder = Recorder::default();
    let at = started(sample(&recorder)).await;
    let rule = r#"{"id": "slow", "rule": "delay=1s ttl=60s"}"#;
    for said in [
        "x-forwarded-for: 203.0.113.9",
        "X-Forwarded-For: ",
        "x-forwarded-for: 127.0.0.1\r\nx-forwarded-for: ::1",
        "Forwarded: for=127.0.0.1",
        "x-real-ip: 127.0.0.1",
        "Via: 1.1 proxy",
        "x_forwarded_for: 127.0.0.1",
        "CF-Connecting-IP: 127.0.0.1",
        "True-Client-IP: 127.0.0.1",
    ] {
        let more = format!("{JSON}{said}\r\n");
        for path in ["", "/remove", "/clear", "/switch"] {
            assert_eq!(post(at, &format!("/api/faults{path}"), &more, rule).await.0, 403, "{said}");
        }
    }
    let (own, peer) = ("host: localhost", "127.0.0.1");
    for first in [
        format!("PROXY TCP4 {peer} {peer} 5000 80\r\n"),
        "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01\x13\x08\0\x50".to_owned(),
    ] {
        let request = format!("{first}POST /api/faults/clear HTTP/1.1\r\n{own}\r\n{JSON}");
        let mut stream =
            half(at, format!("{request}content-length: 2\r\n\r\n{{}}").as_bytes()).await;
        let mut answer = Vec::new();
        _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{answer:?}");
    }
    let old = "POST /api/faults/clear HTTP/1.0\r\nhost: localhost\r\ncontent-length: 2\r\n";
    let mut stream = half(at, format!("{old}{JSON}\r\n{{}}").as_bytes()).await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 403"), "nginx speaks so: {answer}");
    assert!(recorder.all().is_empty());
    assert_eq!(post(at, "/api/faults/clear", JSON, "{}").await.0, 204);
}

#[tokio::test]
async fn a_dashboard_that_is_dropped_leaves_no_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let serving = tokio::spawn(Dashboard::new().serve(listener, pending()));
    let mut stream = watching("127.0.0.1", at).await;
    serving.abort();
    assert!(is_ended(&mut stream).await);
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
}
