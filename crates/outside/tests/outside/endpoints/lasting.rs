//! Calls that last, to servers of other makes with their default options, which close connections
//! that are pinged too often.

use super::*;
use crate::world::Process;
use cinchona::balance::of_endpoint;
use outside::{grpc_js, python, within};
use std::process::{Command, Stdio};
use tonic::transport::Endpoint;

/// How long a unary call takes, and for how long a stream is silent.
const LONG: f64 = 100.0;
const SILENT: f64 = 150.0;

/// Both calls on a connection that has nothing else.
async fn last(channel: Balance) -> (Result<f64, Status>, Result<f64, Status>) {
    let (mut unary, mut stream) =
        (CalculatorClient::new(channel.clone()), CalculatorClient::new(channel));
    let (long, silent) = tokio::join!(unary.add(BinaryOperation { a: LONG, b: LONG }), async {
        let range = RangeRequest { first: SILENT, last: SILENT, step: None };
        let mut numbers = stream.range(range).await?.into_inner();
        let first = numbers.message().await?.map_or(0.0, |number| number.value);
        assert_eq!(numbers.message().await?, None);
        Ok(first)
    });
    (long.map(|value| value.into_inner().value), silent)
}

async fn last_at(mut server: Process) {
    let port = server.first_line();
    let uri = format!("http://127.0.0.1:{port}");
    let lazy = of_endpoint(Endpoint::from_shared(uri.clone()).unwrap());
    let many = bare(vec![uri.parse().unwrap()]);
    let (one, many) = tokio::join!(last(lazy), last(many));
    for (what, (long, silent)) in [("of_endpoint", one), ("Balance::new", many)] {
        println!("{what}: {LONG} s: {long:?}, silent for {SILENT} s: {silent:?}");
        assert_eq!((long.unwrap(), silent.unwrap()), (LONG, SILENT), "{what}");
    }
}

// catalogue: S-B4
// real clock: the server is a process.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs minutes, and python3 with grpcio"]
async fn a_stock_grpcio_server_lets_calls_last_for_minutes() {
    let mut python = Command::new(python());
    python.arg(within("crates/outside/tests/python/lasting.py")).stdout(Stdio::piped());
    last_at(Process::spawn(&mut python)).await;
}

// catalogue: S-B4
// real clock: the server is a process.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs minutes, and node with grpc-js"]
async fn a_stock_grpc_js_server_lets_calls_last_for_minutes() {
    let mut node = Command::new("node");
    node.arg(within("crates/outside/tests/node/lasting.js")).stdout(Stdio::piped());
    node.env("NODE_PATH", grpc_js());
    last_at(Process::spawn(&mut node)).await;
}
