//! How the program ends.

use super::cluster;
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

/// How long the end may take.
#[derive(Debug, Args)]
#[command(next_help_heading = "Shutdown")]
pub(crate) struct Ending {
    /// How long calls in progress may go on after SIGTERM or Ctrl-C. After nine tenths of it the
    /// server ends them with UNAVAILABLE; a second signal ends them at once. The rest of the
    /// shutdown takes at most 9 s more, so set it well below the time until the process is killed
    /// (Kubernetes: terminationGracePeriodSeconds, 30 s by default).
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    grace: Duration,
}

/// How long the runtime may take to end what is left: handlers that block their threads, and the
/// closing of the store.
const REST: Duration = Duration::from_secs(1);

impl Ending {
    pub(crate) fn drain(&self) -> Drain {
        Drain::new(self.grace)
    }
}

/// Runs the program on a runtime that ends even where handlers block its threads.
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

/// Stops the server after a signal, when it has left the cluster, and cuts its calls off after a
/// second signal. Never returns.
pub(crate) async fn follow(
    mut signals: Signals,
    drain: Drain,
    cluster: Option<&Cluster>,
    stop: oneshot::Sender<()>,
) {
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
        () = signals.next() => tracing::warn!("a second signal cuts calls off"),
    }
    drain.cut();
    pending().await
}

/// Waits for `last`, or for a signal.
pub(crate) async fn unless_signalled(last: impl Future<Output = ()>) {
    let mut signals = Signals::new();
    tokio::select! {
        () = last => {}
        () = signals.next() => {}
    }
}

/// SIGTERM and Ctrl-C, received from the moment this is made.
pub(crate) struct Signals {
    #[cfg(unix)]
    terminate: Option<tokio::signal::unix::Signal>,
    #[cfg(unix)]
    interrupt: Option<tokio::signal::unix::Signal>,
}

#[cfg(unix)]
impl Signals {
    pub(crate) fn new() -> Self {
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
    pub(crate) fn new() -> Self {
        Self {}
    }

    async fn next(&mut self) {
        _ = tokio::signal::ctrl_c().await;
    }
}
