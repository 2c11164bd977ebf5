//! `calculator-client`: calls through the client's stack.

mod call;
mod explain;
mod nodes;
mod operation;

use calculator::{
    logs::Telemetry,
    options::{Callable, Options},
};
use call::Call;
use cinchona::{cluster::Cluster, core::BoxError};
use clap::{CommandFactory, Parser, error::ErrorKind};
use operation::Operation;
use std::{fmt::Display, process::ExitCode};

/// Calls a calculator server through the resilience layers of a client.
///
/// The result goes to stdout, the log to stderr (RUST_LOG sets its level). The exit code is 0 when
/// there is a result, 1 when the call failed, 2 when the command line is wrong.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    operation: Operation,
    #[command(flatten)]
    options: Options,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Cli { operation, options } = Cli::parse();
    let telemetry = options.logs.begin("calculator-client").unwrap_or_else(|no| usage(&no));
    let mut called = None;
    let code = run(operation, options, &telemetry, &mut called).await;
    // What was called is still there, so what it has counted is sent with all else.
    telemetry.flush().await;
    drop(called);
    code
}

fn usage(error: &dyn Display) -> ! {
    Cli::command().error(ErrorKind::ValueValidation, error).exit()
}

async fn run(
    operation: Operation,
    options: Options,
    telemetry: &Telemetry,
    called: &mut Option<Callable>,
) -> ExitCode {
    match &operation {
        Operation::Nodes => return in_view(&options, nodes::run).await,
        Operation::Forget { node } => {
            return in_view(&options, async |cluster| nodes::forget(cluster, node).await).await;
        }
        _ => {}
    }
    let callable = match options.connect(None).await {
        Ok(callable) => callable,
        Err(refused) => return refused.report(Cli::command()),
    };
    let Callable { endpoints, layers } = callable.clone();
    telemetry.send(&layers.metrics).unwrap_or_else(|invalid| usage(&invalid));
    *called = Some(callable);
    let call = Call::new(endpoints, layers, options);
    match operation.run(&call).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(status) => {
            call.report(&status);
            ExitCode::FAILURE
        }
    }
}

/// Runs an operation on the cluster.
async fn in_view(
    options: &Options,
    run: impl AsyncFnOnce(&Cluster) -> Result<bool, BoxError>,
) -> ExitCode {
    let cluster = match options.observe().await {
        Ok(cluster) => cluster,
        Err(refused) => return refused.report(Cli::command()),
    };
    match run(&cluster).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
