//! A cluster of three servers and a client, all with every layer, and faults for half an hour:
//! memory and descriptors must stay flat.

use crate::chart;
use cinchona::core::BoxError;
use clap::Args as ClapArgs;
use humantime::parse_duration;
use plotters::style::RGBColor;
use std::{
    env,
    fmt::Write as _,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};
use tokio::{
    io::{AsyncWriteExt, sink},
    net::TcpStream,
    runtime,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

/// The options of the soak.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Args {
    /// How long the soak lasts, such as 30m; the first sixth is not judged
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = parse_duration)]
    duration: Duration,

    /// The number of calls per second
    #[arg(long, value_name = "N", default_value_t = 500)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    rps: u32,

    /// The same seed gives the same faults
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// The directory of the chart, the figures and the logs
    #[arg(long, value_name = "DIR", default_value = "target/soak")]
    out: PathBuf,
}

/// A program, killed when this is dropped.
struct Program {
    name: &'static str,
    process: Child,
    /// Its output.
    log: PathBuf,
    seen: Vec<Sample>,
}

/// The name of a measurement, and how it is read.
type Held = (&'static str, fn(&Sample) -> f64);

/// The resources of a program at one time.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Seconds since the beginning.
    at: f64,
    rss_mib: f64,
    descriptors: f64,
}

/// The server with everything that there is for one.
const SERVER: &str = "calculator-rest";
/// How far from the mean of its samples a value may be.
const SPREAD: f64 = 0.05;
/// The measurements.
const HELD: [Held; 2] =
    [("MiB of memory", |sample| sample.rss_mib), ("descriptors", |sample| sample.descriptors)];
/// So many readings become one, their median.
const TOGETHER: usize = 10;
const COLOURS: [RGBColor; 4] =
    [chart::GREEN, chart::RED, RGBColor(50, 110, 180), RGBColor(230, 150, 80)];

/// Returns whether everything stayed flat.
pub(crate) fn run(args: &Args) -> Result<bool, BoxError> {
    fs::create_dir_all(&args.out)?;
    let runtime = runtime::Builder::new_multi_thread().enable_all().build()?;
    let programs = runtime.block_on(play(args))?;
    let text = report(&programs, args.duration.as_secs_f64() / 6.0);
    fs::write(args.out.join("soak.md"), &text)?;
    fs::write(args.out.join("soak.csv"), figures(&programs))?;
    fs::write(args.out.join("soak.html"), page(&programs))?;
    write!(io::stdout(), "{text}\nreports: {}\n", args.out.display())?;
    Ok(!text.contains("NOT FLAT"))
}

async fn play(args: &Args) -> Result<Vec<Program>, BoxError> {
    let mut programs = Vec::new();
    let (mut pages, mut gossip) = (JoinSet::new(), None);
    for name in ["server-1", "server-2", "server-3"] {
        let server = Program::start(SERVER, name, &of_server(args, &gossip), args)?;
        if gossip.is_none() {
            gossip = Some(server.says("gossip on ").await?);
        }
        watch(&mut pages, server.says("dashboard on ").await?);
        programs.push(server);
    }
    let client = Program::start("calculator-load", "client", &of_client(args, &gossip), args)?;
    watch(&mut pages, client.says("dashboard on http://").await?);
    programs.push(client);
    sample(&mut programs, args.duration).await?;
    Ok(programs)
}

fn of_server(args: &Args, join: &Option<String>) -> Vec<String> {
    let all = "--addr 127.0.0.1:0 --gossip 127.0.0.1:0 --cluster-id soak --dashboard 127.0.0.1:0 \
        --limit adaptive --quota 100000 --failure-rate 0.1 --seed";
    let mut words: Vec<String> = all.split_whitespace().map(str::to_owned).collect();
    words.push(args.seed.to_string());
    words.extend(join.iter().flat_map(|seed| ["--join".to_owned(), seed.clone()]));
    words
}

fn of_client(args: &Args, cluster: &Option<String>) -> Vec<String> {
    let all = "--dashboard 127.0.0.1:0 --writes 0.2 --breaker default --fallback cached \
        --retry-on unavailable --backoff 10ms --jitter 10ms --cluster-id soak";
    let mut words: Vec<String> = all.split_whitespace().map(str::to_owned).collect();
    let lasts = format!("{}ms", args.duration.as_millis());
    words.extend(["--rps".to_owned(), args.rps.to_string(), "--duration".to_owned(), lasts]);
    words.extend(cluster.iter().flat_map(|seed| ["--cluster".to_owned(), seed.clone()]));
    words
}

