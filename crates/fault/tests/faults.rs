//! Every kind of fault, as a plain tonic client sees it over HTTP/2: `FAULTS.md`.
#![expect(clippy::unwrap_used, reason = "a test fails where something is missing")]

use bytes::Bytes;
use cinchona_core::{BoxError, Methods, Rng};
use cinchona_deadline::{AttemptTimeoutLayer, CallDeadlineSettings};
use cinchona_fault::{ClientFaultLayer, FaultCounters, FaultIo, FaultLayer, Rules};
use cinchona_retry::{RetryPolicy, RetrySettings};
use cinchona_testkit::{Network, encode};
use http_body::Frame;
use std::{
    convert::Infallible,
    fmt::Write,
    fs,
    future::{Ready, ready},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::{Stream, StreamExt};
use tonic::{
    Code, Request, Status, body::Body, client::GrpcService, codegen::StdError,
    server::NamedService, transport::Server,
};
use tower::{Service, ServiceBuilder, ServiceExt, util::BoxCloneSyncService};

const HEAD: &str = "\
# Faults

What each kind of fault does to a plain tonic client, over HTTP/2 in memory and in virtual time:
a unary call, a stream of three messages 100 ms apart (each on a connection of its own), how often
the handler was executed, and what becomes of the next call by the same channel once the rule is
gone. In brackets: how HTTP/2 or the socket said it, and after how long. The counter of its kind
rises by one with each call that is hit; the test checks that too.

At last the same two calls where the fault hits once (`first=1`), by a client with cinchona's
deadline of 10 s, attempts of at most 5 s each, and retries, of methods that are idempotent, on
`ABORTED`, `CANCELLED`, `DEADLINE_EXCEEDED`, `INTERNAL`, `RESOURCE_EXHAUSTED`, `UNAVAILABLE` and
`UNKNOWN`. A reply that has begun is not tried again: it is the caller's already.

Written by `UPDATE=1 cargo test -p cinchona-fault --test faults`.

| rule | a unary call | a stream | executed | the next call | unary, protected | stream, protected |
|---|---|---|---|---|---|---|
";

/// A rule, the kind under which its hits are counted, and how many there are in the two calls.
const CASES: [(&str, &str, u64); 38] = [
    ("delay=1s", "delay", 2),
    ("delay=1s..2s", "delay", 2),
    ("delay=normal:1s:200ms", "delay", 2),
    ("delay=lognormal:20ms:400ms", "delay", 2),
    ("delay=1s when=after", "delay", 2),
    ("status=UNAVAILABLE", "status", 2),
    ("status=FAILED_PRECONDITION:\"nö % way\" details=aGk", "status", 2),
    ("status=ABORTED when=after", "status", 2),
    ("delay=1s status=ABORTED", "status", 2),
    ("mix=UNAVAILABLE:1,ABORTED:1 message=either", "status", 2),
    ("first=1 status=UNAVAILABLE", "status", 2),
    ("every=2 status=UNAVAILABLE", "status", 0),
    ("hang", "hang", 2),
    ("hang when=after", "hang", 2),
    ("hang=headers", "hang", 2),
    ("cut=0", "cut", 2),
    ("cut=1", "cut", 2),
    ("cut=2:CANCEL", "cut", 1),
    ("cut=2:REFUSED_STREAM", "cut", 1),
    ("cut=1:drop", "cut", 2),
    ("reset=NO_ERROR", "reset", 2),
    ("reset=INTERNAL_ERROR", "reset", 2),
    ("reset=REFUSED_STREAM", "reset", 2),
    ("reset=CANCEL", "reset", 2),
    ("reset=ENHANCE_YOUR_CALM", "reset", 2),
    ("reset=INTERNAL_ERROR when=after", "reset", 2),
    ("drop", "drop", 2),
    ("drop when=after", "drop", 2),
    ("goaway", "goaway", 2),
    ("goaway=ENHANCE_YOUR_CALM", "goaway", 2),
    ("goaway=INTERNAL_ERROR", "goaway", 2),
    ("trailers=missing", "trailers", 2),
    ("trailers=bad-status", "trailers", 2),
    ("trailers=bad-message", "trailers", 2),
    ("trailers=bad-details", "trailers", 2),
    ("drip=1/100ms", "drip", 2),
    ("panic", "panic", 2),
    ("panic when=after", "panic", 2),
];

/// Answers `Unary` with 7, and `Stream` with 0, 1 and 2, one each 100 ms.
#[derive(Clone, Default)]
struct Numbers {
    executed: Arc<AtomicU64>,
}

impl NamedService for Numbers {
    const NAME: &'static str = "test.Numbers";
}

impl Service<http::Request<Body>> for Numbers {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.executed.fetch_add(1, Ordering::Relaxed);
        let numbers = if request.uri().path().ends_with("/Unary") { 7..8 } else { 0..3_u32 };
        let is_stream = numbers.len() > 1;
        let messages = tokio_stream::iter(numbers).then(move |number| async move {
            sleep(Duration::from_millis(if is_stream { 100 } else { 0 })).await;
            Ok::<_, Infallible>(Frame::data(encode(&number)))
        });
        let mut trailers = http::HeaderMap::new();
        trailers.insert(Status::GRPC_STATUS, http::HeaderValue::from_static("0"));
        let body = messages.chain(tokio_stream::once(Ok(Frame::trailers(trailers))));
        let mut response = http::Response::new(body_of(body));
        let grpc = http::HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(http::header::CONTENT_TYPE, grpc);
        ready(Ok(response))
    }
}

