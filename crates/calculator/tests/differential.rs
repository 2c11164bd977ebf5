//! The same scripts, with the same service config, driven by other gRPC clients and by ours: as
//! many attempts, with the same headers and as long a body, and the same statuses at the end.
//!
//! `differential/scripts.json` is plain data, so that other clients can be held to it as well: for
//! each script a service config, the answers of the server to one attempt after the other (the last
//! one for ever), and how many calls are made, one after the other: of the `methods` in turn
//! (default `Add`), with this `metadata`. `gap_ms` says how long after the one before an attempt
//! may arrive, at least and at most; it is wide, for clocks are real here.

use super::*;
use crate::python::{python, script};
use calculator::client::{Layers, stack};
use cinchona::config::ServiceConfig;
use http::{HeaderMap, uri::PathAndQuery};
use serde_json::{Value as Json, json};
use std::{
    convert::Infallible,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    task::{Context, Poll},
};
use tonic::{
    client::Grpc,
    metadata::{Ascii, MetadataKey, MetadataMap},
    server::NamedService,
    service::Routes,
    transport::{Server, server::TcpIncoming},
};
use tonic_prost::ProstCodec;
use tower::Service;

const SCRIPTS: &str = include_str!("differential/scripts.json");

/// What a client made of a script.
#[derive(Debug, PartialEq)]
struct Seen {
    attempts: Vec<Attempt>,
    outcomes: Vec<Outcome>,
}

/// An attempt that arrived.
#[derive(Debug, PartialEq)]
struct Attempt {
    path: String,
    /// `grpc-previous-rpc-attempts`.
    previous: Option<String>,
    /// Those of the script's metadata that came along.
    metadata: Vec<(String, String)>,
    body_len: usize,
    /// Whether it came neither too early nor too late after the one before.
    in_time: bool,
}

/// How a call ended: code, message, details.
type Outcome = (i64, String, String);

/// The scripted calculator, for tonic's own server.
#[derive(Clone, Debug)]
struct Calculator(ScriptedServer);

impl NamedService for Calculator {
    const NAME: &'static str = "calculator.Calculator";
}

impl Service<http::Request<Body>> for Calculator {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = <ScriptedServer as Service<http::Request<Body>>>::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.0.call(request)
    }
}

fn answer(json: &Json) -> Answer {
    let status = |code: &Json| {
        let code = Code::from_i32(code.as_i64().unwrap() as i32);
        let text = |field: &str| json[field].as_str().unwrap_or_default().to_owned();
        let mut headers = HeaderMap::new();
        if let Some(pushback) = json["pushback"].as_str() {
            headers.insert("grpc-retry-pushback-ms", pushback.parse().unwrap());
        }
        let metadata = MetadataMap::from_headers(headers);
        Status::with_details_and_metadata(code, text("message"), text("details").into(), metadata)
    };
    let mut given = None;
    let mut delay = None;
    for (field, value) in json.as_object().unwrap() {
        given = Some(match field.as_str() {
            "ok" => ok(7.0),
            "status" => Answer::Status(status(value)),
            "headers_then_status" => Answer::HeadersThenStatus(status(value)),
            "message_then_status" => {
                Answer::MessageThenStatus(encode(&Value { value: 1.0 }), status(value))
            }
            "rst" => Answer::Reset((value.as_u64().unwrap() as u32).into()),
            "after_ms" => {
                delay = value.as_u64().map(Duration::from_millis);
                continue;
            }
            "pushback" | "message" | "details" => continue,
            unknown => panic!("an answer has no {unknown}"),
        });
    }
    let answer = given.unwrap();
    match delay {
        Some(delay) => Answer::After(delay, Box::new(answer)),
        None => answer,
    }
}

/// A fresh server for a script, on a port of its own.
fn serve_script(json: &Json) -> (ScriptedServer, u16) {
    let server = ScriptedServer::new(json["answers"].as_array().unwrap().iter().map(answer));
    let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let incoming = incoming.with_nodelay(Some(true));
    let port = incoming.local_addr().unwrap().port();
    let routes = Routes::new(Calculator(server.clone()));
    tokio::spawn(Server::builder().add_routes(routes).serve_with_incoming(incoming));
    (server, port)
}

/// The script's metadata, for each of its calls.
fn metadata(script: &Json) -> impl Iterator<Item = (&str, &str)> {
    let entries = script["metadata"].as_object().into_iter().flatten();
    entries.map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
}

fn seen(script: &Json, server: &ScriptedServer, outcomes: Vec<Outcome>) -> Seen {
    let received = server.received();
    let gap = |n: usize| n.checked_sub(1).map(|before| received[n].at - received[before].at);
    let in_time = |n| match (gap(n), script["gap_ms"].as_array().map(Vec::as_slice)) {
        (Some(gap), Some([least, most])) => {
            let millis = |json: &Json| Duration::from_millis(json.as_u64().unwrap());
            (millis(least)..millis(most)).contains(&gap)
        }
        _ => true,
    };
    let attempt = |(n, received): (usize, &cinchona_testkit::Received)| {
        let header =
            |name: &str| received.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        Attempt {
            path: received.path.clone(),
            previous: header("grpc-previous-rpc-attempts"),
            metadata: metadata(script)
                .filter_map(|(name, _)| Some((name.to_owned(), header(name)?)))
                .collect(),
            body_len: received.body.len(),
            in_time: in_time(n),
        }
    };
    Seen { attempts: received.iter().enumerate().map(attempt).collect(), outcomes }
}

