//! Three server processes that find each other by gossip, and a client under load: one is killed,
//! one is paused, one leaves.

use calculator::{
    client::{Layers, Settings, Stack, stack},
    cluster::{endpoints, observe},
    pb::{BinaryOperation, calculator_client::CalculatorClient},
};
use cinchona::{
    balance::{Balance, Options, State},
    cluster::{Cluster, Event},
    core::BoxError,
    retry::{Backoff, RetryPolicy},
};
use clap::Args as ClapArgs;
use std::{
    env, fs,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    runtime,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tonic::Code;

/// The options of the cluster demo.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Args {
    /// The number of calls per second
    #[arg(long, value_name = "N", default_value_t = 300)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    rps: u32,

    /// The directory of the servers' logs
    #[arg(long, value_name = "DIR", default_value = "target/demo")]
    out: PathBuf,
}

/// A `calculator-server`, killed when this is dropped.
struct Server {
    process: Child,
    /// Its addresses: of gRPC, and of gossip.
    addr: String,
    gossip: String,
    log: PathBuf,
}

/// An observation, and whether it is the expected one.
struct Finding {
    what: &'static str,
    seen: String,
    met: bool,
}

/// Each call: when it was due, and whether it failed.
type Calls = Arc<Mutex<Vec<(Instant, bool)>>>;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
const CLUSTER: &str = "demo";

/// Returns whether every observation was the expected one.
pub(crate) fn run(args: &Args) -> Result<bool, BoxError> {
    fs::create_dir_all(&args.out)?;
    let runtime = runtime::Builder::new_multi_thread().enable_all().build()?;
    let findings = runtime.block_on(play(args))?;
    let width = findings.iter().map(|finding| finding.what.len()).max().unwrap_or(0);
    let mut out = io::stdout().lock();
    for Finding { what, seen, met } in &findings {
        let mark = if *met { "met   " } else { "NOT MET" };
        writeln!(out, "{mark} {what:<width$}  {seen}")?;
    }
    Ok(findings.iter().all(|finding| finding.met))
}

async fn play(args: &Args) -> Result<Vec<Finding>, BoxError> {
    let first = Server::start("n1", "127.0.0.1:0", None, &args.out)?;
    let seed = first.gossip.clone();
    let mut second = Server::start("n2", "127.0.0.1:0", Some(&seed), &args.out)?;
    let third = Server::start("n3", "127.0.0.1:0", Some(&seed), &args.out)?;
    let cluster = observe(CLUSTER, &seed, Vec::new()).await?;
    let layers = layers()?;
    let balance = endpoints(&cluster, "worker", &layers, Options::default())?;
    ready(&balance, 3).await?;
    let client = CalculatorClient::new(stack(balance.clone(), &layers));
    let calls = Calls::default();
    let loading = tokio::spawn(load(client, args.rps, calls.clone()));
    sleep(2 * SECOND).await;

    let mut findings = Vec::new();
    let (began, mut events) = (Instant::now(), cluster.events());
    let addr = second.addr.clone();
    second.process.kill()?;
    let failed = |event: &Event| matches!(event, Event::NodeFailed { node } if node == "n2");
    let noticed = timeout(10 * SECOND, events.wait_for(failed)).await;
    let took = Instant::now() - began;
    sleep(SECOND).await;
    findings.push(Finding {
        what: "kill -9 of one: detected within 3 s",
        seen: format!("after {:.2} s", took.as_secs_f64()),
        met: noticed.is_ok() && took <= 3 * SECOND,
    });
    findings.push(lost("kill -9 of one: no call lost", &calls, began));

    let (began, mut events) = (Instant::now(), cluster.events());
    second = Server::start("n2", &addr, Some(&seed), &args.out)?;
    let back = |event: &Event| match event {
        Event::NodeJoined { node } | Event::NodeRecovered { node } => node == "n2",
        _ => false,
    };
    let noticed = timeout(10 * SECOND, events.wait_for(back)).await;
    let is_used = ready(&balance, 3).await;
    findings.push(Finding {
        what: "started again: takes calls within 10 s",
        seen: format!("after {:.2} s", (Instant::now() - began).as_secs_f64()),
        met: noticed.is_ok() && is_used.is_ok(),
    });

    findings.extend(pause(&third, &calls).await?);
    findings.extend(leave(first, &cluster, &calls).await?);
    loading.abort();
    drop((second, third));
    Ok(findings)
}

