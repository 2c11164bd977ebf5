//! `calculator-server`: the calculator behind its server stack.

use calculator::program::{Args, run};
use clap::{CommandFactory, Parser};
use mimalloc::MiMalloc;
use std::process::ExitCode;

/// A call takes some forty allocations, most of hyper, h2 and tonic: with glibc's allocator these
/// are a tenth of its CPU.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Serves a gRPC calculator, and can inject faults into it.
///
/// It also serves grpc.health.v1.Health and server reflection, into which it injects no faults. It
/// has no TLS: any client that reaches one of its addresses may call what is served there. All
/// default addresses are loopback. After SIGTERM or Ctrl-C it exits when the calls in progress have
/// ended, at the latest after --grace. The log goes to stderr; RUST_LOG sets its level.
#[derive(Debug, Parser)]
#[command(name = "calculator-server", version)]
struct Server {
    #[command(flatten)]
    args: Args,
}

fn main() -> ExitCode {
    run(&Server::parse().args, Server::command(), None)
}
