//! The results: `LIMITS.md`.

use super::{
    regulators::{Fixed, Gradient, Other, Ours, Vegas},
    servers::Takes,
    *,
};
use std::{
    env,
    fmt::Write,
    fs,
    path::Path,
    thread::{self, JoinHandle},
};

const NAMES: [&str; 4] = ["ours", "fixed, 100", "Gradient2", "Vegas"];

fn regulators() -> [Box<dyn Regulator>; 4] {
    [
        Ours::boxed(Limit::default(), Queue::default()),
        Other::boxed(100.0, Fixed),
        Other::boxed(20.0, Gradient::default()),
        Other::boxed(20.0, Vegas::new()),
    ]
}

fn shape(name: &'static str, takes: Takes, rate: f64) -> Shape {
    Shape { name, server: Server::of(takes), rate, seconds: 30, from: 0 }
}

/// Nothing queues.
fn at_ease() -> Vec<Shape> {
    let gc = Server::of(Takes::About(20.0)).with_pauses(150 * MS);
    let half = Server::of(Takes::Exponential(20.0)).with_workers(8);
    vec![
        shape("steady, 20 ms", Takes::About(20.0), 500.0),
        shape("a step from 20 to 200 ms", Takes::Step(20.0, 200.0, 10.0), 500.0),
        shape("a step from 1 to 60 ms", Takes::Step(1.0, 60.0, 10.0), 1000.0),
        shape("a cold start, 200 ms", Takes::About(200.0), 1500.0),
        shape("70 % 5 ms, 30 % 100 ms", Takes::Bimodal(5.0, 100.0), 500.0),
        Shape { server: gc, ..shape("pauses of 150 ms", Takes::About(20.0), 500.0) },
        shape("a slow ramp from 20 to 200 ms", Takes::Ramp(20.0, 200.0, 30.0), 500.0),
        shape("a ramp of 5 s", Takes::Ramp(20.0, 200.0, 5.0), 500.0),
        shape("50 ms, exponential", Takes::Exponential(50.0), 500.0),
        shape("few calls, exponential", Takes::Exponential(50.0), 20.0),
        Shape { server: half, ..shape("8 workers, half load", Takes::About(1.0), 200.0) },
    ]
}

/// The achieved goodput, and the most possible.
fn overloaded() -> Vec<(Shape, f64, f64)> {
    let servers = [
        ("8 workers, 20 ms", 8, Takes::About(20.0), 20.0),
        ("8 workers, 20 ms, exponential", 8, Takes::Exponential(20.0), 20.0),
        ("40 workers, 50 ms", 40, Takes::About(50.0), 50.0),
    ];
    let shapes = servers.into_iter().flat_map(|(name, workers, takes, mean)| {
        [1.2, 2.0, 3.0, 5.0].map(|load| {
            let peak = workers as f64 / mean * 1000.0;
            let server = Server::of(takes).with_workers(workers);
            let shape = Shape { server, from: 2, seconds: 20, ..shape(name, takes, peak * load) };
            (shape, load, peak)
        })
    });
    shapes.collect()
}

/// A row of cells.
fn row(cells: impl IntoIterator<Item = String>) -> String {
    cells.into_iter().fold("|".to_owned(), |row, cell| format!("{row} {cell} |")) + "\n"
}

fn head(first: &str) -> String {
    let names = NAMES.map(str::to_owned);
    let rule = ["---"; 5].map(str::to_owned);
    row([first.to_owned()].into_iter().chain(names)) + &row(rule)
}

/// The limit in each second: a bar for each, by its logarithm, 1 to 1000.
fn curve(limits: &[u32]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let bar = |limit: &u32| {
        let height = f64::from(*limit).max(1.0).log10() / 3.0 * 7.0;
        BARS[(height.round() as usize).min(7)]
    };
    limits.iter().map(bar).collect()
}

