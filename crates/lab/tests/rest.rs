//! The same calls by gRPC and by REST, over one listener; in virtual time where no process runs.

mod processes;

use bytes::{BufMut, Bytes, BytesMut};
use calculator::{
    DESCRIPTORS, methods,
    server::{Layers, dedup, serve},
    state::Memory,
};
use cinchona::{
    core::Safety,
    fault::{FaultLayer, Faults, Rules},
    shed::{Limit, RateLimitLayer, ShedLayer},
};
use cinchona_plumbing::code;
use cinchona_testkit::{Connection, Network};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lab::rest::{around, http_of_code};
use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, Kind, MethodDescriptor, SerializeOptions, Value as Field,
};
use serde_json::{Value, json};
use std::{convert::Infallible, future::pending, time::Duration};
use tokio::time::{Instant, sleep};
use tonic::Code;
use tower::Service;

const SECOND: Duration = Duration::from_secs(1);

type Body = BoxBody<Bytes, Infallible>;

/// A server, and a connection of each kind to it.
struct Rest {
    network: Network,
    http1: http1::SendRequest<Body>,
    http2: http2::SendRequest<Body>,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    json: Value,
}

/// Each unary method, and how it is called by REST: the path, and where its fields are.
const CALLS: [(&str, &str, &str); 20] = [
    ("POST", "/v1/add", "calculator.Calculator/Add"),
    ("GET", "/v1/add", "calculator.Calculator/Add"),
    ("POST", "/v1/subtract", "calculator.Calculator/Subtract"),
    ("GET", "/v1/subtract", "calculator.Calculator/Subtract"),
    ("POST", "/v1/multiply", "calculator.Calculator/Multiply"),
    ("GET", "/v1/multiply", "calculator.Calculator/Multiply"),
    ("POST", "/v1/divide", "calculator.Calculator/Divide"),
    ("GET", "/v1/divide", "calculator.Calculator/Divide"),
    ("POST", "/v1/counter/increment", "calculator.Calculator/IncrementCounter"),
    ("GET", "/v1/counter", "calculator.Calculator/GetCounter"),
    ("DELETE", "/v1/counter", "calculator.Calculator/ResetCounter"),
    ("PUT", "/v1/values/{key}", "calculator.Store/SetValue"),
    ("GET", "/v1/values/{key}", "calculator.Store/GetValue"),
    ("POST", "/v1/values/{key}/increment", "calculator.Store/Increment"),
    ("POST", "/v1/values/{key}/withdraw", "calculator.Store/Withdraw"),
    ("GET", "/v1/values/{key}/balance", "calculator.Store/Balance"),
    ("POST", "/v1/values/{key}/append", "calculator.Store/Append"),
    ("GET", "/v1/values/{key}", "calculator.Store/GetValue"),
    ("DELETE", "/v1/values/{key}", "calculator.Store/Delete"),
    ("GET", "/v1/values/{key}", "calculator.Store/GetValue"),
];

fn layers() -> Layers<Memory> {
    slow(Faults::default())
}

fn slow(faults: Faults) -> Layers<Memory> {
    let faults = FaultLayer::new(faults).unwrap();
    Layers { around: Some(around()), ..Layers::new(faults, dedup(Memory::new())) }
}

fn ruled(rules: &Rules) -> Layers<Memory> {
    let faults = FaultLayer::from(rules.clone());
    Layers { around: Some(around()), ..Layers::new(faults, dedup(Memory::new())) }
}

fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).boxed()
}

impl Rest {
    async fn serve(layers: Layers<Memory>) -> Self {
        let network = Network::new();
        tokio::spawn(serve(network.incoming(), Memory::new(), layers, pending()));
        let (http1, http2) = (connect1(&network).await, connect2(&network).await);
        Self { network, http1, http2 }
    }

    async fn send(&mut self, by_http2: bool, request: Request<Body>) -> Response<Incoming> {
        if by_http2 {
            self.http2.send_request(request).await.unwrap()
        } else {
            self.http1.ready().await.unwrap();
            self.http1.send_request(request).await.unwrap()
        }
    }

