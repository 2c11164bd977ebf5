//! A retry storm: many clients lose the same server at the same moment.
//!
//! The clients are real retry layers; only the server is a model: it is down, then it answers a
//! fixed number of requests a second and turns away what would have to wait for too long.

use crate::chart::svg;
use cinchona::{
    core::{BoxError, Methods, Rng},
    retry::{Backoff, Jitter, RetryPolicy, RetrySettings},
};
use http::{Request, Response};
use plotters::prelude::*;
use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    runtime,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tonic::{Code, Status, body::Body};
use tower::{Layer, ServiceExt, service_fn};

/// The options of the simulation.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The number of clients with a call in flight when the server crashes
    #[arg(long, default_value_t = 1000)]
    clients: u32,

    /// The number of requests per second that the server answers when it is back
    #[arg(long, default_value_t = 200)]
    capacity: u32,

    /// The same seed gives the same waits
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// The directory of storm.svg
    #[arg(long, value_name = "DIR", default_value = "target/demo")]
    out: PathBuf,
}

/// The outcome of one kind of jitter.
#[derive(Debug)]
struct Storm {
    name: &'static str,
    /// Requests in each [`BUCKET`] since the crash.
    load: Vec<u32>,
    turned_away: u32,
    served: u32,
    last_served: Duration,
}

/// A server that is down, and then has a queue.
#[derive(Debug)]
struct Server {
    began: Instant,
    service_time: Duration,
    /// When the last request in the queue will have been answered.
    idle_at: Instant,
    load: Vec<u32>,
    turned_away: u32,
    last_served: Duration,
}

/// How long the server is down.
const DOWN: Duration = Duration::from_secs(2);
/// How long a request may wait in the server's queue.
const QUEUE: Duration = Duration::from_millis(250);
const BUCKET: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);

/// Runs the storm with each kind of jitter, prints the table and draws the chart.
pub(crate) fn run(args: &Args) -> Result<bool, BoxError> {
    let kinds = [
        ("none", Jitter::None),
        ("equal", Jitter::Equal),
        ("full", Jitter::Full),
        ("additive 0-1 s", Jitter::Additive(SECOND)),
    ];
    let mut storms = Vec::new();
    for (name, jitter) in kinds {
        let mut runtime = runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build()?;
        storms.push(runtime.block_on(storm(args, name, jitter))?);
    }
    print(args, &storms);
    fs::create_dir_all(&args.out)?;
    let file = args.out.join("storm.svg");
    fs::write(&file, chart(&storms))?;
    println!("\nchart: {}", file.display());
    Ok(true)
}

async fn storm(args: &Args, name: &'static str, jitter: Jitter) -> Result<Storm, BoxError> {
    let server = Arc::new(Mutex::new(Server::new(args.capacity)));
    let backoff = Backoff::new(SECOND, 2.0, 8 * SECOND)?.with_jitter(jitter);
    let policy = RetryPolicy::default()
        .with_codes([Code::Unavailable])?
        .with_max_retries(7)
        .with_backoff(backoff);
    // Each client is a process of its own, whose budget a single call does not use up.
    let retry = RetrySettings::new(policy, Methods::all_idempotent())
        .with_rng(Rng::seeded(args.seed))
        .with_budget(None)
        .layer();
    let mut clients = JoinSet::new();
    for _ in 0..args.clients {
        let server = server.clone();
        let channel = service_fn(move |_: Request<Body>| answer(server.clone()));
        clients.spawn(retry.layer(channel).oneshot(Request::new(Body::empty())));
    }
    let outcomes = clients.join_all().await;
    let served = outcomes.iter().filter(|outcome| outcome.is_ok()).count() as u32;
    let server = server.lock().unwrap_or_else(PoisonError::into_inner);
    let Server { ref load, turned_away, last_served, .. } = *server;
    Ok(Storm { name, load: load.clone(), turned_away, served, last_served })
}