async fn ours(script: &Json) -> Seen {
    let (server, port) = serve_script(script);
    let layers = Layers::from(Settings { timeout: 60 * SECOND, ..seeded() });
    let layers = Layers { retry: layers.retry.with_budget(None), ..layers };
    let config = ServiceConfig::parse(&script["config"].to_string()).unwrap();
    config.apply(&layers.deadline, &layers.retry).unwrap();
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap();
    let channel = cinchona::balance::connect_lazy(endpoint);
    let mut grpc = Grpc::new(stack(channel, &layers));
    let mut outcomes = Vec::new();
    for n in 0..script["calls"].as_u64().unwrap() {
        let size = script["size"].as_u64().unwrap_or(0) as usize;
        let mut request =
            Request::new(prost_types::Any { type_url: "1".repeat(size), value: Vec::new() });
        for (name, value) in metadata(script) {
            let name = MetadataKey::<Ascii>::from_bytes(name.as_bytes()).unwrap();
            request.metadata_mut().insert(name, value.parse().unwrap());
        }
        if let Some(seconds) = script["deadline"].as_u64() {
            request.set_timeout(Duration::from_secs(seconds));
        }
        grpc.ready().await.unwrap();
        let methods = script["methods"].as_array().map_or(&[][..], Vec::as_slice);
        let method = methods.iter().cycle().nth(n as usize).map_or("Add", |m| m.as_str().unwrap());
        let path = format!("/calculator.Calculator/{method}").parse::<PathAndQuery>().unwrap();
        let codec = ProstCodec::<prost_types::Any, Value>::default();
        let outcome = grpc.unary(request, path, codec).await;
        let status = outcome.err().unwrap_or_else(|| Status::ok(""));
        let details = String::from_utf8(status.details().to_vec()).unwrap();
        outcomes.push((status.code() as i64, status.message().to_owned(), details));
    }
    seen(script, &server, outcomes)
}

/// Lets another client run all `scripts` at once; it is told where and what as JSON on its standard
/// input, and answers with the outcomes of each.
async fn theirs(mut client: Command, scripts: &[&Json]) -> Vec<Seen> {
    let servers: Vec<_> = scripts.iter().map(|script| serve_script(script)).collect();
    let tasks: Vec<Json> = scripts
        .iter()
        .zip(&servers)
        .map(|(script, (_, port))| {
            let mut task = (*script).clone();
            task["port"] = json!(port);
            task
        })
        .collect();
    let tasks = serde_json::to_vec(&tasks).unwrap();
    let output = tokio::task::spawn_blocking(move || {
        let client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut client = client.spawn().unwrap();
        client.stdin.take().unwrap().write_all(&tasks).unwrap();
        client.wait_with_output().unwrap()
    });
    let output = output.await.unwrap();
    let outcomes: Vec<Vec<Outcome>> = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(outcomes.len(), scripts.len(), "an answer for each script");
    let ran = scripts.iter().zip(&servers).zip(outcomes);
    ran.map(|((script, (server, _)), outcomes)| seen(script, server, outcomes)).collect()
}

/// Runs the scripts of this `peer` with its client and with ours, those in which the two differ so
/// many times: where the machine stands still for a while, what was to be in time is not.
async fn compare(peer: &str, times: usize, client: impl Fn() -> Command) {
    let all: Vec<Json> = serde_json::from_str(SCRIPTS).unwrap();
    let meant = |script: &&Json| script["peer"].as_str().unwrap_or("any") == peer;
    let mut scripts: Vec<&Json> = all.iter().filter(meant).collect();
    assert!(!scripts.is_empty(), "no scripts for {peer}");
    println!("{} scripts are compared", scripts.len());
    let mut differences = String::new();
    for _ in 0..times {
        let differing = differing(client(), &scripts).await;
        if differing.is_empty() {
            return;
        }
        (scripts, differences) = differing.into_iter().unzip();
        println!("different, perhaps by chance:{differences}");
    }
    panic!("different each time:{differences}");
}

/// Those of the `scripts` in which the two clients differ, and how.
async fn differing<'a>(client: Command, scripts: &[&'a Json]) -> Vec<(&'a Json, String)> {
    let theirs = theirs(client, scripts).await;
    let mut running = Vec::new();
    for script in scripts {
        let script = (*script).clone();
        running.push(tokio::spawn(async move { ours(&script).await }));
    }
    let mut differing = Vec::new();
    for ((script, theirs), ours) in scripts.iter().zip(theirs).zip(running) {
        let (mut theirs, mut ours) = (theirs, ours.await.unwrap());
        if script["answers"].as_array().unwrap().iter().any(|answer| !answer["rst"].is_null()) {
            // No server said anything: each client has words of its own.
            for (_, message, _) in theirs.outcomes.iter_mut().chain(&mut ours.outcomes) {
                message.clear();
            }
        }
        if ours != theirs {
            let difference =
                format!("\n{}:\n  theirs {theirs:?}\n  ours   {ours:?}", script["name"]);
            differing.push((*script, difference));
        }
    }
    differing
}

// real clock: the other client is a process.
#[tokio::test]
async fn retries_are_those_of_grpcs_c_core() {
    let Some(python) = python() else { return };
    let client = || {
        let mut client = Command::new(python);
        client.arg(script("differential.py"));
        client
    };
    compare("any", 1, client).await;
}

// real clock: the other client is a process.
#[tokio::test]
async fn hedges_are_those_of_grpc_js() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let modules: PathBuf = root.join("target/node/node_modules");
    let node = Command::new("node").arg("--version").stdout(Stdio::null()).status();
    if node.is_err() || !modules.join("@grpc/grpc-js").exists() {
        eprintln!("SKIPPED: node, and npm install --prefix target/node @grpc/grpc-js@1.14.7");
        return;
    }
    let client = || {
        let mut client = Command::new("node");
        client.arg(root.join("crates/calculator/tests/node/differential.js"));
        client.env("NODE_PATH", &modules);
        client
    };
    compare("js", 3, client).await;
}