/// What is shed where nothing queues, as a table, and the limits.
async fn eased() -> [String; 2] {
    let (mut table, mut curves) = (head("shed, %"), String::new());
    for shape in at_ease() {
        let mut cells = vec![shape.name.to_owned()];
        _ = writeln!(curves, "{}:", shape.name);
        for (regulator, name) in regulators().into_iter().zip(NAMES) {
            let seen = shape.run(regulator).await;
            let shed = seen.shed_percent();
            assert!(name != "ours" || shed <= 1.0, "{shed} % shed: {}", shape.name);
            cells.push(format!("{shed:.1}"));
            _ = writeln!(curves, "  {name:10} {}", curve(&seen.limits));
        }
        table += &row(cells);
    }
    [table, curves]
}

/// What is answered where calls queue, as a table, and the limits.
async fn queued() -> [String; 2] {
    let (mut table, mut curves) = (head("goodput, % of the most; p99, ms"), String::new());
    for (shape, load, peak) in overloaded() {
        let name = format!("{load} × {}", shape.name);
        let mut cells = vec![name.clone()];
        _ = writeln!(curves, "{name}:");
        for (regulator, by) in regulators().into_iter().zip(NAMES) {
            let seen = shape.run(regulator).await;
            let (share, p99) = (100.0 * seen.goodput() / peak, seen.p99());
            if by == "ours" {
                assert!(share >= 90.0 && p99 <= 300 * MS, "{name}: {share} %, {p99:?}");
            }
            cells.push(format!("{share:.0}; {}", p99.as_millis()));
            _ = writeln!(curves, "  {by:10} {}", curve(&seen.limits));
        }
        table += &row(cells);
    }
    [table, curves]
}

/// In a thread of its own, in virtual time.
fn aside<T: Send + 'static, F: Future<Output = T>>(
    simulation: impl FnOnce() -> F + Send + 'static,
) -> JoinHandle<T> {
    thread::spawn(|| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(simulation())
    })
}

// catalogue: S-F5
#[test]
fn it_sheds_where_calls_wait_and_only_there() {
    let [eased, queued] = {
        let both: [JoinHandle<_>; 2] = [aside(eased), aside(queued)];
        both.map(|one| one.join().unwrap())
    };
    let [[ease, first], [over, second]] = [eased, queued];
    let text = format!("{INTRODUCTION}\n{ease}\n{OVERLOAD}\n{over}\n{CURVES}{first}{second}```\n");
    is_written(&text);
}

const INTRODUCTION: &str = "# Limits compared

`cargo test -p cinchona-shed it_sheds_where_calls_wait` simulates this; with `UPDATE=1` it writes
this file. Calls come by chance (Poisson). A caller gives up after 500 ms, and the server, which
cannot know, goes on. Ours is `Limit::default()` with its queue; the fixed limit is 100; Gradient2
and Vegas are those of Netflix's concurrency-limits with their defaults. They turn away at once what
is over their limits.

## Where nothing queues

30 s; the steps come after 10 s, the pauses each 5 s.
";

const OVERLOAD: &str = "## Where calls queue

20 s, of which the first two do not count. Bounds of ours: at least 90 %, at most 300 ms.
";

const CURVES: &str = "## The limit, second by second

By its logarithm: `▁` is 1, `█` 1000.

```text
";

fn is_written(text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("LIMITS.md");
    if env::var_os("UPDATE").is_some() {
        fs::write(&file, text).unwrap();
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    assert!(written == text, "LIMITS.md is not up to date: run this with UPDATE=1\n{text}");
}

/// A queue that is not empty for some time is not overload in itself.
#[tokio::test(start_paused = true)]
async fn a_queue_at_half_load_refuses_almost_no_call() {
    for (workers, mean) in [(8, 20.0), (4, 20.0), (4, 50.0), (16, 100.0)] {
        for takes in [Takes::About(mean), Takes::Exponential(mean)] {
            let rate = 0.5 * f64::from(workers) / mean * 1000.0;
            let server = Server::of(takes).with_workers(workers as usize);
            let shape = Shape { server, ..shape("half", takes, rate) };
            let seen = shape.run(Ours::boxed(Limit::Fixed(workers), Queue::default())).await;
            println!("{workers} {mean}: {}", seen.shed_percent());
            assert!(seen.shed_percent() <= 1.0, "{}: {workers} of {mean} ms", seen.shed_percent());
        }
    }
}
