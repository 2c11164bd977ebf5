//! The metrics as gRPC names them, and the text as Prometheus reads it.

use super::{PATH, TARGET, call, metrics, request};
use crate::{
    AttemptLayer, CallLayer, Metrics, ServerLayer,
    names::{self, Unit},
};
use cinchona_core::Methods;
use cinchona_testkit::{Answer, ScriptedServer, encode};
use prometheus_parse::{Scrape, Value};
use std::collections::{BTreeMap, BTreeSet};
use tower::Layer;

/// Name, type, unit and labels, from the tables of gRFC [A66] and [A96].
///
/// [A66]: https://github.com/grpc/proposal/blob/master/A66-otel-stats.md
/// [A96]: https://github.com/grpc/proposal/blob/master/A96-retry-otel-stats.md
const GRFC: [(&str, &str, &str, &[&str]); 13] = [
    ("grpc.client.attempt.started", "counter", "{attempt}", &CLIENT),
    ("grpc.client.attempt.duration", "histogram", "s", &CLIENT_ENDED),
    ("grpc.client.attempt.sent_total_compressed_message_size", "histogram", "By", &CLIENT_ENDED),
    ("grpc.client.attempt.rcvd_total_compressed_message_size", "histogram", "By", &CLIENT_ENDED),
    ("grpc.client.call.duration", "histogram", "s", &CLIENT_ENDED),
    ("grpc.client.call.retries", "histogram", "{retry}", &CLIENT),
    ("grpc.client.call.transparent_retries", "histogram", "{transparent_retry}", &CLIENT),
    ("grpc.client.call.hedges", "histogram", "{hedge}", &CLIENT),
    ("grpc.client.call.retry_delay", "histogram", "s", &CLIENT),
    ("grpc.server.call.started", "counter", "{call}", &["grpc.method"]),
    ("grpc.server.call.sent_total_compressed_message_size", "histogram", "By", &SERVER_ENDED),
    ("grpc.server.call.rcvd_total_compressed_message_size", "histogram", "By", &SERVER_ENDED),
    ("grpc.server.call.duration", "histogram", "s", &SERVER_ENDED),
];
const CLIENT: [&str; 2] = ["grpc.method", "grpc.target"];
const CLIENT_ENDED: [&str; 3] = ["grpc.method", "grpc.target", "grpc.status"];
const SERVER_ENDED: [&str; 2] = ["grpc.method", "grpc.status"];

/// A registry in which everything was counted once.
async fn full() -> Metrics {
    let metrics = Metrics::new(Methods::unknown()).with_unlisted(|path| path == PATH);
    let server = ScriptedServer::new([Answer::Ok(encode(&"seven".to_owned()))]);
    let server = ServerLayer::new(&metrics).layer(server);
    let client = AttemptLayer::new(&metrics, TARGET).layer(server);
    call(CallLayer::new(&metrics, TARGET).layer(client), request()).await.unwrap();
    let method = metrics.client(TARGET).get(PATH, || true);
    let (counted, writer) = method.own();
    let repeated = counted.repeated.get_or_init(Box::default);
    repeated.ended([2, 2, 2], writer);
    repeated.delay.record(&crate::series::LATENCY, 1_500_000_000, writer);
    metrics
}

/// By name: the type, and the labels of all samples but `le`.
fn families(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut found = BTreeMap::<_, (String, BTreeSet<String>)>::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').unwrap();
            current = name.to_owned();
            assert!(found.insert(current.clone(), (kind.into(), BTreeSet::new())).is_none());
        } else if !line.starts_with('#') {
            assert!(line.starts_with(&current), "{line} stands under {current}");
            let labels = line.split_once('{').unwrap().1.rsplit_once('}').unwrap().0;
            let names = labels.split(',').map(|label| label.split_once('=').unwrap().0);
            let names = names.filter(|name| *name != "le").map(str::to_owned);
            found.get_mut(&current).unwrap().1.extend(names);
        }
    }
    found
}