    /// Asks with a body where there is one, and with these headers beside its kind.
    async fn ask(&mut self, line: &str, body: &str, headers: &[(&str, &str)]) -> Answer {
        let mut answers = Vec::new();
        for by_http2 in [false, true] {
            let request = request(line, body, headers, by_http2);
            answers.push(answer(self.send(by_http2, request).await).await);
        }
        let [mut one, two] = answers.try_into().ok().unwrap();
        assert_eq!((one.status, &one.json), (two.status, &two.json), "{line} {body}");
        one.headers = two.headers;
        one
    }

    /// Asks once, over HTTP/1.1.
    async fn once(&mut self, line: &str, body: &str, headers: &[(&str, &str)]) -> Answer {
        let request = request(line, body, headers, false);
        answer(self.send(false, request).await).await
    }

    /// The status and the message of a gRPC call over the connection of HTTP/2.
    async fn grpc(&mut self, rpc: &str, message: &[u8], key: Option<&str>) -> (Code, Bytes) {
        let mut body = BytesMut::new();
        body.put_u8(0);
        body.put_u32(message.len() as u32);
        body.put_slice(message);
        let mut request = Request::post(format!("http://server/{rpc}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let response = self.send(true, request.body(full(body)).unwrap()).await;
        let head = response.headers().get("grpc-status").cloned();
        let body = response.into_body().collect().await.unwrap();
        let trailer = body.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned();
        let status = head.or(trailer).unwrap();
        let mut message = body.to_bytes();
        (Code::from_bytes(status.as_bytes()), message.split_off(5.min(message.len())))
    }
}

async fn connect(network: &Network) -> TokioIo<Connection> {
    network.connector().call("http://server".parse().unwrap()).await.unwrap()
}

async fn connect1(network: &Network) -> http1::SendRequest<Body> {
    let (sender, connection) = http1::handshake(connect(network).await).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn connect2(network: &Network) -> http2::SendRequest<Body> {
    let io = connect(network).await;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn request(line: &str, body: &str, headers: &[(&str, &str)], by_http2: bool) -> Request<Body> {
    let (method, path) = line.split_once(' ').unwrap();
    let uri = if by_http2 { format!("http://server{path}") } else { path.to_owned() };
    let mut request = Request::builder().method(method).uri(uri);
    if !by_http2 {
        request = request.header("host", "server");
    }
    if !body.is_empty() && !headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header("content-type", "application/json");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(full(body.to_owned())).unwrap()
}

async fn answer(response: Response<Incoming>) -> Answer {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let json = serde_json::from_slice(&body).unwrap();
    Answer { status: parts.status.as_u16(), headers: parts.headers, json }
}

fn pool() -> DescriptorPool {
    DescriptorPool::decode(DESCRIPTORS).unwrap()
}

fn method(rpc: &str) -> MethodDescriptor {
    let methods: Vec<_> = pool().services().flat_map(|s| s.methods().collect::<Vec<_>>()).collect();
    let called = |m: &MethodDescriptor| format!("{}/{}", m.parent_service().full_name(), m.name());
    methods.into_iter().find(|method| called(method) == rpc).unwrap()
}

/// A request of `method`, the `n`th kind of it.
fn said(method: &MethodDescriptor, n: usize) -> DynamicMessage {
    const DOUBLES: [f64; 7] = [10.0, 0.1, -0.0, 1e300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    const WHOLES: [i64; 4] = [0, 1, 41, 2_000_000_000];
    const TEXTS: [&str; 4] = ["5", "42", "\u{20ac} \"\\\u{0}\u{1f980}", ""];
    let mut message = DynamicMessage::new(method.input());
    for (at, field) in method.input().fields().enumerate() {
        let value = match (field.name(), field.kind()) {
            ("request_id", _) => continue,
            ("key", _) => Field::String("a/b \u{e9}&?=%".into()),
            (_, Kind::Double) => Field::F64(DOUBLES[(n + 3 * at) % DOUBLES.len()]),
            (_, Kind::Int32) => Field::I32(WHOLES[n % WHOLES.len()] as i32),
            (_, Kind::Int64) => Field::I64(WHOLES[n % WHOLES.len()]),
            (_, Kind::String) => Field::String(TEXTS[n % TEXTS.len()].into()),
            (name, kind) => panic!("{name}: {kind:?}"),
        };
        message.set_field(&field, value);
    }
    message
}

/// JSON as prost-reflect writes it, with all fields.
fn written(message: &DynamicMessage) -> Value {
    let all = SerializeOptions::new().skip_default_fields(false);
    message.serialize_with_options(serde_json::value::Serializer, &all).unwrap()
}

/// The line and the body of `message` by REST.
fn by_rest(verb: &str, path: &str, message: &DynamicMessage) -> (String, String) {
    let mut json = written(message);
    let fields = json.as_object_mut().unwrap();
    let key = if path.contains("{key}") { fields.remove("key") } else { None };
    let escaped = |text: &str| {
        let bytes = text.bytes().map(|byte| format!("%{byte:02X}"));
        bytes.collect::<String>()
    };
    let key = key.map(|key| escaped(key.as_str().unwrap())).unwrap_or_default();
    let mut line = format!("{verb} {}", path.replace("{key}", &key));
    if matches!(verb, "POST" | "PUT") {
        return (line, json.to_string());
    }
    for (n, (name, value)) in fields.iter().enumerate() {
        let value = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        line += &format!("{}{name}={}", if n == 0 { '?' } else { '&' }, escaped(&value));
    }
    (line, String::new())
}

#[tokio::test(start_paused = true)]
async fn every_unary_method_answers_by_rest_as_by_grpc_in_the_json_of_protobuf() {
    for n in 0..28 {
        // Of each its own, as the state of one would be what the other has changed.
        let (mut rest, mut grpc) = (Rest::serve(layers()).await, Rest::serve(layers()).await);
        for (verb, path, rpc) in CALLS {
            let (method, message) = (method(rpc), said(&method(rpc), n));
            let (code, expected) = grpc.grpc(rpc, &message.encode_to_vec(), None).await;
            let (line, body) = by_rest(verb, path, &message);
            let by_http2 = n % 2 == 0;
            let answered = rest.send(by_http2, request(&line, &body, &[], by_http2)).await;
            let Answer { status, json, .. } = answer(answered).await;
            assert_eq!(status, http_of_code(code).as_u16(), "{line} {body}: {json}");
            if code == Code::Ok {
                let answer = DynamicMessage::deserialize(method.output(), &json).unwrap();
                let expected = DynamicMessage::decode(method.output(), expected).unwrap();
                // As text, in which -0 is not 0, and NaN is NaN.
                let as_text = |message| written(message).to_string();
                assert_eq!(as_text(&answer), as_text(&expected), "{line} {body}");
                assert_eq!(numbers(json), numbers(written(&expected)), "{line} {body}");
            } else {
                assert_eq!(json["code"], code::name(code), "{line} {body}: {json}");
            }
        }
    }
}

/// With each number as a double: `15` and `15.0` are one.
fn numbers(mut json: Value) -> Value {
    for value in json.as_object_mut().unwrap().values_mut() {
        if let Some(number) = value.as_f64() {
            *value = json!(number);
        }
    }
    json
}

#[test]
fn each_unary_method_has_the_methods_of_http_that_may_be_repeated_as_it_may() {
    for service in pool().services() {
        for method in service.methods() {
            if method.is_client_streaming() || method.is_server_streaming() {
                continue;
            }
            let rpc = format!("{}/{}", service.full_name(), method.name());
            let calls = CALLS.iter().filter(|(.., called)| *called == rpc);
            let verbs: Vec<_> = calls.map(|(verb, ..)| *verb).collect();
            let safety = methods().safety(&format!("/{rpc}"));
            let fits = |verb: &&str| match safety {
                Safety::NoSideEffects => matches!(*verb, "GET" | "POST"),
                Safety::Idempotent => matches!(*verb, "PUT" | "DELETE"),
                _ => *verb == "POST",
            };
            assert!(!verbs.is_empty() && verbs.iter().all(fits), "{rpc}: {verbs:?}");
            assert!(safety != Safety::NoSideEffects || verbs.contains(&"GET"), "{rpc}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_key_names_one_call_by_rest_and_by_grpc() {
    let mut rest = Rest::serve(layers()).await;
    let key = [("idempotency-key", "k1")];
    let first = rest.once("POST /v1/counter/increment", r#"{"increment":3}"#, &key).await;
    assert_eq!(first.json, json!({ "value": 3, "wasDuplicate": false }));
    assert!(!first.headers.contains_key("idempotent-replayed"));
    let again = rest.ask("POST /v1/counter/increment", r#"{"increment":"3"}"#, &key).await;
    assert_eq!(again.json, json!({ "value": 3, "wasDuplicate": true }));
    assert_eq!(again.headers["idempotent-replayed"], "true");
    let message = calculator::pb::CounterRequest { increment: 3, ..Default::default() };
    let rpc = "calculator.Calculator/IncrementCounter";
    let (code, by_grpc) = rest.grpc(rpc, &message.encode_to_vec(), Some("k1")).await;
    let by_grpc = calculator::pb::CounterResult::decode(by_grpc).unwrap();
    assert_eq!((code, by_grpc.value, by_grpc.was_duplicate), (Code::Ok, 3, true));
    let named = r#"{"increment":3,"requestId":"k1"}"#;
    assert_eq!(rest.ask("POST /v1/counter/increment", named, &[]).await.status, 400);
    let other = rest.ask("POST /v1/counter/increment", r#"{"increment":4}"#, &key).await;
    assert_eq!((other.status, &other.json["reason"]), (400, &json!("IDEMPOTENCY_KEY_REUSED")));
    assert_eq!(rest.ask("GET /v1/counter", "", &[]).await.json["value"], 3);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_is_a_504() {
    let slow = slow(Faults { slow_rate: 1.0, slow_delay: 3 * SECOND, ..Faults::default() });
    let mut rest = Rest::serve(slow).await;
    let began = Instant::now();
    let late = rest.once("GET /v1/add?a=10&b=5", "", &[("grpc-timeout", "500m")]).await;
    assert_eq!((late.status, &late.json["code"]), (504, &json!("DEADLINE_EXCEEDED")));
    let took = Instant::now() - began;
    // The server answers a little earlier, so that the answer is there in time.
    assert!(SECOND * 49 / 100 < took && took <= SECOND / 2, "{took:?}");
    let patient = rest.once("GET /v1/add?a=10&b=5", "", &[("grpc-timeout", "4S")]).await;
    assert_eq!((patient.status, &patient.json["value"]), (200, &json!(15)));
}

#[tokio::test(start_paused = true)]
async fn an_injected_fault_of_each_code_has_its_status() {
    let rules = Rules::new(1);
    let mut rest = Rest::serve(ruled(&rules)).await;
    for code in code::all().skip(1) {
        let rule =
            format!("method=/calculator.Calculator/Add status={}:busy ttl=none", code::name(code));
        rules.set("down", rule.parse().unwrap()).unwrap();
        let failed = rest.ask("POST /v1/add", r#"{"a":1}"#, &[]).await;
        assert_eq!(failed.status, http_of_code(code).as_u16());
        let title = StatusCode::from_u16(failed.status).unwrap().canonical_reason();
        let expected = json!({
            "title": title.unwrap_or("Client Closed Request"), "status": failed.status,
            "detail": "busy", "code": code::name(code),
        });
        assert_eq!(failed.json, expected);
        assert_eq!(failed.headers["content-type"], "application/problem+json");
        assert!(!failed.headers.keys().any(|name| name.as_str().starts_with("grpc-")));
    }
    rules.clear();
    assert_eq!(rest.ask("POST /v1/add", r#"{"a":1}"#, &[]).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn what_breaks_below_grpc_is_an_error_and_the_connection_goes_on() {
    let rules = Rules::new(1);
    let mut rest = Rest::serve(ruled(&rules)).await;
    for rule in ["reset=CANCEL", "drop", "goaway", "panic", "cut=0:drop"] {
        rules.set("broken", format!("{rule} ttl=none").parse().unwrap()).unwrap();
        let failed = rest.ask("POST /v1/add", r#"{"a":1}"#, &[]).await;
        assert!(failed.status >= 499, "{rule}: {}", failed.json);
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_is_turned_away_is_told_when_to_come_again() {
    let faults = Faults { slow_rate: 1.0, slow_delay: 3 * SECOND, ..Faults::default() };
    let shed = ShedLayer::new(Limit::Fixed(1)).unwrap();
    let mut rest = Rest::serve(Layers { shed, ..slow(faults) }).await;
    let mut other = connect1(&rest.network).await;
    let first = tokio::spawn(other.send_request(request("GET /v1/counter", "", &[], false)));
    sleep(SECOND).await;
    let away = rest.once("GET /v1/counter", "", &[]).await;
    assert_eq!((away.status, &away.json["code"]), (503, &json!("UNAVAILABLE")));
    assert_eq!(away.headers["retry-after"], "1");
    assert_eq!(first.await.unwrap().unwrap().status(), 200);

    let quota = RateLimitLayer::new(1, 1).unwrap();
    let mut rest = Rest::serve(Layers { quota, ..layers() }).await;
    assert_eq!(rest.once("GET /v1/counter", "", &[]).await.status, 200);
    let over = rest.once("GET /v1/counter", "", &[]).await;
    assert_eq!((over.status, &over.json["code"]), (429, &json!("RESOURCE_EXHAUSTED")));
    assert!(!over.headers.contains_key("retry-after"), "the server forbids it");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_hangs_up_frees_its_place() {
    let faults = Faults { slow_rate: 1.0, slow_delay: 3600 * SECOND, ..Faults::default() };
    let shed = ShedLayer::new(Limit::Fixed(1)).unwrap();
    let rest = Rest::serve(Layers { shed: shed.clone(), ..slow(faults) }).await;
    let io = connect(&rest.network).await;
    let (mut sender, connection) = http1::handshake::<_, Body>(io).await.unwrap();
    let connection = tokio::spawn(connection);
    let call = tokio::spawn(sender.send_request(request("GET /v1/counter", "", &[], false)));
    sleep(SECOND).await;
    assert_eq!(shed.counters().in_progress, 1);
    connection.abort();
    sleep(SECOND).await;
    assert_eq!(shed.counters().in_progress, 0);
    assert!(call.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_a_request_is_said() {
    let mut rest = Rest::serve(layers()).await;
    let long = format!(r#"{{"value":"{}"}}"#, "x".repeat(1 << 20));
    for (line, body, status, wrong) in [
        ("POST /v1/add", "", 415, "content-type"),
        ("POST /v1/add", "{", 400, "EOF"),
        ("POST /v1/add", "[1,2]", 400, "must be a JSON object"),
        ("POST /v1/add", "null", 400, "must be a JSON object"),
        ("POST /v1/add", r#"{"a":1} {}"#, 400, "trailing"),
        ("POST /v1/add", r#"{"a":"ten"}"#, 400, "a: invalid value"),
        ("POST /v1/add", r#"{"b":true}"#, 400, "b: invalid type"),
        ("POST /v1/add", r#"{"a":1e400}"#, 400, "out of range"),
        ("POST /v1/add", r#"{"a":1,"c":2}"#, 400, "unknown field `c`, expected `a` or `b`"),
        ("POST /v1/add", r#"{"a":1,"a":2}"#, 400, "duplicate field `a`"),
        ("POST /v1/add?a=1", r#"{"b":1}"#, 400, "the query"),
        ("POST /v1/counter/increment", r#"{"increment":3e9}"#, 400, "increment: invalid value"),
        ("POST /v1/values/k/withdraw", r#"{"amount":0.5}"#, 400, "amount: invalid value"),
        ("PUT /v1/values/k", r#"{"key":"k","value":"1"}"#, 400, "key: is in the path"),
        ("PUT /v1/values/k", r#"{"value":1}"#, 400, "value: invalid type"),
        ("PUT /v1/values/k", &long, 413, "1048576 bytes"),
        ("GET /v1/add?a=1&c=2", "", 400, "unknown field `c`"),
        ("GET /v1/add?a=1&a=2", "", 400, "duplicate field `a`"),
        ("GET /v1/add?a=ten", "", 400, "a: invalid value"),
        ("GET /v1/counter?of=me", "", 400, "unknown field `of`"),
        ("GET /v1/values/%FF", "", 400, "UTF-8 in `key`"),
        ("GET /v1/values/none", "", 404, "has no value"),
        ("GET /v1/values/", "", 404, "nothing is served"),
        ("GET /v2/add", "", 404, "nothing is served"),
        ("POST /calculator.Calculator/Add", "{}", 404, "nothing is served"),
        ("PATCH /v1/counter", "{}", 405, "no such method"),
        ("POST /v1/divide", r#"{"a":1,"b":-0.0}"#, 400, "division by zero"),
    ] {
        let refused = rest.ask(line, body, &[]).await;
        let detail = refused.json["detail"].as_str().unwrap();
        assert_eq!(refused.status, status, "{line} {detail}");
        assert!(detail.contains(wrong), "{line}: {detail}");
        assert_eq!(refused.json["status"], status);
        assert_eq!(refused.headers["content-type"], "application/problem+json");
        assert_eq!(refused.headers.contains_key("allow"), status == 405);
    }
}

#[tokio::test(start_paused = true)]
async fn a_header_that_is_wrong_is_named() {
    let mut rest = Rest::serve(layers()).await;
    for (header, value, status) in [
        ("grpc-timeout", "soon", 400),
        ("content-type", "text/plain", 415),
        ("content-type", "application/jsonp", 415),
        ("content-encoding", "gzip", 415),
    ] {
        let refused = rest.ask("POST /v1/add", "{}", &[(header, value)]).await;
        assert_eq!(refused.status, status);
        assert!(refused.json["detail"].as_str().unwrap().starts_with(header), "{}", refused.json);
    }
    let key = "x".repeat(256);
    let refused = rest.ask("DELETE /v1/counter", "", &[("idempotency-key", &key)]).await;
    assert_eq!(
        (refused.status, &refused.json["reason"]),
        (400, &json!("IDEMPOTENCY_KEY_MALFORMED"))
    );
    let charset = [("content-type", "Application/JSON; charset=utf-8"), ("grpc-encoding", "gzip")];
    assert_eq!(rest.ask("POST /v1/add", "{}", &charset).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_arrive_is_not_waited_for() {
    let mut rest = Rest::serve(layers()).await;
    let never = StreamBody::new(tokio_stream::pending::<Result<Frame<Bytes>, Infallible>>());
    let mut request = request("POST /v1/add", "", &[], false);
    request.headers_mut().insert("content-type", "application/json".parse().unwrap());
    *request.body_mut() = BodyExt::boxed(never);
    let began = Instant::now();
    let late = answer(rest.send(false, request).await).await;
    assert_eq!((late.status, Instant::now() - began), (408, Duration::from_secs(10)));
}

#[tokio::test(start_paused = true)]
async fn a_server_without_rest_speaks_grpc_alone() {
    let mut off = Rest::serve(Layers { around: None, ..layers() }).await;
    assert!(off.http1.send_request(request("GET /v1/counter", "", &[], false)).await.is_err());
    let asked = off.send(true, request("GET /v1/counter", "", &[], true)).await;
    assert_eq!(asked.headers()["grpc-status"], "12");
    let (code, answer) = off.grpc("calculator.Calculator/GetCounter", &[], None).await;
    assert_eq!((code, answer.len()), (Code::Ok, 0));
}