/// Reads the events of a dashboard, as its page does.
fn watch(pages: &mut JoinSet<io::Result<u64>>, address: String) {
    pages.spawn(async move {
        let mut stream = TcpStream::connect(&address).await?;
        let ask = format!("GET /events HTTP/1.1\r\nhost: {address}\r\n\r\n");
        stream.write_all(ask.as_bytes()).await?;
        tokio::io::copy(&mut stream, &mut sink()).await
    });
}

/// Reads each program's resources a few hundred times.
async fn sample(programs: &mut [Program], duration: Duration) -> Result<(), BoxError> {
    let began = Instant::now();
    let mut looks = interval((duration / 300).max(Duration::from_millis(200)));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The client ends by itself.
    while looks.tick().await - began < duration.mul_f64(0.98) {
        let at = (Instant::now() - began).as_secs_f64();
        programs.iter_mut().try_for_each(|program| program.look(at))?;
    }
    Ok(())
}

/// A line for each program and each measurement: whether it is flat after `warm`.
fn report(programs: &[Program], warm: f64) -> String {
    let mut text =
        String::from("| program | holds | mean | least | most | |\n|---|---|---|---|---|---|\n");
    for Program { name, seen, .. } in programs {
        for (what, value) in HELD {
            let values: Vec<f64> =
                seen.iter().filter(|sample| sample.at >= warm).map(value).collect();
            // The balancer's probe connections come and go.
            let lasting: Vec<f64> = values.chunks(TOGETHER).map(median).collect();
            let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
            let least = lasting.iter().copied().fold(f64::MAX, f64::min);
            let most = lasting.iter().copied().fold(0.0, f64::max);
            let spread = mean * SPREAD;
            let is_flat = most - mean <= spread && mean - least <= spread;
            let said = if is_flat { "flat" } else { "NOT FLAT" };
            _ = writeln!(text, "| {name} | {what} | {mean:.1} | {least:.1} | {most:.1} | {said} |");
        }
    }
    text
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn figures(programs: &[Program]) -> String {
    let mut text = String::from("program,seconds,rss_mib,descriptors\n");
    for Program { name, seen, .. } in programs {
        for Sample { at, rss_mib, descriptors } in seen {
            _ = writeln!(text, "{name},{at:.1},{rss_mib:.2},{descriptors}");
        }
    }
    text
}

fn page(programs: &[Program]) -> String {
    let chart = |(what, value): Held| {
        let points = |program: &Program| program.seen.iter().map(|s| (s.at, value(s))).collect();
        let lines: Vec<chart::Line> = programs
            .iter()
            .zip(COLOURS)
            .map(|(program, colour)| (program.name, points(program), colour))
            .collect();
        chart::lines(("seconds", what), &lines)
    };
    let charts: String = HELD.into_iter().map(chart).collect();
    format!("<!doctype html><meta charset=utf-8><title>soak</title>{charts}")
}

// === impl Program ===

impl Program {
    fn start(
        program: &str,
        name: &'static str,
        words: &[String],
        args: &Args,
    ) -> Result<Self, BoxError> {
        let file = env::current_exe()?.with_file_name(program);
        let log = args.out.join(format!("{name}.log"));
        let out = File::create(&log)?;
        let mut command = Command::new(&file);
        if program == SERVER {
            command.args(["--node-id", name]);
        }
        // Injected failures must not fill a disk.
        command.args(words).env("RUST_LOG", "error").stderr(out.try_clone()?).stdout(out);
        let process = command
            .spawn()
            .map_err(|error| format!("{}: {error}; cargo xtask soak makes it", file.display()))?;
        Ok(Self { name, process, log, seen: Vec::new() })
    }

    /// The rest of a line that it writes within 10 s.
    async fn says(&self, start: &str) -> Result<String, BoxError> {
        for _ in 0..100 {
            let said = fs::read_to_string(&self.log)?;
            if let Some(rest) = said.lines().find_map(|line| line.strip_prefix(start)) {
                return Ok(rest.to_owned());
            }
            sleep(Duration::from_millis(100)).await;
        }
        Err(format!("{} does not say {start:?}: see {}", self.name, self.log.display()).into())
    }

    fn look(&mut self, at: f64) -> Result<(), BoxError> {
        if let Some(status) = self.process.try_wait()? {
            return Err(format!("{} has ended: {status}", self.name).into());
        }
        let proc = Path::new("/proc").join(self.process.id().to_string());
        let status = fs::read_to_string(proc.join("status"))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        let kib: f64 = rss.trim().trim_end_matches(" kB").parse()?;
        let descriptors = fs::read_dir(proc.join("fd"))?.count() as f64;
        self.seen.push(Sample { at, rss_mib: kib / 1024.0, descriptors });
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}