#[tokio::test(start_paused = true)]
async fn the_names_types_units_and_labels_are_those_of_the_grfcs() {
    let found = families(&full().await.render());
    assert_eq!(found.len(), GRFC.len(), "{found:#?}");
    for (name, kind, unit, labels) in GRFC {
        let suffix = match unit {
            "s" => "_seconds",
            "By" => "_bytes",
            _ => "",
        };
        let total = if kind == "counter" { "_total" } else { "" };
        let prometheus = format!("{}{suffix}{total}", name.replace('.', "_"));
        let labels = labels.iter().map(|label| label.replace('.', "_")).collect();
        assert_eq!(found.get(&prometheus), Some(&(kind.to_owned(), labels)), "{prometheus}");
    }
}

#[test]
fn the_list_of_names_is_the_grfcs_and_what_was_registered() {
    let metrics = metrics();
    metrics.gauge("cinchona.breaker.state", &[], || 0.0).unwrap();
    let mut expected: Vec<_> = GRFC.iter().map(|(name, ..)| (*name).to_owned()).collect();
    expected.push("cinchona.breaker.state".to_owned());
    expected.sort();
    assert_eq!(metrics.names(), expected);
}

#[test]
fn the_buckets_are_those_of_the_grfcs() {
    // Copied from A66, "Units".
    let latency = [
        0.0, 0.00001, 0.00005, 0.0001, 0.0003, 0.0006, 0.0008, 0.001, 0.002, 0.003, 0.004, 0.005,
        0.006, 0.008, 0.01, 0.013, 0.016, 0.02, 0.025, 0.03, 0.04, 0.05, 0.065, 0.08, 0.1, 0.13,
        0.16, 0.2, 0.25, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0,
    ];
    let size = [
        0.0,
        1024.0,
        2048.0,
        4096.0,
        16384.0,
        65536.0,
        262144.0,
        1048576.0,
        4194304.0,
        16777216.0,
        67108864.0,
        268435456.0,
        1073741824.0,
        4294967296.0,
    ];
    for instrument in names::ALL {
        let bounds: Vec<_> = instrument.bounds.iter().map(|b| instrument.unit.of(*b)).collect();
        let expected: &[f64] = match (instrument.name, instrument.unit) {
            // Copied from A96.
            ("grpc.client.call.retries" | "grpc.client.call.hedges", _) => {
                &[1.0, 2.0, 3.0, 4.0, 5.0]
            }
            ("grpc.client.call.transparent_retries", _) => &[1.0, 2.0, 3.0, 4.0, 5.0, 10.0],
            (_, Unit::Seconds) => &latency,
            (_, Unit::Bytes) => &size,
            (_, Unit::Count(_)) => &[],
        };
        assert_eq!(bounds, expected, "{}", instrument.name);
    }
}

#[tokio::test(start_paused = true)]
async fn a_prometheus_parser_reads_every_line() {
    let metrics = full().await;
    metrics.gauge("cinchona.breaker.state", &[("circuit", "a")], || 2.0).unwrap();
    metrics.counter("cinchona.dedup.replays", &[], || 3.0).unwrap();
    let text = metrics.render();
    let scrape = Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap();
    let find = |name: &str| scrape.samples.iter().find(|sample| sample.metric == name).unwrap();
    assert_eq!(find("cinchona_breaker_state").value, Value::Gauge(2.0));
    assert_eq!(find("cinchona_breaker_state").labels.get("circuit"), Some("a"));
    assert_eq!(find("cinchona_dedup_replays_total").value, Value::Counter(3.0));
    let delay = find("grpc_client_call_retry_delay_seconds");
    assert_eq!(delay.labels.get("grpc_target"), Some(TARGET));
    let Value::Histogram(buckets) = &delay.value else { panic!("{delay:?}") };
    let counts = |bound: f64| buckets.iter().find(|b| b.less_than == bound).unwrap().count;
    assert_eq!((buckets.len(), counts(1.0), counts(2.0)), (42, 0.0, 1.0));
    assert_eq!(counts(f64::INFINITY), 1.0);
    assert_eq!(find("grpc_client_call_retry_delay_seconds_sum").value, Value::Untyped(1.5));

    // The parser leaves out what it does not understand, and puts a histogram's buckets together.
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let buckets = lines.clone().filter(|line| line.contains("_bucket{")).count();
    let read = scrape.samples.iter().map(|sample| match &sample.value {
        Value::Histogram(buckets) => (0, buckets.len()),
        _ => (1, 0),
    });
    let read = read.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    assert_eq!(read, (lines.count() - buckets, buckets));
}