fn body_of(frames: impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + 'static) -> Body {
    Body::new(http_body_util::StreamBody::new(frames))
}

/// A server and a client of it, one of which has one rule.
struct Site {
    net: Network,
    channel: BoxCloneSyncService<http::Request<Body>, http::Response<Body>, BoxError>,
    rules: Rules,
    counters: Box<dyn Fn() -> FaultCounters>,
    numbers: Numbers,
}

impl Site {
    fn new(rule: &str) -> Self {
        let (net, numbers) = (Network::new(), Numbers::default());
        let rules = Rules::new(7).with("case", rule.parse().unwrap());
        let layer = FaultLayer::from(rules.clone());
        let incoming = net.incoming().map(|io| io.map(FaultIo::new));
        let server = Server::builder().layer(layer.clone()).add_service(numbers.clone());
        tokio::spawn(server.serve_with_incoming(incoming));
        let channel = BoxCloneSyncService::new(net.channel().map_err(BoxError::from));
        Self { net, channel, rules, counters: Box::new(move || layer.counters()), numbers }
    }

    /// If the client has the rule, and the server none.
    fn of_client(rule: &str) -> Self {
        let (net, numbers) = (Network::new(), Numbers::default());
        let rules = Rules::new(7).with("case", rule.parse().unwrap());
        let layer = ClientFaultLayer::from(rules.clone());
        let server = Server::builder().add_service(numbers.clone());
        tokio::spawn(server.serve_with_incoming(net.incoming()));
        let channel = BoxCloneSyncService::new(layer.around(net.channel()));
        Self { net, channel, rules, counters: Box::new(move || layer.counters()), numbers }
    }

    async fn call(&self, method: &'static str) -> String {
        self.call_by(self.channel.clone(), method).await
    }

    /// By a client with the usual protection.
    async fn call_protected(&self, method: &'static str) -> String {
        let codes = [
            Code::Aborted,
            Code::Cancelled,
            Code::DeadlineExceeded,
            Code::Internal,
            Code::ResourceExhausted,
            Code::Unavailable,
            Code::Unknown,
        ];
        let policy = RetryPolicy::default().with_codes(codes).unwrap();
        let retry = RetrySettings::new(policy, Methods::all_idempotent());
        let stack = ServiceBuilder::new()
            .layer(CallDeadlineSettings::new().with_limit(Duration::from_secs(10)).layer())
            .layer(retry.with_rng(Rng::seeded(7)).layer())
            .layer(AttemptTimeoutLayer::new(Duration::from_secs(5)))
            .service(self.channel.clone());
        self.call_by(stack, method).await
    }