async fn answer(server: Arc<Mutex<Server>>) -> Result<Response<Body>, BoxError> {
    let admitted = server.lock().unwrap_or_else(PoisonError::into_inner).admit(Instant::now());
    match admitted {
        Some(answered_at) => {
            sleep_until(answered_at).await;
            Ok(Status::ok("").into_http())
        }
        None => Ok(Status::unavailable("down, or overloaded").into_http()),
    }
}

fn print(args: &Args, storms: &[Storm]) {
    let Args { clients, capacity, .. } = args;
    println!(
        "{clients} clients lose their server at once; it is back after {DOWN:?} and then \
         answers {capacity} a second.\n"
    );
    println!(
        "{:<16}{:>10}{:>18}{:>14}{:>10}{:>16}",
        "jitter", "requests", "most in 100 ms", "turned away", "served", "last served at"
    );
    for storm in storms {
        let Storm { name, load, turned_away, served, last_served } = storm;
        let requests: u32 = load.iter().sum();
        println!(
            "{name:<16}{requests:>10}{:>18}{turned_away:>14}{served:>10}{:>14.1} s",
            storm.peak(),
            last_served.as_secs_f64(),
        );
    }
}

/// A panel for each kind of jitter, on the same logarithmic scale.
fn chart(storms: &[Storm]) -> String {
    let buckets = storms.iter().map(|storm| storm.load.len()).max().unwrap_or(1);
    let peak = storms.iter().map(Storm::peak).max().unwrap_or(1);
    let seconds = |bucket: usize| bucket as f64 * BUCKET.as_secs_f64();
    svg((900, 180 * storms.len() as u32), |area| {
        area.fill(&WHITE)?;
        for (panel, storm) in area.split_evenly((storms.len(), 1)).iter().zip(storms) {
            let mut chart = ChartBuilder::on(panel)
                .caption(format!("jitter: {}", storm.name), ("sans-serif", 16))
                .margin(8)
                .x_label_area_size(28)
                .y_label_area_size(60)
                .build_cartesian_2d(0.0..seconds(buckets), (1..peak * 2).log_scale())?;
            chart
                .configure_mesh()
                .x_desc("seconds since the crash")
                .y_desc("requests in 100 ms")
                .y_labels(4)
                .light_line_style(TRANSPARENT)
                .draw()?;
            let bars = storm.load.iter().enumerate().filter(|(_, load)| **load > 0);
            chart.draw_series(bars.map(|(n, load)| {
                let corners = [(seconds(n), 1), (seconds(n + 1), load + 1)];
                Rectangle::new(corners, RGBColor(50, 110, 180).filled())
            }))?;
        }
        Ok(())
    })
}

// === impl Storm ===

impl Storm {
    /// The heaviest load after the crash itself, which hits all clients alike.
    fn peak(&self) -> u32 {
        self.load.iter().skip(1).copied().max().unwrap_or(0)
    }
}

// === impl Server ===

impl Server {
    fn new(capacity: u32) -> Self {
        let began = Instant::now();
        Self {
            began,
            service_time: SECOND / capacity.max(1),
            idle_at: began,
            load: Vec::new(),
            turned_away: 0,
            last_served: Duration::ZERO,
        }
    }

    /// When a request that arrives `now` is answered; `None` when it is turned away.
    fn admit(&mut self, now: Instant) -> Option<Instant> {
        let since = now - self.began;
        let bucket = (since.as_millis() / BUCKET.as_millis()) as usize;
        self.load.resize(self.load.len().max(bucket + 1), 0);
        self.load[bucket] += 1;
        self.idle_at = self.idle_at.max(now);
        if since < DOWN || self.idle_at - now > QUEUE {
            self.turned_away += 1;
            return None;
        }
        self.idle_at += self.service_time;
        self.last_served = self.idle_at - self.began;
        Some(self.idle_at)
    }
}
