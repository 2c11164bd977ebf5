//! The same scripts, with the same service config, driven by other gRPC clients and by ours: as
//! many attempts, with the same headers and as long a body, and the same statuses at the end.
//!
//! `differential/scripts.json` is plain data, so that other clients can be held to it as well: for
//! each script a service config, the answers of the server to one attempt after the other (the last
//! one for ever), and how many calls are made, one after the other: of the `methods` in turn
//! (default `Add`), with this `metadata`. It is compared with its `peers`, by default with grpcio.
//!
//! Clocks are real here, and chance is kept out by order: an answer that is due `once_read` so many
//! requests have arrived, one that never comes (`hang`), a connection before the first call. What
//! is left is compared as a range, wide enough for a machine that stands still for a while:
//! `gap_ms` from the one attempt's arrival to the next, `told_ms` as what an attempt is told that
//! remains, `took_ms` as what a call takes. Attempts that are sent at once are `unordered`.
//!
//! A script may have a `request` that `cannot be encoded`, or one of `stream` messages and then one
//! that cannot; only attempts whose request is complete count there. A server that is `down` says
//! nothing, for ever or until the call is `down_ms` old. Codes of which `either` is right are one.
//!
//! Where a peer `differs`, the script says how many attempts there are and how the calls end, for
//! the peer and for `ours`, and why: a difference that is known is held to as well.

use super::*;
use crate::python::{python, script};
use bytes::{Buf, BufMut};
use calculator::client::stack;
use cinchona::{config::ServiceConfig, core::Deadline};
use http::uri::PathAndQuery;
use prost::Message;
use serde_json::{Value as Json, json};
use server::{Serving as Scripted, is_within, serve_script};
use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tokio::{net::TcpStream, time::sleep};
use tonic::{
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::{Ascii, MetadataKey},
};

mod server;

const SCRIPTS: &str = include_str!("differential/scripts.json");

/// What a client made of a script.
#[derive(Debug, PartialEq)]
struct Seen {
    attempts: Vec<Attempt>,
    outcomes: Vec<Outcome>,
}

/// An attempt that arrived.
#[derive(Debug, PartialEq, PartialOrd)]
struct Attempt {
    path: String,
    /// `grpc-previous-rpc-attempts`.
    previous: Option<String>,
    /// Those of the script's metadata that came along.
    metadata: Vec<(String, String)>,
    body_len: usize,
    /// Whether it came neither too early nor too late after the one before.
    in_time: bool,
    /// Whether it was told what remained.
    told_in_time: bool,
}

/// How a call ended.
#[derive(Debug, PartialEq)]
struct Outcome {
    code: i64,
    message: String,
    details: String,
    in_time: bool,
}

/// How a call ended, as a client says it: code, message, details, and how many milliseconds it
/// took.
type Said = (i64, String, String, f64);

/// Messages that are bytes, and one that is nothing and cannot be encoded.
#[derive(Clone, Copy, Debug)]
struct Raw;

impl Codec for Raw {
    type Encode = Option<Vec<u8>>;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Option<Vec<u8>>;
    type Error = Status;