    async fn call_by<C>(&self, client: C, method: &'static str) -> String
    where
        C: GrpcService<Body, Future: Send> + Send + 'static,
        C::ResponseBody: http_body::Body<Data = Bytes, Error: Into<StdError>> + Send + 'static,
    {
        let begun = Instant::now();
        let call = tokio::spawn(timeout(Duration::from_secs(60), call(client, method)));
        let seen = match call.await {
            Ok(Ok(seen)) => seen,
            Ok(Err(_)) => return "nothing in a minute".to_owned(),
            Err(panicked) => {
                let panicked = panicked.into_panic();
                let message = panicked.downcast_ref::<String>().cloned();
                format!("**the client panics**: {}", message.unwrap_or_default())
            }
        };
        match Instant::now() - begun {
            Duration::ZERO => seen,
            time => format!("{seen} [{} ms]", time.as_millis()),
        }
    }
}

/// The messages, and how the call ended.
async fn call<C>(client: C, method: &'static str) -> String
where
    C: GrpcService<Body>,
    C::ResponseBody: http_body::Body<Data = Bytes, Error: Into<StdError>> + Send + 'static,
{
    let mut client = tonic::client::Grpc::new(client);
    assert!(client.ready().await.is_ok());
    let codec = tonic_prost::ProstCodec::<u32, u32>::default();
    let path = http::uri::PathAndQuery::from_static(method);
    let mut request = Request::new(1);
    request.metadata_mut().insert("x-request-id", "one".parse().unwrap());
    if method.ends_with("/Unary") {
        return match client.unary(request, path, codec).await {
            Ok(response) => format!("OK {}", response.into_inner()),
            Err(status) => show(&status),
        };
    }
    let mut stream = match client.server_streaming(request, path, codec).await {
        Ok(response) => response.into_inner(),
        Err(status) => return show(&status),
    };
    let mut seen = Vec::new();
    let end = timeout(Duration::from_secs(50), async {
        loop {
            match stream.message().await {
                Ok(Some(number)) => seen.push(number.to_string()),
                Ok(None) => break "OK".to_owned(),
                Err(status) => break show(&status),
            }
        }
    });
    let end = end.await.unwrap_or_else(|_| "headers, nothing more in a minute".to_owned());
    format!("{}{}{end}", seen.join(" "), if seen.is_empty() { "" } else { ", then " })
}

fn show(status: &Status) -> String {
    let code = cinchona_plumbing::code::name(status.code());
    let mut text = format!("{code} \"{}\"", status.message());
    if !status.details().is_empty() {
        let _ = write!(text, " with details \"{}\"", status.details().escape_ascii());
    }
    for cause in cinchona_plumbing::cause::chain(status) {
        if let Some(h2) = cause.downcast_ref::<h2::Error>() {
            let what = match () {
                () if h2.is_reset() => "reset",
                () if h2.is_go_away() => "go away",
                () => "lost",
            };
            let reason = h2.reason().map(|reason| format!(" {reason:?}")).unwrap_or_default();
            let _ = write!(text, " [{what}{reason}]");
        } else if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            let _ = write!(text, " [{:?}]", io.kind());
        }
    }
    text
}

/// The two calls of a rule, and the one after it.
async fn row(rule: &str, kind: &str, hits: u64) -> String {
    let mut counted = 0;
    let mut executed = 0;
    let mut seen = Vec::new();
    let mut next = String::new();
    for method in ["/test.Numbers/Unary", "/test.Numbers/Stream"] {
        let site = Site::new(rule);
        seen.push(site.call(method).await);
        let snapshot: FaultCounters = (site.counters)();
        let of_kind = snapshot.kinds().into_iter().find(|(name, _)| *name == kind);
        counted += of_kind.unwrap_or_else(|| panic!("no kind {kind}")).1;
        executed += site.numbers.executed.load(Ordering::Relaxed);
        assert!(site.rules.remove("case"));
        let after = site.call("/test.Numbers/Unary").await;
        let again = if site.net.connects() > 1 { "a new connection" } else { "the same" };
        if next.is_empty() {
            next = format!("{after}, {again}");
        }
    }
    assert_eq!(counted, hits, "{rule}: {seen:?}");
    seen.extend([executed.to_string(), next]);
    let is_limited = rule.starts_with("first=") || rule.starts_with("every=");
    let once = if is_limited { rule.to_owned() } else { format!("first=1 {rule}") };
    for method in ["/test.Numbers/Unary", "/test.Numbers/Stream"] {
        seen.push(Site::new(&once).call_protected(method).await);
    }
    let cells: Vec<_> = seen.iter().map(|cell| cell.replace('|', "\\|")).collect();
    format!("| `{rule}` | {} |\n", cells.join(" | "))
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_a_connection_hits_all_its_calls_unless_it_is_a_goaway_without_a_code() {
    for (rule, other) in [
        ("drop", "0, then UNKNOWN"),
        ("goaway=INTERNAL_ERROR", "0, then UNKNOWN"),
        ("goaway", "0 1 2, then OK"),
        ("reset=INTERNAL_ERROR", "0 1 2, then OK"),
    ] {
        let site = Site::new(&format!("method=/test.Numbers/Unary {rule}"));
        let hit = async {
            sleep(Duration::from_millis(150)).await;
            site.call("/test.Numbers/Unary").await
        };
        let (seen, hit) = tokio::join!(site.call("/test.Numbers/Stream"), hit);
        assert!(seen.starts_with(other), "{rule}: {seen}");
        assert!(!hit.starts_with("OK"), "{rule}: {hit}");
        assert_eq!(site.net.connects(), 1, "{rule}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_fault_io_a_fault_of_the_connection_is_a_reset() {
    for rule in ["drop", "goaway", "goaway=CANCEL", "cut=0:drop"] {
        let net = Network::new();
        let layer = FaultLayer::from(Rules::new(7).with("case", rule.parse().unwrap()));
        let server = Server::builder().layer(layer).add_service(Numbers::default());
        tokio::spawn(server.serve_with_incoming(net.incoming()));
        let seen = call(net.channel(), "/test.Numbers/Unary").await;
        assert!(seen.contains("[reset "), "{rule}: {seen}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_fault_is_what_the_table_says() {
    let mut table = HEAD.to_owned();
    for (rule, kind, hits) in CASES {
        table.push_str(&row(rule, kind, hits).await);
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("FAULTS.md");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&file, &table).unwrap();
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    assert!(written == table, "FAULTS.md is not up to date: run this with UPDATE=1\n{table}");
}

/// The outcome without its texts: messages, codes, and times.
fn gist(seen: &str) -> (String, Option<&str>) {
    let (what, time) = match seen.rsplit_once(" [") {
        Some((what, time)) if time.ends_with(" ms]") => (what, Some(time)),
        _ => (seen, None),
    };
    (what.split('"').next().unwrap_or_default().to_owned(), time)
}

#[tokio::test(start_paused = true)]
async fn a_rule_below_a_client_has_the_effect_of_the_same_rule_on_its_server() {
    for (rule, kind, _) in CASES {
        for method in ["/test.Numbers/Unary", "/test.Numbers/Stream"] {
            let [server, client] = [Site::new(rule), Site::of_client(rule)];
            let seen = [server.call(method).await, client.call(method).await];
            let [before, after] = [gist(&seen[0]), gist(&seen[1])];
            assert_eq!(before.0, after.0, "{rule}: {seen:?}");
            // Bytes that are held back at the client keep arriving.
            let is_late = kind == "drip" || rule == "delay=1s when=after";
            assert!(is_late || before.1 == after.1, "{rule}: {seen:?}");
            let counted = [server, client].map(|site| (site.counters)().kinds());
            assert_eq!(counted[0], counted[1], "{rule} {kind}");
            let once = format!("first=1 {rule}");
            let once =
                if rule.starts_with("first=") || rule.starts_with("every=") { rule } else { &once };
            let [server, client] = [Site::new(once), Site::of_client(once)];
            let seen = [server.call_protected(method).await, client.call_protected(method).await];
            let [before, after] = [gist(&seen[0]), gist(&seen[1])];
            assert_eq!(before.0, after.0, "{rule}, retried: {seen:?}");
            assert!(is_late || before.1 == after.1, "{rule}, retried: {seen:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_delay_makes_room_for_another() {
    let (net, numbers) = (Network::new(), Numbers::default());
    net.set_latency(Duration::from_secs(5));
    let server = Server::builder().add_service(numbers.clone());
    tokio::spawn(server.serve_with_incoming(net.incoming()));
    let rules = Rules::new(7).with("slow", "delay=1s".parse().unwrap()).with_most_active(1);
    let layer = ClientFaultLayer::from(rules);
    let channel = layer.around(net.channel());
    let first = tokio::spawn(call(channel.clone(), "/test.Numbers/Unary"));
    sleep(Duration::from_secs(2)).await;
    let second = tokio::spawn(call(channel, "/test.Numbers/Unary"));
    assert_eq!(first.await.unwrap(), "OK 7");
    assert_eq!(second.await.unwrap(), "OK 7");
    let snapshot = layer.counters();
    assert_eq!((snapshot.delayed, snapshot.spared), (2, 0));
}

#[test]
fn ok_is_refused_as_a_fault() {
    for rule in ["status=OK", "status=0", "mix=OK:1,ABORTED:1"] {
        assert!(rule.parse::<cinchona_fault::Rule>().is_err(), "{rule}");
    }
}
