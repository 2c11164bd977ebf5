//! The same scripts, with the same service config, driven by other gRPC clients and by ours: as
//! many attempts, with the same headers, and the same codes at the end.
//!
//! `differential/scripts.json` is plain data, so that other clients can be held to it as well: for
//! each script a service config, the answers of the server to one attempt after the other (the last
//! one for ever), and how many calls are made, one after the other.

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
    /// `grpc-previous-rpc-attempts` of each attempt that arrived.
    previous: Vec<Option<String>>,
    codes: Vec<i64>,
}

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
    let status = |field: &str| {
        let code = json[field].as_i64()?;
        Some(Status::new(Code::from_i32(code as i32), "scripted"))
    };
    let answer = if let Some(status) = status("headers_then_status") {
        Answer::HeadersThenStatus(status)
    } else if let Some(status) = status("message_then_status") {
        Answer::MessageThenStatus(encode(&Value { value: 1.0 }), status)
    } else if let Some(status) = status("status") {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", (status.code() as i32).into());
        if let Some(pushback) = json["pushback"].as_str() {
            headers.insert("grpc-retry-pushback-ms", pushback.parse().unwrap());
        }
        Answer::Raw(headers)
    } else {
        ok(7.0)
    };
    match json["after_ms"].as_u64() {
        Some(millis) => Answer::After(Duration::from_millis(millis), Box::new(answer)),
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

fn seen(server: &ScriptedServer, codes: Vec<i64>) -> Seen {
    let previous = |received: &cinchona_testkit::Received| {
        let value = received.headers.get("grpc-previous-rpc-attempts")?;
        Some(value.to_str().unwrap().to_owned())
    };
    Seen { previous: server.received().iter().map(previous).collect(), codes }
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
    let mut codes = Vec::new();
    for _ in 0..script["calls"].as_u64().unwrap() {
        let size = script["size"].as_u64().unwrap_or(0) as usize;
        let mut request =
            Request::new(prost_types::Any { type_url: "1".repeat(size), value: Vec::new() });
        if let Some(reserved) = script["reserved"].as_str() {
            let header = "grpc-previous-rpc-attempts";
            request.metadata_mut().insert(header, reserved.parse().unwrap());
        }
        if let Some(seconds) = script["deadline"].as_u64() {
            request.set_timeout(Duration::from_secs(seconds));
        }
        grpc.ready().await.unwrap();
        let path = PathAndQuery::from_static("/calculator.Calculator/Add");
        let codec = ProstCodec::<prost_types::Any, Value>::default();
        let outcome = grpc.unary(request, path, codec).await;
        codes.push(outcome.err().map_or(0, |status| status.code() as i64));
    }
    seen(&server, codes)
}

/// Lets another client run all `scripts` at once; it is told where and what as JSON on its standard
/// input, and answers with the codes of each.
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
    let codes: Vec<Vec<i64>> = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    servers.iter().zip(codes).map(|((server, _), codes)| seen(server, codes)).collect()
}

/// Runs the scripts of this `peer` with its client and with ours.
async fn compare(peer: &str, client: Command) {
    let all: Vec<Json> = serde_json::from_str(SCRIPTS).unwrap();
    let meant = |script: &&Json| script["peer"].as_str().unwrap_or("any") == peer;
    let scripts: Vec<&Json> = all.iter().filter(meant).collect();
    let theirs = theirs(client, &scripts).await;
    let mut differing = Vec::new();
    let mut running = Vec::new();
    for script in &scripts {
        let script = (*script).clone();
        running.push(tokio::spawn(async move { ours(&script).await }));
    }
    for ((script, theirs), ours) in scripts.iter().zip(theirs).zip(running) {
        let ours = ours.await.unwrap();
        if ours != theirs {
            differing.push(format!("{}:\n  theirs {theirs:?}\n  ours   {ours:?}", script["name"]));
        }
    }
    println!("{} scripts compared", scripts.len());
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

// real clock: the other client is a process.
#[tokio::test]
async fn retries_are_those_of_grpcs_c_core() {
    let Some(python) = python() else { return };
    let mut client = Command::new(python);
    client.arg(script("differential.py"));
    compare("any", client).await;
}

// real clock: the other client is a process.
#[tokio::test]
async fn hedges_are_those_of_grpc_js() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let modules: PathBuf = root.join("target/node/node_modules");
    if !modules.join("@grpc/grpc-js").exists() {
        eprintln!("SKIPPED: npm install --prefix target/node @grpc/grpc-js@1.14.7");
        return;
    }
    let mut client = Command::new("node");
    client.arg(root.join("crates/calculator/tests/node/differential.js")).env("NODE_PATH", modules);
    compare("js", client).await;
}
