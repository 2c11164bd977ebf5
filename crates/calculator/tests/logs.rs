//! The logs of the programs: lines of JSON, and spans and metrics for a collector.

use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    common::v1::any_value::Value as AnyValue,
    trace::v1::Span,
};
use outside::{Server, ask, client, http};
use serde_json::Value;
use std::sync::{Arc, Mutex};
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

/// The ids that a line of a log has in its spans.
fn ids(line: &Value) -> Vec<&str> {
    let spans = line["spans"].as_array().into_iter().flatten();
    spans.filter_map(|span| span["request_id"].as_str()).collect()
}

#[cfg(unix)]
#[test]
fn every_line_of_a_call_is_json_and_has_its_request_id() {
    let levels = ("RUST_LOG", "info,cinchona_observe=debug");
    let server =
        Server::logging(levels, &["--log", "json", "--failure-rate", "0.5", "--seed", "1"]);
    let calls = ["r-1", "r-2", "r-3", "r-4"];
    for id in calls {
        let addr = ["--addr", &server.addr, "--request-id", id, "--max-retries", "0"];
        ask(&[&["add", "10", "5"], &addr[..]].concat());
    }
    let logged = server.stop();
    let lines: Vec<Value> = logged
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    // What is said of no call has no span.
    let of_calls: Vec<_> = lines.iter().filter(|line| line["spans"].is_array()).collect();
    assert!(of_calls.iter().all(|line| ids(line).len() == 1), "{logged}");
    for id in calls {
        let ended = of_calls.iter().filter(|line| {
            let said = line["fields"]["message"].as_str();
            ids(line) == [id] && matches!(said, Some("ended" | "failed"))
        });
        assert_eq!(ended.count(), 1, "{id}: {logged}");
    }
    let failed = of_calls.iter().filter(|line| line["level"] == "ERROR").count();
    assert!(0 < failed && failed < calls.len(), "the seed makes some fail, not all: {logged}");
}

#[cfg(unix)]
#[test]
fn no_secret_and_no_message_is_in_a_line_of_a_log() {
    const TRACED: (&str, &str) = ("RUST_LOG", "info,cinchona=trace,calculator=trace");
    let server = Server::logging(
        TRACED,
        &[
            &["--fault", "every=2 status=UNAVAILABLE:busy"],
            &["--fault-token", "swordfish", "--dashboard", "127.0.0.1:0"][..],
        ]
        .concat(),
    );
    let page = server.says("dashboard on ");
    let (to, retries) = (["--addr", &server.addr], ["--retry-on", "unavailable"]);
    let fast = ["--backoff", "1ms", "--jitter", "0s"];
    let mut logged = String::new();
    for operation in [["set", "hunter1", "hunter2"], ["append", "hunter1", "hunter3"]] {
        let mut client = client(&[&operation[..], &to, &retries, &fast].concat());
        let output = client.env(TRACED.0, TRACED.1).output().unwrap();
        logged.push_str(&String::from_utf8(output.stderr).unwrap());
    }
    let rule = r#"{"id": "a", "rule": "status=UNAVAILABLE ttl=1s"}"#;
    for token in ["swordfish", "hunter6"] {
        let change = format!("POST /api/faults HTTP/1.1\r\nauthorization: Bearer {token}");
        http(&page, &change, rule);
    }
    logged.push_str(&server.stop());
    assert!(
        logged.contains("attempt failed, retrying") && logged.contains("UNAVAILABLE"),
        "{logged}"
    );
    for secret in ["hunter", "swordfish"] {
        let line = logged.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
    }
}

/// Keeps the spans and the metrics that it is sent.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    metrics: Arc<Mutex<Vec<ExportMetricsServiceRequest>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.spans.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.metrics.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

impl Collector {
    /// The names of all metrics, of either program.
    fn metrics(&self) -> Vec<String> {
        let requests = self.metrics.lock().unwrap();
        let of = requests.iter().flat_map(|request| &request.resource_metrics);
        let metrics = of.flat_map(|of| &of.scope_metrics).flat_map(|of| &of.metrics);
        metrics.map(|metric| metric.name.clone()).collect()
    }

    fn spans(&self, name: &str) -> Vec<Span> {
        let requests = self.spans.lock().unwrap();
        let of = requests.iter().flat_map(|request| &request.resource_spans);
        let spans = of.flat_map(|of| &of.scope_spans).flat_map(|of| &of.spans);
        spans.filter(|span| span.name == name).cloned().collect()
    }
}

// real clock: the programs are processes.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn spans_of_client_and_server_are_one_trace_and_are_flushed_with_the_metrics_at_the_end() {
    let (collector, incoming) =
        (Collector::default(), TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap());
    let url = format!("http://{}", incoming.local_addr().unwrap());
    let serving = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(collector.clone()))
        .add_service(MetricsServiceServer::new(collector.clone()));
    tokio::spawn(serving.serve_with_incoming(incoming));
    let logged = tokio::task::spawn_blocking(move || {
        let server = Server::logging(("RUST_LOG", "warn"), &["--otlp", &url]);
        let answer = ask(&["add", "10", "5", "--addr", &server.addr, "--otlp", &url]);
        let addr = server.addr.clone();
        server.stop();
        (answer, addr)
    });
    let (answer, addr) = logged.await.unwrap();
    assert_eq!(answer.1, "15\n");
    let [call, attempt, served] = ["Sent", "Attempt", "Recv"].map(|kind| {
        let found = collector.spans(&format!("{kind}.calculator.Calculator.Add"));
        let [span] = &found[..] else { panic!("{kind}: {found:#?}") };
        span.clone()
    });
    let mut attributes = attempt.attributes.iter();
    let endpoint = attributes.find(|attribute| attribute.key == "endpoint").unwrap();
    let endpoint = endpoint.value.clone().and_then(|value| value.value);
    assert_eq!(endpoint, Some(AnyValue::StringValue(addr)), "where the balancer sent it");
    assert_eq!((attempt.parent_span_id, served.parent_span_id), (call.span_id, attempt.span_id));
    assert_eq!((&attempt.trace_id, &served.trace_id), (&call.trace_id, &call.trace_id));
    let metrics = collector.metrics();
    for name in [
        "grpc.client.call.duration",
        "grpc.client.attempt.duration",
        "grpc.lb.outlier_detection.ejections_enforced",
        "cinchona.retry.budget_tokens",
        "grpc.server.call.duration",
        "cinchona.shed.in_progress",
    ] {
        assert!(metrics.iter().any(|sent| sent == name), "{name}: {metrics:?}");
    }
}

#[test]
fn a_collector_that_is_none_or_down_is_said() {
    let (code, _, error) = ask(&["add", "1", "2", "--otlp", "collector:4317"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("endpoint: a scheme other than http is not allowed"), "{error}");
    let server = Server::start(&[]);
    let down = ["--otlp", "http://127.0.0.1:9", "--addr", &server.addr];
    let (code, out, error) = ask(&[&["add", "1", "2"], &down[..]].concat());
    assert_eq!((code, out.as_str()), (Some(0), "3\n"), "the call is none the worse for it");
    for part in ["the collector did not take all spans", "code=Unavailable why=\"tcp connect"] {
        assert!(error.contains(part), "{error}");
    }
}