    fn encode(&mut self, message: Self::Item, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let message = message.ok_or_else(|| Status::internal("this cannot be encoded"))?;
        into.put_slice(&message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        from.advance(from.remaining());
        Ok(Some(()))
    }
}

/// The script's metadata, for each of its calls.
fn metadata(script: &Json) -> impl Iterator<Item = (&str, &str)> {
    let entries = script["metadata"].as_object().into_iter().flatten();
    entries.map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
}

/// Whether the calls end by what no server said, for which each client has words of its own.
fn is_wordless(script: &Json) -> bool {
    let unsaid = ["rst", "http", "headers_then_rst", "headers_then_lost"];
    let answers = script["answers"].as_array().into_iter().flatten();
    answers.into_iter().any(|answer| unsaid.iter().any(|field| !answer[field].is_null()))
        || ["request", "stream", "down"].iter().any(|field| !script[field].is_null())
}

fn seen(script: &Json, server: &ScriptedServer, said: Vec<Said>) -> Seen {
    let is_broken = !script["request"].is_null() || !script["stream"].is_null();
    let mut received = server.received();
    received.retain(|received| received.is_complete || !is_broken);
    let gap = |n: usize| n.checked_sub(1).map(|before| received[n].at - received[before].at);
    let attempt = |(n, received): (usize, &cinchona_testkit::Received)| {
        let header =
            |name: &str| received.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let told = Deadline::parse_timeout(&received.headers).unwrap().unwrap_or(Duration::MAX);
        Attempt {
            path: received.path.clone(),
            previous: header("grpc-previous-rpc-attempts"),
            metadata: metadata(script)
                .filter_map(|(name, _)| Some((name.to_owned(), header(name)?)))
                .collect(),
            body_len: received.body.len(),
            in_time: gap(n).is_none_or(|gap| is_within(&script["gap_ms"], gap)),
            told_in_time: is_within(&script["told_ms"], told),
        }
    };
    let mut attempts: Vec<Attempt> = received.iter().enumerate().map(attempt).collect();
    if script["unordered"].as_bool() == Some(true) {
        attempts.sort_by(|a, b| a.partial_cmp(b).unwrap());
    }
    let either = script["either"].as_array().map_or(&[][..], Vec::as_slice);
    let outcome = |(code, message, details, took): Said| Outcome {
        code: if either.contains(&json!(code)) { either[0].as_i64().unwrap() } else { code },
        message: if is_wordless(script) { String::new() } else { message },
        details,
        in_time: is_within(&script["took_ms"], Duration::from_secs_f64(took / 1000.0)),
    };
    Seen { attempts, outcomes: said.into_iter().map(outcome).collect() }
}

/// The messages of a call.
fn messages(script: &Json) -> Vec<Option<Vec<u8>>> {
    if let Some(good) = script["stream"].as_u64() {
        return (0..good).map(|_| Some(Vec::new())).chain([None]).collect();
    }
    if !script["request"].is_null() {
        return vec![None];
    }
    let size = script["size"].as_u64().unwrap_or(0) as usize;
    let message = prost_types::Any { type_url: "1".repeat(size), value: Vec::new() };
    vec![Some(message.encode_to_vec())]
}

fn request<T>(script: &Json, message: T) -> Request<T> {
    let mut request = Request::new(message);
    for (name, value) in metadata(script) {
        let name = MetadataKey::<Ascii>::from_bytes(name.as_bytes()).unwrap();
        request.metadata_mut().insert(name, value.parse().unwrap());
    }
    if let Some(seconds) = script["deadline"].as_u64() {
        request.set_timeout(Duration::from_secs(seconds));
    }
    request
}

async fn ours(script: &Json) -> Seen {
    let Scripted { server, port, control } = serve_script(script);
    if let Some(age) = script["down_ms"].as_u64() {
        tokio::spawn(async move {
            sleep(Duration::from_millis(age)).await;
            TcpStream::connect(("127.0.0.1", control)).await.unwrap();
        });
    }
    let mut layers = Settings { timeout: 60 * SECOND, ..seeded() }.layers().unwrap();
    layers.retry = layers.retry.with_budget(None);
    let config = ServiceConfig::parse(&script["config"].to_string()).unwrap();
    config.apply(&layers.deadline, &layers.retry).unwrap();
    let target: Target = format!("http://127.0.0.1:{port}").parse().unwrap();
    let options = balance::Options {
        rng: Rng::seeded(1),
        // As tonic's own; the scripts have statuses that are larger.
        max_header_list_size: 16 * 1024,
        ..balance::Options::of_one_endpoint()
    };
    let channel = Balance::new(vec![target], options).unwrap();
    if script["down_ms"].is_null() {
        // All scripts run at once: what they show is not how long that takes.
        let ready = async {
            while channel.states()[0].state != balance::State::Ready {
                sleep(Duration::from_millis(5)).await;
            }
        };
        _ = tokio::time::timeout(Duration::from_secs(10), ready).await;
    }
    let mut grpc = Grpc::new(stack(channel, &layers));
    let mut said = Vec::new();
    for n in 0..script["calls"].as_u64().unwrap() {
        grpc.ready().await.unwrap();
        let methods = script["methods"].as_array().map_or(&[][..], Vec::as_slice);
        let method = methods.iter().cycle().nth(n as usize).map_or("Add", |m| m.as_str().unwrap());
        let path = format!("/calculator.Calculator/{method}").parse::<PathAndQuery>().unwrap();
        let begun = Instant::now();
        let messages = tokio_stream::iter(messages(script));
        let outcome = grpc.client_streaming(request(script, messages), path, Raw).await;
        let took = (Instant::now() - begun).as_secs_f64() * 1000.0;
        let status = outcome.err().unwrap_or_else(|| Status::ok(""));
        let details = String::from_utf8(status.details().to_vec()).unwrap();
        said.push((status.code() as i64, status.message().to_owned(), details, took));
    }
    seen(script, &server, said)
}

/// Lets another client run all `scripts` at once; it is told where and what as JSON on its standard
/// input, and answers with the outcomes of each.
async fn theirs(mut client: Command, scripts: &[&Json]) -> Vec<Seen> {
    let servers: Vec<_> = scripts.iter().map(|script| serve_script(script)).collect();
    let tasks: Vec<Json> = scripts
        .iter()
        .zip(&servers)
        .map(|(script, serving)| {
            let mut task = (*script).clone();
            task["port"] = json!(serving.port);
            task["control"] = json!(serving.control);
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
    let said: Vec<Vec<Said>> = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}, {}: {}", output.status, String::from_utf8_lossy(&output.stderr))
    });
    assert_eq!(said.len(), scripts.len(), "an answer for each script");
    let ran = scripts.iter().zip(&servers).zip(said);
    ran.map(|((script, serving), said)| seen(script, &serving.server, said)).collect()
}