/// Stops a server for 2 s.
async fn pause(server: &Server, calls: &Calls) -> Result<[Finding; 2], BoxError> {
    let began = Instant::now();
    let convictions = || -> io::Result<usize> {
        let said = fs::read_to_string(&server.log)?;
        let others = said.lines().filter(|line| line.contains("NodeFailed"));
        Ok(others.count())
    };
    let before = convictions()?;
    server.signal("STOP")?;
    sleep(2 * SECOND).await;
    server.signal("CONT")?;
    sleep(3 * SECOND).await;
    let convicted = convictions()? - before;
    let what = "paused for 2 s: suspects no other node when it wakes";
    let finding = Finding { what, seen: format!("{convicted} convicted"), met: convicted == 0 };
    Ok([finding, lost("paused for 2 s: no call lost", calls, began)])
}

/// A server leaves after SIGTERM.
async fn leave(
    mut server: Server,
    cluster: &Cluster,
    calls: &Calls,
) -> Result<[Finding; 2], BoxError> {
    let (began, mut events) = (Instant::now(), cluster.events());
    server.signal("TERM")?;
    let left = |event: &Event| matches!(event, Event::NodeLeft { node } if node == "n1");
    let noticed = timeout(10 * SECOND, events.wait_for(left)).await;
    let took = Instant::now() - began;
    tokio::task::spawn_blocking(move || server.process.wait()).await??;
    sleep(SECOND).await;
    let what = "one leaves: known to have left, not to have failed";
    let seen = format!("after {:.2} s", took.as_secs_f64());
    let finding = Finding { what, seen, met: noticed.is_ok() };
    Ok([finding, lost("one leaves: no call lost", calls, began)])
}

/// The number of failed calls since then.
fn lost(what: &'static str, calls: &Calls, since: Instant) -> Finding {
    let calls = calls.lock().unwrap_or_else(PoisonError::into_inner);
    let recent: Vec<_> = calls.iter().filter(|(due, _)| *due >= since).collect();
    let failed = recent.iter().filter(|(_, failed)| *failed).count();
    Finding { what, seen: format!("{failed} of {}", recent.len()), met: failed == 0 }
}

fn layers() -> Result<Layers, BoxError> {
    let retry = RetryPolicy::default()
        .with_codes([Code::Unavailable, Code::DeadlineExceeded])?
        .with_backoff(Backoff::new(10 * MS, 2.0, SECOND)?);
    Ok(Settings { timeout: SECOND, retry, ..Settings::default() }.layers()?)
}

/// Waits until so many servers are connected.
async fn ready(balance: &Balance, count: usize) -> Result<(), BoxError> {
    let began = Instant::now();
    while Instant::now() < began + 10 * SECOND {
        let states = balance.states();
        if states.iter().filter(|seen| seen.state == State::Ready).count() >= count {
            return Ok(());
        }
        sleep(20 * MS).await;
    }
    Err(format!("not {count} servers after 10 s").into())
}

/// Starts each call at its time, whether or not others have ended; never ends.
async fn load(client: CalculatorClient<Stack<Balance>>, rps: u32, calls: Calls) {
    let (mut due, mut running) = (Instant::now(), JoinSet::new());
    loop {
        sleep_until(due).await;
        let (mut client, calls) = (client.clone(), calls.clone());
        running.spawn(async move {
            let failed = client.add(BinaryOperation { a: 1.0, b: 2.0 }).await.is_err();
            calls.lock().unwrap_or_else(PoisonError::into_inner).push((due, failed));
        });
        while running.try_join_next().is_some() {}
        due += SECOND / rps;
    }
}

// === impl Server ===

impl Server {
    fn start(id: &str, addr: &str, seed: Option<&str>, out: &Path) -> Result<Self, BoxError> {
        let program = env::current_exe()?.with_file_name("calculator-server");
        let log = out.join(format!("{id}.log"));
        let errors = fs::OpenOptions::new().create(true).append(true).open(&log)?;
        let mut command = Command::new(&program);
        command.args(["--addr", addr, "--node-id", id, "--cluster-id", CLUSTER]);
        command.args(["--gossip", "127.0.0.1:0"]);
        if let Some(seed) = seed {
            command.args(["--join", seed]);
        }
        let started = command.env("RUST_LOG", "info").stdout(Stdio::piped()).stderr(errors).spawn();
        let mut process = started.map_err(|error| {
            format!("{}: {error}; cargo build -p calculator makes it", program.display())
        })?;
        let said = process.stdout.take().ok_or("no standard output")?;
        let mut lines = BufReader::new(said).lines();
        let mut line = |start: &str| -> Result<String, BoxError> {
            let line = lines.next().ok_or("the server has ended")??;
            Ok(line.strip_prefix(start).ok_or_else(|| format!("unexpected: {line}"))?.to_owned())
        };
        let (addr, gossip) = (line("listening on ")?, line("gossip on ")?);
        Ok(Self { process, addr, gossip, log })
    }

    fn signal(&self, signal: &str) -> io::Result<()> {
        let pid = self.process.id().to_string();
        Command::new("kill").args([format!("-{signal}"), pid]).status().map(drop)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}