#[tokio::test(start_paused = true)]
async fn the_values_of_labels_are_escaped() {
    let metrics = metrics();
    let target = "a\"b\\c\nd,e=f}";
    let server = ScriptedServer::new([Answer::Hang]);
    drop(CallLayer::new(&metrics, target).layer(server).call_once());
    metrics.gauge("x", &[("y", "\n\"\\")], || 1.0).unwrap();
    let text = metrics.render();
    assert!(text.contains(r#"grpc_target="a\"b\\c\nd,e=f}""#), "{text}");
    assert!(text.contains("x{y=\"\\n\\\"\\\\\"} 1\n"), "{text}");
    assert!(text.lines().all(|line| line.starts_with('#') || line.contains("} ")));
}

#[test]
fn a_metric_is_described_in_a_line() {
    let metrics = metrics();
    metrics.describe("never.registered", "Nothing.");
    metrics.describe("x.y", "At first.");
    metrics.gauge("x.y", &[], || 1.0).unwrap();
    metrics.describe("x.y", "With \"quotes\", \\ and\ntwo lines.");
    let text = "# HELP x_y With \"quotes\", \\\\ and\\ntwo lines.\n# TYPE x_y gauge\nx_y 1\n";
    assert_eq!(metrics.render(), text);
    assert!(!metrics.names().contains(&"never.registered".to_owned()));
}

trait CallOnce {
    type Future;
    fn call_once(self) -> Self::Future;
}

impl<S: tower::Service<http::Request<tonic::body::Body>>> CallOnce for S {
    type Future = S::Future;
    fn call_once(mut self) -> S::Future {
        self.call(request())
    }
}

#[test]
fn registered_numbers_are_read_on_demand() {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };
    let (metrics, asked) = (metrics(), Arc::new(AtomicU64::new(0)));
    let count = asked.clone();
    let next = move || count.fetch_add(1, Ordering::Relaxed) as f64;
    metrics.counter("cinchona.shed", &[("priority", "low")], next).unwrap();
    metrics.counter("cinchona.shed", &[("priority", "high")], || 7.0).unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    assert!(metrics.render().contains("cinchona_shed_total{priority=\"low\"} 0\n"));
    let text = metrics.render();
    assert!(text.contains("cinchona_shed_total{priority=\"low\"} 1\n"), "{text}");
    assert!(text.contains("cinchona_shed_total{priority=\"high\"} 7\n"));
    assert_eq!(text.matches("# TYPE cinchona_shed_total counter").count(), 1);

    metrics.counter("cinchona.shed", &[("priority", "low")], || 9.0).unwrap();
    let text = metrics.render();
    assert!(text.contains("{priority=\"low\"} 9\n") && !text.contains("{priority=\"low\"} 2\n"));
}

#[test]
fn non_finite_numbers_are_written_as_in_prometheus() {
    let metrics = metrics();
    for (name, value) in [("a", f64::NAN), ("b", f64::INFINITY), ("c", f64::NEG_INFINITY)] {
        metrics.gauge(name, &[], move || value).unwrap();
    }
    metrics.gauges("none", |_| {}).unwrap();
    let text = "# TYPE a gauge\na NaN\n# TYPE b gauge\nb +Inf\n# TYPE c gauge\nc -Inf\n";
    assert_eq!(metrics.render(), text, "and a metric without samples is left out");
}

#[test]
fn names_that_would_break_the_page_are_refused() {
    let metrics = metrics();
    metrics.gauge("taken", &[], || 0.0).unwrap();
    metrics.gauge("sum.total", &[], || 0.0).unwrap();
    metrics.counter("a.b", &[], || 0.0).unwrap();
    for (name, label, rule) in [
        ("", "x", "a letter"),
        ("9", "x", "a letter"),
        ("a b", "x", "a letter"),
        ("a\nb", "x", "a letter"),
        ("grpc.client.call.duration", "x", "not taken"),
        ("grpc_client.attempt_started", "x", "not taken"),
        ("taken", "x", "not both"),
        ("sum", "x", "not both"),
        ("a_b", "x", "more than dots"),
        ("fine", "", "a letter"),
        ("fine", "a-b", "a letter"),
    ] {
        let refused = metrics.counter(name, &[(label, "")], || 0.0).unwrap_err().to_string();
        assert!(refused.contains(rule), "{refused}");
    }
}