/// Runs the scripts of this `peer` with its client and with ours.
async fn compare(peer: &str, client: Command) {
    let all: Vec<Json> = serde_json::from_str(SCRIPTS).unwrap();
    let is_meant = |script: &&Json| match script["peers"].as_array() {
        Some(peers) => peers.iter().any(|name| name == peer),
        None => peer == "grpcio",
    };
    let scripts: Vec<&Json> = all.iter().filter(is_meant).collect();
    assert!(!scripts.is_empty(), "no scripts for {peer}");
    println!("{} scripts are compared", scripts.len());
    let theirs = theirs(client, &scripts).await;
    let mut running = Vec::new();
    for script in &scripts {
        let script = (*script).clone();
        running.push(tokio::spawn(async move { ours(&script).await }));
    }
    let mut wrong = String::new();
    for ((script, theirs), ours) in scripts.iter().zip(theirs).zip(running) {
        let ours = ours.await.unwrap();
        if !is_as_written(script, peer, &theirs, &ours) {
            wrong += &format!("\n{}:\n  theirs {theirs:?}\n  ours   {ours:?}", script["name"]);
        }
    }
    assert!(wrong.is_empty(), "different:{wrong}");
}

/// Whether both saw the same; or each what the script says, where the peer is known to differ.
fn is_as_written(script: &Json, peer: &str, theirs: &Seen, ours: &Seen) -> bool {
    let sum = |seen: &Seen| {
        let codes: Vec<i64> = seen.outcomes.iter().map(|outcome| outcome.code).collect();
        json!({"attempts": seen.attempts.len(), "codes": codes})
    };
    let is_known = script["ours"].is_null() || sum(ours) == script["ours"];
    is_known
        && match &script["differs"][peer] {
            Json::Null => ours == theirs,
            said => sum(theirs) == json!({"attempts": said["attempts"], "codes": said["codes"]}),
        }
}

// real clock: the other client is a process.
#[tokio::test]
async fn retries_are_those_of_grpcs_c_core() {
    let Some(python) = python() else { return };
    let mut client = Command::new(python);
    client.arg(script("differential.py"));
    compare("grpcio", client).await;
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
    let mut client = Command::new("node");
    client.arg(root.join("crates/calculator/tests/node/differential.js"));
    client.env("NODE_PATH", &modules);
    compare("grpc-js", client).await;
}
