//! The end of the program.

use crate::cluster;
use cinchona::{cluster::Cluster, drain::Drain};
use clap::Args;
use humantime::{format_duration, parse_duration};
use std::{
    future::{Future, pending},
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};
use tokio::{runtime, sync::oneshot};

/// How long it may take.
#[derive(Debug, Args)]
#[command(next_help_heading = "How it ends")]
pub(crate) struct Ending {
    /// How long the calls that have begun may take to end after SIGTERM or Ctrl-C; those that have
    /// not by nine tenths of it end with UNAVAILABLE. A second signal ends them at once. What is
    /// around it takes up to 9 s more, so it should be well below what kills the process
    /// (Kubernetes: terminationGracePeriodSeconds, 30 s by default).
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    grace: Duration,
}

/// What the runtime has left may take so long: handlers that block their threads, and the closing
/// of the store.
const REST: Duration = Duration::from_secs(1);

impl Ending {
    pub(crate) fn drain(&self) -> Drain {
        Drain::new(self.grace)
    }
}

/// Runs the program on a runtime that nothing holds up at the end.
pub(crate) fn run(program: impl Future<Output = ExitCode>) -> ExitCode {
    let runtime = match runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            _ = writeln!(io::stderr(), "no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(program);
    runtime.shutdown_timeout(REST);
    code
}

/// Tells the server to stop after a signal, once the cluster has been left, and ends it at once
/// after a second one; for ever.
pub(crate) async fn follow(drain: Drain, cluster: Option<&Cluster>, stop: oneshot::Sender<()>) {
    let mut signals = Signals::new();
    signals.next().await;
    tracing::info!(grace = %format_duration(drain.grace()), "shutting down");
    let leave = async {
        if let Some(cluster) = cluster {
            cluster::leave(cluster).await;
        }
        _ = stop.send(());
        pending().await
    };
    tokio::select! {
        () = leave => {}
        () = signals.next() => tracing::warn!("calls are cut off by a second signal"),
    }
    drain.cut();
    pending().await
}

/// What is to be done at the end, unless a signal comes meanwhile.
pub(crate) async fn unless_signalled(last: impl Future<Output = ()>) {
    let mut signals = Signals::new();
    tokio::select! {
        () = last => {}
        () = signals.next() => {}
    }
}

/// SIGTERM and Ctrl-C, from when it is made.
struct Signals {
    #[cfg(unix)]
    terminate: Option<tokio::signal::unix::Signal>,
    #[cfg(unix)]
    interrupt: Option<tokio::signal::unix::Signal>,
}

#[cfg(unix)]
impl Signals {
    fn new() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        let of = |kind| signal(kind).inspect_err(|error| tracing::warn!(%error, "no signals")).ok();
        Self { terminate: of(SignalKind::terminate()), interrupt: of(SignalKind::interrupt()) }
    }

    async fn next(&mut self) {
        async fn of(signal: &mut Option<tokio::signal::unix::Signal>) {
            match signal {
                Some(signal) => drop(signal.recv().await),
                None => pending().await,
            }
        }
        tokio::select! {
            () = of(&mut self.terminate) => {}
            () = of(&mut self.interrupt) => {}
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    fn new() -> Self {
        Self {}
    }

    async fn next(&mut self) {
        _ = tokio::signal::ctrl_c().await;
    }
}
