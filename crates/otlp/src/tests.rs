//! A real client with retries, a real server, and a collector, over HTTP/2 in memory.

use crate::{Exporter, OtlpLayer, export, export_metrics, export_metrics_over, export_over};
use bytes::Bytes;
use cinchona_core::{BoxError, Methods};
use cinchona_observe::{AttemptLayer, CallLayer, CallSettings, Metrics, ServerLayer, TraceContext};
use cinchona_plumbing::cause::find_cause;
use cinchona_retry::{Ledger, RetryLayer, RetryPolicy};
use cinchona_testkit::{Answer, Network, ScriptedServer, encode};
use http_body_util::{BodyExt, Full};
use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::{Metric, metric::Data, number_data_point},
    trace::v1::{Span, span::SpanKind},
};
use std::{
    error::Error,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, timeout};
use tonic::{
    Code, Request, Response, Status, body::Body, service::interceptor::InterceptedService,
    transport::Server,
};
use tower::{Layer, ServiceExt};
use tracing::{Instrument, subscriber::DefaultGuard};
use tracing_subscriber::{layer::SubscriberExt, registry};

const PATH: &str = "/calculator.Calculator/Add";
const SECOND: Duration = Duration::from_secs(1);

/// Keeps the requests that it receives.
#[derive(Clone, Default)]
struct Collector(
    Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    Arc<Mutex<Vec<ExportMetricsServiceRequest>>>,
);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.1.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

impl Collector {
    fn start() -> (Self, Network) {
        let (collector, network) = (Self::default(), Network::new());
        let server = Server::builder()
            .add_service(TraceServiceServer::new(collector.clone()))
            .add_service(MetricsServiceServer::new(collector.clone()));
        tokio::spawn(server.serve_with_incoming(network.incoming()));
        (collector, network)
    }

    fn spans(&self) -> Vec<Span> {
        let requests = self.0.lock().unwrap();
        let of = requests.iter().flat_map(|request| &request.resource_spans);
        of.flat_map(|of| &of.scope_spans).flat_map(|of| &of.spans).cloned().collect()
    }
}

/// The metric of this name in the last request.
#[track_caller]
fn sent(collector: &Collector, name: &str) -> Metric {
    let requests = collector.1.lock().unwrap();
    let [of] = &requests.last().unwrap().resource_metrics[..] else { panic!("one resource") };
    let mut metrics = of.scope_metrics.iter().flat_map(|of| &of.metrics);
    metrics.find(|metric| metric.name == name).unwrap_or_else(|| panic!("no {name}")).clone()
}

/// The thread's spans go to the collector until the guard is dropped.
fn subscribed((layer, exporter): (OtlpLayer, Exporter)) -> (Exporter, DefaultGuard) {
    let subscriber = registry().with(layer);
    (exporter, cinchona_testkit::subscribe(subscriber))
}

fn serve(script: impl IntoIterator<Item = Answer>) -> Network {
    let network = Network::new();
    let metrics = Metrics::new(Methods::unknown());
    let routes = ScriptedServer::new(script).routes();
    let server = Server::builder().layer(ServerLayer::new(&metrics)).add_routes(routes);
    tokio::spawn(server.serve_with_incoming(network.incoming()));
    network
}

