//! Each example runs, ends by itself, and shows what it is to show.
//!
//! `cargo test -p cinchona` builds them with the tests; where one is missing, as with
//! `--test examples`, it is built here.

#![expect(clippy::unwrap_used, reason = "a test fails where something is missing")]

#[path = "common/grafana.rs"]
mod grafana;

use grafana::{asked, missing};
use std::{collections::BTreeSet, env, fs, path::PathBuf, process::Stdio, time::Duration};
use tokio::{process::Command, sync::Mutex, time::timeout};

/// An example takes a few seconds; the machine may have other things to do.
const LIMIT: Duration = Duration::from_secs(120);

/// Cargo waits for itself, but says so on and on.
static BUILDING: Mutex<()> = Mutex::const_new(());

/// What the example prints.
async fn run(name: &str) -> String {
    let program = built(name).await;
    let mut command = Command::new(program);
    let running = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let ended = timeout(LIMIT, running).await;
    let output = ended.unwrap_or_else(|_| panic!("{name} does not end")).unwrap();
    let [said, failed] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{name}: {}\n{said}\n{failed}", output.status);
    assert_eq!(failed, "", "{name} has nothing to complain about");
    said.into_owned()
}

async fn built(name: &str) -> PathBuf {
    let own = env::current_exe().unwrap();
    let file = format!("{name}{}", env::consts::EXE_SUFFIX);
    // The tests are in `deps`, beside `examples`.
    let program = own.parent().unwrap().parent().unwrap().join("examples").join(file);
    let _building = BUILDING.lock().await;
    if !program.exists() {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--package", "cinchona", "--example", name]);
        assert!(build.status().await.unwrap().success(), "{name} does not build");
    }
    program
}

macro_rules! shows {
    ($($name:ident: [$($line:expr),+ $(,)?],)*) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];

        mod each_ends_by_itself_and_shows {
            $(
                #[tokio::test]
                async fn $name() {
                    let said = super::run(stringify!($name)).await;
                    for line in [$($line),+] {
                        assert!(said.contains(line), "`{line}` is not in\n{said}");
                    }
                }
            )*
        }
    };
}

shows! {
    axum: [
        "gRPC: Hello, world!",
        "GET /: gRPC is on this port as well",
        "grpc_server_call_started_total{grpc_method=\"greeter.Greeter/SayHello\"} 1",
        "the server has ended: Ok(())",
    ],
    cluster: [
        "{\"node-1\", \"node-2\", \"node-3\"} answer, 0 calls fail",
        "node-2 crashes: {\"node-1\", \"node-3\"} answer, 0 calls fail",
        "detected: Some(NodeFailed { node: \"node-2\" })",
        "node-4 comes: {\"node-1\", \"node-3\", \"node-4\"} answer, 0 calls fail",
        "node-1 leaves: {\"node-3\", \"node-4\"} answer, 0 calls fail",
    ],
    exactly_once: [
        "not retried: 10 of 30 calls failed, the counter is 30",
        "retried without keys: 0 of 30 calls failed, the counter is 44",
        "retried with keys: 0 of 30 calls failed, the counter is 30",
    ],
    fault_injection: ["first=1 hang: Ok after 2 attempts", "8 cases, all as expected"],
    greeter: ["3 attempts, stopped: ", "Hello, world!", "grpc_client_call_retries_sum"],
    hedging: ["without hedges: p50", "with hedges: p50"],
    observed: ["/metrics", "grpc_client_call_hedges_sum"],
    service_config: [
        "with 2 attempts: The service is currently unavailable (not this time)",
        "with 5 attempts: Hello, world!",
    ],
    streaming: [
        "read: [1, 2, 3], then the server goes away; resuming from there",
        "read: [1, 2, 3, 4, 5, 6]",
        "sum: 5050",
        "double: [2, 4, 6]",
    ],
    tls_auth: [
        "with a token: Hello, world!",
        "without: Some(Unauthenticated)",
        "with a token that is renewed: Hello, world!",
    ],
}

#[tokio::test]
async fn the_one_that_is_observed_feeds_each_panel_of_the_grafana_dashboard() {
    let page = run("observed").await;
    let asked = asked();
    assert!(asked.len() > 30, "{asked:#?}");
    let missing = missing(&asked, &page);
    assert!(missing.is_empty(), "{missing:#?} is not in\n{page}");
    // Not only its name: something has happened.
    for counted in [
        "grpc_client_call_retries_sum",
        "grpc_client_call_hedges_sum",
        "cinchona_balance_calls_total",
        "cinchona_idempotency_executed_total",
        "cinchona_idempotency_replayed_total",
        "cinchona_fault_injected_total",
        "grpc_server_call_duration_seconds_count",
    ] {
        let values = page.lines().filter(|line| line.starts_with(counted));
        let values = values.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
        assert!(values.sum::<f64>() > 0.0, "{counted} is 0");
    }
}

#[test]
fn every_example_is_run_is_short_and_says_how_it_is_run() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let Some(name) = path.file_name().unwrap().to_str().unwrap().strip_suffix(".rs") else {
            continue;
        };
        found.insert(name.to_owned());
        let text = fs::read_to_string(&path).unwrap();
        let command = format!("`cargo run -p cinchona --example {name}`");
        assert!(text.contains(&command), "{name} says how it is run");
        assert!(!text.contains("calculator"), "{name} has nothing of the worked example");
        assert!(text.lines().count() <= 150, "{name} fits on a few screens");
    }
    assert_eq!(found, NAMES.iter().map(|&name| name.to_owned()).collect());
}
