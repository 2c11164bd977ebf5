//! A real Prometheus, which reads what the programs count and answers what Grafana asks it.

use cinchona::{core::Methods, observe::Metrics};
use outside::{Paged, Server, http, needed, within};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// What has not happened here has no series.
const NEVER: [&str; 2] =
    ["grpc_client_call_transparent_retries_sum", "grpc_client_call_hedges_sum"];

/// A Prometheus with files of its own, which is killed when it is dropped.
struct Prometheus {
    process: Child,
    addr: String,
    _dir: TempDir,
}

impl Prometheus {
    /// One that reads from `pages`.
    fn start(pages: &[String]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "scrape_configs: [{{job_name: calculator, scrape_interval: 1s, scrape_timeout: 1s, \
             static_configs: [{{targets: {pages:?}}}]}}]"
        );
        fs::write(dir.path().join("prometheus.yml"), config).unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let process = Command::new(needed("prometheus", "prometheus"))
            .current_dir(dir.path())
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .arg(format!("--web.listen-address={free}"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, addr: free.to_string(), _dir: dir }
    }

    /// How many series the answer to `query` has; `None` until it listens.
    fn series(&self, query: &str) -> Option<usize> {
        std::net::TcpStream::connect(&self.addr).ok()?;
        let query: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let answer = http(&self.addr, &format!("GET /api/v1/query?query={query} HTTP/1.0"), "");
        let answer = answer.split_once("\r\n\r\n").unwrap().1;
        let answer: Value = serde_json::from_str(answer).unwrap();
        assert_eq!(answer["status"], "success", "{answer}");
        Some(answer["data"]["result"].as_array().unwrap().len())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

/// What Grafana asks for each panel.
fn queries() -> Vec<String> {
    let dashboard = fs::read_to_string(within("crates/observe/grafana.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    for panel in panels {
        assert!(panel["title"].is_string() && panel["gridPos"]["w"].is_u64(), "{panel}");
    }
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let query = |target: &Value| target["expr"].as_str().unwrap().to_owned();
    targets.map(query).collect()
}

/// What `promtool` has to say against it.
fn lint(metrics: &str) -> String {
    let mut tool = Command::new(needed("promtool", "prometheus"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    tool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let said = tool.wait_with_output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr))
}

/// The metrics that a query is about.
fn metrics(query: &str) -> impl Iterator<Item = &str> {
    let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let labels = ["grpc_method", "grpc_status", "grpc_lb_outlier_detection_detection_method"];
    words.filter(move |word| {
        !labels.contains(word) && (word.starts_with("grpc_") || word.starts_with("cinchona_"))
    })
}

/// A server and a client with metrics, and the addresses of these.
fn programs() -> (Server, Paged, [String; 2]) {
    let server = ["--dashboard", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--limit", "100"];
    let fault = ["--quota", "1000", "--fault", "rate=0.5 status=UNAVAILABLE"];
    let server = Server::start(&[&server[..], &fault[..]].concat());
    server.says("gossip on ");
    let served = server.says("dashboard on ");
    let load = ["--addr", &server.addr, "--breaker", "default", "--retry-on", "unavailable"];
    let load = Paged::load(&load);
    let pages = [served, load.page.clone()];
    (server, load, pages)
}

/// The metrics of a program.
fn text(page: &str) -> String {
    http(page, "GET /metrics", "").split_once("\r\n\r\n").unwrap().1.to_owned()
}

// real clock: the programs are processes.
#[tokio::test]
async fn the_grafana_dashboard_asks_for_nothing_that_is_not_there() {
    let (_server, _load, pages) = programs();
    let queries = queries();
    assert!(queries.len() > 30);
    let mut asked: BTreeSet<&str> = queries.iter().flat_map(|query| metrics(query)).collect();
    let known = Metrics::new(Methods::unknown()).names();
    let is_known = |never: &&str| {
        known.iter().any(|name| format!("{}_sum", name.replace('.', "_")) == **never)
    };
    assert!(NEVER.iter().all(is_known));
    asked.retain(|name| !NEVER.contains(name));
    let began = Instant::now();
    while !asked.is_empty() {
        assert!(Instant::now() - began < Duration::from_secs(60), "nothing of {asked:#?}");
        sleep(Duration::from_millis(100)).await;
        let text = pages.each_ref().map(|page| text(page)).concat();
        assert_eq!(text.matches("# HELP ").count(), text.matches("# TYPE ").count(), "{text}");
        let has =
            |name: &str| [" ", "{"].iter().any(|end| text.contains(&format!("\n{name}{end}")));
        asked.retain(|name| !has(name));
    }
}

// real clock: Prometheus is a process.
#[tokio::test]
#[ignore = "needs prometheus"]
async fn prometheus_has_something_to_show_in_each_panel_of_the_grafana_dashboard() {
    let (_server, _load, pages) = programs();
    let prometheus = Prometheus::start(&pages);
    let mut open: BTreeMap<String, Option<usize>> =
        queries().into_iter().map(|query| (query, None)).collect();
    let began = Instant::now();
    while !open.is_empty() {
        assert!(Instant::now() - began < Duration::from_secs(60), "nothing for {open:#?}");
        sleep(Duration::from_millis(500)).await;
        for (query, series) in &mut open {
            let query = query.replace("$__rate_interval", "1m").replace("$method", ".*");
            *series = prometheus.series(&query);
        }
        let is_open = |query: &str, series: Option<usize>| {
            series.is_none_or(|series| series == 0 && !metrics(query).any(|of| NEVER.contains(&of)))
        };
        open.retain(|query, series| is_open(query, *series));
    }
    for page in &pages {
        assert_eq!(lint(&text(page)), "");
    }
}