fn stopped(outcome: Result<&http::Extensions, &(dyn Error + 'static)>) -> Option<String> {
    let ledger = match outcome {
        Ok(extensions) => extensions.get::<Ledger>(),
        Err(error) => find_cause::<Ledger>(error),
    };
    ledger.map(|ledger| ledger.stopped().to_string())
}

/// Calls through a client that retries.
async fn call(network: &Network) -> Result<(), BoxError> {
    counted_call(network, &Metrics::new(Methods::unknown())).await
}

async fn counted_call(network: &Network, metrics: &Metrics) -> Result<(), BoxError> {
    let policy = RetryPolicy::default().with_codes([Code::Unavailable])?;
    let retry = RetryLayer::new(policy, Methods::all_idempotent());
    let attempts = AttemptLayer::new(metrics, "calculator").layer(network.channel());
    let client = CallSettings::new("calculator").with_story(stopped).layer(metrics);
    let message = Full::new(Bytes::from_static(&[0, 0, 0, 0, 2, 8, 7]));
    let request = http::Request::post(format!("http://server{PATH}")).body(Body::new(message))?;
    let response = client.layer(retry.layer(attempts)).oneshot(request).await?;
    _ = response.into_body().collect().await;
    Ok(())
}

fn unavailable() -> Answer {
    Answer::Status(Status::unavailable("a secret"))
}

fn ok() -> Answer {
    Answer::Ok(encode(&7_u32))
}

#[track_caller]
fn attribute(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    let value = found.and_then(|KeyValue { value, .. }| value.clone()?.value);
    match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(is)) => is.to_string(),
        other => panic!("{key}: {other:?} of {span:#?}"),
    }
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    let mut found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    found.sort_by_key(|span| span.start_time_unix_nano);
    found
}

#[tokio::test(start_paused = true)]
async fn a_call_its_attempts_and_what_the_server_did_are_one_trace() {
    let ((collector, to), network) = (Collector::start(), serve([unavailable(), ok()]));
    let (exporter, _default) = subscribed(export_over(to.channel(), "calculator-client"));
    call(&network).await.unwrap();
    exporter.flush(SECOND).await.unwrap();
    let spans = collector.spans();
    let [call] = named(&spans, "Sent.calculator.Calculator.Add")[..] else { panic!("{spans:#?}") };
    let attempts = named(&spans, "Attempt.calculator.Calculator.Add");
    let served = named(&spans, "Recv.calculator.Calculator.Add");
    assert_eq!((spans.len(), attempts.len(), served.len()), (5, 2, 2));
    assert!(spans.iter().all(|span| span.trace_id == call.trace_id));
    assert!(call.parent_span_id.is_empty(), "it begins the trace");
    for (n, (attempt, served)) in attempts.iter().zip(&served).enumerate() {
        assert_eq!(attempt.parent_span_id, call.span_id);
        assert_eq!(served.parent_span_id, attempt.span_id, "the server's is under the attempt");
        assert_eq!(attribute(attempt, "attempt"), (n + 1).to_string());
        assert_eq!((attempt.kind(), served.kind()), (SpanKind::Client, SpanKind::Server));
        assert!(attempt.start_time_unix_nano <= attempt.end_time_unix_nano);
        for span in [call, attempt, served] {
            assert_eq!(attribute(span, "rpc.system"), "grpc");
            assert_eq!(attribute(span, "rpc.service"), "calculator.Calculator");
            assert_eq!(attribute(span, "rpc.method"), "Add");
        }
    }
    assert_eq!(attribute(call, "stopped"), "succeeded");
    assert_eq!(attribute(call, "attempts"), "2");
    assert_eq!(attribute(attempts[0], "verdict"), "MaybeProcessed(Unavailable)");
    assert_eq!(attribute(attempts[1], "verdict"), "Ok");
    assert_eq!(attribute(attempts[1], "kind"), "retry");
    assert_eq!(attempts[0].status.as_ref().map(|status| status.code), Some(2), "an error");
    let waited = attempts[1].start_time_unix_nano - attempts[0].end_time_unix_nano;
    assert!(waited > 0, "between them it waited");
    let service = &collector.0.lock().unwrap()[0].resource_spans[0].resource.clone().unwrap();
    assert_eq!(service.attributes[0].key, "service.name");
}

