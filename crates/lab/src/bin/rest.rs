//! `calculator-rest`: `calculator-server`, and REST at the same address.

use calculator::program::{Args, run};
use clap::{CommandFactory, Parser};
use lab::rest;
use std::process::ExitCode;

/// Serves the calculator by gRPC, and the same calls as JSON: POST /v1/add {"a": 10, "b": 5}.
///
/// It is calculator-server, and takes JSON over HTTP/1.1 and HTTP/2 at the same address. It has no
/// TLS: any client that reaches one of its addresses may call what is served there. All default
/// addresses are loopback. After SIGTERM or Ctrl-C it exits when the calls in progress have ended,
/// at the latest after --grace. The log goes to stderr; RUST_LOG sets its level.
#[derive(Debug, Parser)]
#[command(name = "calculator-rest", version)]
struct Server {
    #[command(flatten)]
    args: Args,
}

fn main() -> ExitCode {
    run(&Server::parse().args, Server::command(), Some(rest::around()))
}