#[tokio::test(start_paused = true)]
async fn the_spans_of_the_application_are_exported_and_calls_in_them_join_their_trace() {
    let ((collector, to), network) = (Collector::start(), serve([ok()]));
    let retry = RetryLayer::new(RetryPolicy::default(), Methods::all_idempotent());
    let (exporter, _default) = subscribed(export_over(retry.layer(to.channel()), "shop"));
    let outer = tracing::info_span!("checkout", items = 3);
    // A field named id of an application is not ours.
    let (trace_id, span_id) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let inner = tracing::info_span!(parent: &outer, "payment", trace_id, span_id);
    let paying = async {
        call(&network).await.unwrap();
        tracing::info!(amount = 7, "paid");
        call(&network).await.unwrap();
    };
    paying.instrument(inner).await;
    drop(outer);
    assert_eq!(TraceContext::current(), None, "nothing is left behind");
    exporter.flush(SECOND).await.unwrap();
    let spans = collector.spans();
    let ([outer], [inner]) = (&named(&spans, "checkout")[..], &named(&spans, "payment")[..]) else {
        panic!("{spans:#?}")
    };
    assert_eq!((&inner.parent_span_id, outer.parent_span_id.len()), (&outer.span_id, 0));
    assert_eq!(attribute(outer, "items"), "3");
    let ids = ["trace_id", "span_id"].map(|key| attribute(inner, key));
    assert_eq!(ids, [trace_id, span_id]);
    let calls = named(&spans, "Sent.calculator.Calculator.Add");
    assert_eq!(calls.len(), 2);
    assert!(calls.iter().all(|call| call.parent_span_id == inner.span_id));
    assert!(spans.iter().all(|span| span.trace_id == outer.trace_id), "{spans:#?}");
    let event = inner.events.iter().find(|event| event.name == "paid").unwrap();
    assert!(event.attributes.iter().any(|attribute| attribute.key == "amount"));
}

/// Calls a server, which calls another, with these headers; returns the headers that the other
/// receives.
async fn relayed(traceparent: &str) -> http::HeaderMap {
    let last = ScriptedServer::new([ok()]);
    let metrics = Metrics::new(Methods::unknown());
    let client = CallLayer::new(&metrics, "last").layer(last.clone());
    let relay = ServerLayer::new(&metrics).layer(tower::service_fn(move |_| {
        let client = client.clone();
        async move {
            let request = http::Request::post(PATH).body(Body::empty())?;
            let span = tracing::info_span!("handler");
            client.oneshot(request).instrument(span).await.map_err(BoxError::from)
        }
    }));
    let request = http::Request::post(PATH).header("traceparent", traceparent);
    let request = request.header("tracestate", "vendor=1").body(Body::empty()).unwrap();
    relay.oneshot(request).await.unwrap();
    last.received()[0].headers.clone()
}

#[tokio::test(start_paused = true)]
async fn the_tracestate_of_vendors_is_propagated_through_a_server() {
    let (_, to) = Collector::start();
    let (_exporter, _default) = subscribed(export_over(to.channel(), "relay"));
    let headers = relayed("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").await;
    assert_eq!(headers["tracestate"], "vendor=1");
    let trace_id = TraceContext::of(&headers).unwrap().trace_id();
    assert_eq!(trace_id, "4bf92f3577b34da6a3ce929d0e0e4736");
}

#[tokio::test(start_paused = true)]
async fn a_trace_that_its_caller_does_not_record_is_not_sent_and_stays_so_further_on() {
    let (collector, to) = Collector::start();
    let (exporter, _default) = subscribed(export_over(to.channel(), "relay"));
    let headers = relayed("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00").await;
    assert!(!TraceContext::of(&headers).unwrap().is_sampled());
    exporter.flush(SECOND).await.unwrap();
    assert_eq!(collector.spans(), []);
    relayed("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").await;
    exporter.flush(SECOND).await.unwrap();
    assert_eq!(collector.spans().len(), 3, "the server's, the handler's and the client's");
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_is_down_neither_blocks_nor_fails_a_call() {
    let (down, network) = (Network::new(), serve([ok()]));
    // It accepts connections and never answers.
    let (exporter, _default) = subscribed(export_over(down.channel(), "calculator"));
    for _ in 0..1_000 {
        let began = Instant::now();
        call(&network).await.unwrap();
        assert_eq!(Instant::now() - began, Duration::ZERO, "virtual time: it waited for nothing");
    }
    assert!(exporter.lost() >= 3_000 - 2_048 - 512, "what is too much is lost, not kept");
    let flushed = timeout(10 * SECOND, exporter.flush(SECOND)).await.unwrap();
    let status = flushed.expect_err("and the flush gives up in time");
    assert_eq!(status.message(), "the collector took over 1s");
}

/// The result of a flush of one span to a collector that answers by `script`, how many spans are
/// lost, and how many requests there were.
async fn flushed_by(script: impl IntoIterator<Item = Answer>) -> (Result<(), Status>, u64, usize) {
    let (server, network) = (ScriptedServer::new(script), Network::new());
    let _serving = network.serve_service(server.clone());
    let (exporter, _default) = subscribed(export_over(network.channel(), "calculator"));
    tracing::info_span!("checkout").in_scope(|| {});
    let flushed = exporter.flush(120 * SECOND).await;
    (flushed, exporter.lost(), server.attempts())
}

#[tokio::test(start_paused = true)]
async fn spans_are_sent_again_where_otlp_has_a_client_retry_and_else_are_lost() {
    let taken = || Answer::Ok(encode(&ExportTraceServiceResponse::default()));
    let (flushed, lost, asked) = flushed_by([unavailable(), unavailable(), taken()]).await;
    assert!(flushed.is_ok() && (lost, asked) == (0, 3), "{flushed:?}");
    let (flushed, lost, asked) = flushed_by([unavailable(), unavailable(), unavailable()]).await;
    assert_eq!((flushed.unwrap_err().code(), lost, asked), (Code::Unavailable, 1, 3));
    let (flushed, lost, asked) =
        flushed_by([Answer::Status(Status::permission_denied("no"))]).await;
    assert_eq!((flushed.unwrap_err().message(), lost, asked), ("no", 1, 1));
    let partial_success =
        Some(ExportTracePartialSuccess { rejected_spans: 1, error_message: "too old".to_owned() });
    let partial = ExportTraceServiceResponse { partial_success };
    let (flushed, lost, asked) = flushed_by([Answer::Ok(encode(&partial))]).await;
    assert_eq!((flushed.unwrap_err().message(), lost, asked), ("too old", 1, 1));
}

/// A status of `code` whose details hold a `google.rpc.RetryInfo` with this delay in seconds.
fn throttled(code: Code, delay: Option<u8>) -> Status {
    const NAME: &[u8] = b"type.googleapis.com/google.rpc.RetryInfo";
    let delay = delay.map_or(vec![], |seconds| vec![0x0a, 2, 0x08, seconds]);
    let any = [&[0x0a, NAME.len() as u8], NAME, &[0x12, delay.len() as u8], &delay].concat();
    let details = [&[0x1a, any.len() as u8], &any[..]].concat();
    Status::with_details(code, "later", details.into())
}

#[tokio::test(start_paused = true)]
async fn spans_are_sent_again_when_the_collector_asks_and_if_exhausted_only_then() {
    let taken = || Answer::Ok(encode(&ExportTraceServiceResponse::default()));
    let mut pushed = Status::resource_exhausted("later");
    pushed.metadata_mut().insert("grpc-retry-pushback-ms", "7000".parse().unwrap());
    let mut stopped = throttled(Code::Unavailable, Some(5));
    stopped.metadata_mut().insert("grpc-retry-pushback-ms", "-1".parse().unwrap());
    for (status, waits) in [
        (throttled(Code::ResourceExhausted, Some(5)), Some(5)),
        (throttled(Code::Unavailable, Some(20)), Some(20)),
        (throttled(Code::Unavailable, Some(100)), Some(60)),
        (pushed, Some(7)),
        (Status::resource_exhausted("full"), None),
        (throttled(Code::PermissionDenied, Some(5)), None),
        (stopped, None),
    ] {
        let began = Instant::now();
        let (flushed, lost, asked) = flushed_by([Answer::Status(status.clone()), taken()]).await;
        match waits {
            Some(seconds) => {
                // A batch waits for a second span for 1 s, and the flush came before that.
                let took = Instant::now() - began;
                assert!((lost, asked) == (0, 2) && flushed.is_ok(), "{status:?} {flushed:?}");
                assert!(took >= seconds * SECOND, "{status:?}: {took:?}");
                assert!(took <= (seconds + 1) * SECOND, "{status:?}: {took:?}");
            }
            None => assert_eq!((lost, asked), (1, 1), "{status:?} {flushed:?}"),
        }
    }
    // It is exhausted and will recover, without a time.
    let (flushed, lost, asked) =
        flushed_by([Answer::Status(throttled(Code::ResourceExhausted, None)), taken()]).await;
    assert!(flushed.is_ok() && (lost, asked) == (0, 2), "{flushed:?}");
}

#[tokio::test(start_paused = true)]
async fn metrics_are_not_sent_before_the_collector_says() {
    let throttled = Answer::Status(throttled(Code::ResourceExhausted, Some(30)));
    let (server, network) = (ScriptedServer::new([throttled]), Network::new());
    let _serving = network.serve_service(server.clone());
    let metrics = Metrics::new(Methods::unknown());
    let _exporter = export_metrics_over(&metrics, network.channel(), "calculator", SECOND).unwrap();
    tokio::time::sleep(29 * SECOND).await;
    assert_eq!(server.attempts(), 1);
    tokio::time::sleep(3 * SECOND).await;
    assert_eq!(server.attempts(), 2);
}

#[tokio::test(start_paused = true)]
async fn metrics_are_sent_as_grpc_names_them_and_cumulative() {
    let ((collector, to), network) = (Collector::start(), serve([unavailable(), ok()]));
    let metrics = Metrics::new(Methods::unknown()).with_unlisted(|path| path == PATH);
    metrics.gauge("cinchona.breaker.state", &[("circuit", "a:1")], || 2.0).unwrap();
    let exporter =
        export_metrics_over(&metrics, to.channel(), "calculator-client", 60 * SECOND).unwrap();
    counted_call(&network, &metrics).await.unwrap();
    assert_eq!(collector.1.lock().unwrap().len(), 0, "it is not due yet");
    tokio::time::sleep(61 * SECOND).await;
    assert_eq!(collector.1.lock().unwrap().len(), 1);
    counted_call(&network, &metrics).await.unwrap();
    exporter.flush(SECOND).await.unwrap();

    let of = |key: &str, attributes: &[KeyValue]| {
        let found = attributes.iter().find(|attribute| attribute.key == key);
        let value = found.and_then(|attribute| attribute.value.clone()?.value);
        let Some(Value::StringValue(text)) = value else { panic!("{key}") };
        text
    };
    let duration = sent(&collector, "grpc.client.call.duration");
    assert_eq!(duration.unit, "s");
    let Some(Data::Histogram(histogram)) = duration.data else { panic!("a histogram") };
    assert_eq!(histogram.aggregation_temporality, 2, "cumulative");
    let [point] = &histogram.data_points[..] else { panic!("one series") };
    assert_eq!(point.count, 2, "that of before, and the one since");
    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
    assert!(point.start_time_unix_nano < point.time_unix_nano);
    assert_eq!(of("grpc.method", &point.attributes), "calculator.Calculator/Add");
    assert_eq!(of("grpc.target", &point.attributes), "calculator");
    assert_eq!(of("grpc.status", &point.attributes), "OK");

    let started = sent(&collector, "grpc.client.attempt.started");
    assert_eq!(started.unit, "{attempt}");
    let Some(Data::Sum(sum)) = started.data else { panic!("a counter") };
    let three = Some(number_data_point::Value::AsDouble(3.0));
    assert!(sum.is_monotonic && sum.data_points[0].value == three, "one was a retry");

    let Some(Data::Gauge(gauge)) = sent(&collector, "cinchona.breaker.state").data else {
        panic!("a gauge")
    };
    assert_eq!(of("circuit", &gauge.data_points[0].attributes), "a:1");
}

#[tokio::test(start_paused = true)]
async fn metrics_that_a_collector_did_not_take_are_in_those_that_it_takes() {
    let ((collector, to), network) = (Collector::start(), serve([ok()]));
    let metrics = Metrics::new(Methods::unknown());
    let exporter = export_metrics_over(&metrics, to.channel(), "calculator", 60 * SECOND).unwrap();
    to.refuse(true);
    counted_call(&network, &metrics).await.unwrap();
    assert_eq!(exporter.flush(SECOND).await.unwrap_err().code(), Code::Unavailable);
    to.refuse(false);
    exporter.flush(30 * SECOND).await.unwrap();
    let Some(Data::Sum(sum)) = sent(&collector, "grpc.client.attempt.started").data else {
        panic!("a counter")
    };
    assert_eq!(sum.data_points[0].value, Some(number_data_point::Value::AsDouble(1.0)));
    drop(exporter);
    let before = collector.1.lock().unwrap().len();
    tokio::time::sleep(600 * SECOND).await;
    assert_eq!(collector.1.lock().unwrap().len(), before, "the exporter is dropped");
}

#[tokio::test(start_paused = true)]
async fn an_invalid_endpoint_is_refused() {
    for bad in ["", "127.0.0.1:4317", "https://collector:4317", "ftp://a", "http://", "a b"] {
        let refused = export(bad, "calculator").unwrap_err().to_string();
        assert!(refused.starts_with("endpoint: "), "{bad}: {refused}");
        let metrics = Metrics::new(Methods::unknown());
        let refused = export_metrics(&metrics, bad, "calculator", SECOND).unwrap_err();
        assert_eq!(refused.field(), "endpoint");
    }
    let metrics = Metrics::new(Methods::unknown());
    let refused = export_metrics(&metrics, "http://a:1", "calculator", Duration::ZERO);
    assert_eq!(refused.unwrap_err().field(), "each");
}

// catalogue: S-P7
#[tokio::test(start_paused = true)]
async fn exporters_that_are_dropped_leave_no_task_whatever_their_collector_does() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    for answer in [Some(ok()), Some(Answer::Hang), None] {
        let (server, network) = (ScriptedServer::new(answer.clone()), Network::new());
        let serving = network.serve_service(server);
        network.blackhole(answer.is_none());
        tokio::time::sleep(SECOND).await;
        let before = tasks();
        let metrics = Metrics::new(Methods::unknown());
        let exporter = export_metrics_over(&metrics, network.channel(), "calculator", SECOND);
        let (layer, spans) = export_over(network.channel(), "calculator");
        // Not the thread's: HTTP/2 would add its own spans to it.
        let subscriber = registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info_span!("checkout").in_scope(|| {});
        });
        // In the middle of sending.
        tokio::time::sleep(7 * SECOND).await;
        assert!(tasks() > before);
        drop((exporter, spans, metrics));
        // The rest is sent, or given up after its attempts.
        tokio::time::sleep(120 * SECOND).await;
        network.blackhole(false);
        tokio::time::sleep(SECOND).await;
        assert_eq!(tasks(), before, "{answer:?}");
        drop(serving);
    }
}

// catalogue: S-E3
#[tokio::test(start_paused = true)]
async fn a_channel_that_panics_loses_only_the_spans_it_was_sent() {
    let ((collector, network), calls) = (Collector::start(), Arc::new(AtomicU32::new(0)));
    let first_panics = move |request: Request<()>| {
        assert!(calls.fetch_add(1, Ordering::Relaxed) > 0, "the first");
        Ok(request)
    };
    let channel = InterceptedService::new(network.channel(), first_panics);
    let (exporter, _default) = subscribed(export_over(channel, "calculator"));
    for (code, lost, arrived) in [(Some(Code::Internal), 1, 0), (None, 1, 1)] {
        tracing::info_span!("checkout").in_scope(|| {});
        let flushed = exporter.flush(SECOND).await;
        assert_eq!(flushed.err().map(|status| status.code()), code);
        assert_eq!((exporter.lost(), collector.spans().len()), (lost, arrived));
    }
}
