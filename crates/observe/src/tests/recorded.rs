//! The content of the spans of a call, and the propagation of a trace from client to server.

use super::{PATH, TARGET, call, metrics, request};
use crate::{
    AttemptLayer, AttemptSettings, CallLayer, CallSettings, Metrics, ServerLayer, ServerSettings,
    TraceContext,
};
use cinchona_core::{BoxError, Methods, Rng, Safety};
use cinchona_plumbing::cause::find_cause;
use cinchona_retry::{Ledger, RetryLayer, RetryPolicy, RetrySettings};
use cinchona_testkit::{Answer, ScriptedServer, encode};
use futures_util::FutureExt as _;
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
};
use tonic::{Code, Status, body::Body};
use tower::{Layer, ServiceExt, service_fn};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
    subscriber::DefaultGuard,
};
use tracing_subscriber::{
    layer::{Context, Layer as Subscribing, SubscriberExt},
    registry::LookupSpan,
};

/// The spans of a test's thread, for the life of this guard.
struct Spans {
    recorded: Arc<Mutex<Vec<Recorded>>>,
    _default: DefaultGuard,
}

#[derive(Clone, Debug, Default)]
struct Recorded {
    name: &'static str,
    parent: Option<&'static str>,
    fields: BTreeMap<String, String>,
    closed: bool,
}

struct Recorder(Arc<Mutex<Vec<Recorded>>>);

/// The index of a span among them.
struct At(usize);

impl Spans {
    fn capture() -> Self {
        let recorded = Arc::<Mutex<Vec<Recorded>>>::default();
        let subscriber = tracing_subscriber::registry().with(Recorder(recorded.clone()));
        Self { recorded, _default: cinchona_testkit::subscribe(subscriber) }
    }

    /// The spans of this crate, in order.
    fn recorded(&self) -> Vec<Recorded> {
        self.recorded.lock().unwrap().clone()
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Subscribing<S> for Recorder {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if attributes.metadata().target() != "cinchona_observe" {
            return;
        }
        let span = context.span(id).unwrap();
        let parent = span.parent().map(|parent| parent.name());
        let mut recorded = Recorded { name: span.name(), parent, ..Recorded::default() };
        attributes.record(&mut recorded);
        let mut all = self.0.lock().unwrap();
        span.extensions_mut().insert(At(all.len()));
        all.push(recorded);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(At(at)) = context.span(id).unwrap().extensions().get() {
            values.record(&mut self.0.lock().unwrap()[*at]);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        if let Some(At(at)) = context.span(&id).unwrap().extensions().get() {
            self.0.lock().unwrap()[*at].closed = true;
        }
    }
}

impl Visit for Recorded {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.fields.insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name().to_owned(), value.to_owned());
    }
}

impl Recorded {
    #[track_caller]
    fn assert(&self, expected: &[(&str, &str)]) {
        for (field, value) in expected {
            assert_eq!(
                self.fields.get(*field).map(String::as_str),
                Some(*value),
                "{field}: {self:#?}"
            );
        }
    }
}

fn unavailable() -> Answer {
    Answer::Status(Status::unavailable("a secret"))
}

fn retries() -> RetryLayer {
    let policy = RetryPolicy::default().with_codes([Code::Unavailable]).unwrap();
    RetrySettings::new(policy, Methods::all_idempotent()).with_rng(Rng::seeded(1)).layer()
}

fn story() -> CallLayer {
    CallSettings::new(TARGET)
        .with_rng(Rng::seeded(7))
        .with_story(|outcome| {
            let ledger = match outcome {
                Ok(extensions) => extensions.get::<Ledger>(),
                Err(error) => find_cause::<Ledger>(error),
            };
            ledger.map(|ledger| ledger.stopped().to_string())
        })
        .layer(&metrics())
}

fn attempts() -> AttemptLayer {
    AttemptSettings::new(TARGET).with_rng(Rng::seeded(8)).layer(&metrics())
}

#[tokio::test(start_paused = true)]
async fn a_call_has_a_span_and_each_attempt_a_child_of_it() {
    let spans = Spans::capture();
    let server = ScriptedServer::new([unavailable(), Answer::Ok(encode(&7_u32))]);
    let client = story().layer(retries().layer(attempts().layer(server.clone())));
    let mut request = request();
    request.headers_mut().insert("x-request-id", "r-1".parse().unwrap());
    call(client, request).await.unwrap();

    let [call, first, second] = &spans.recorded()[..] else { panic!("{:#?}", spans.recorded()) };
    assert!([call, first, second].iter().all(|span| span.closed));
    assert_eq!((call.parent, first.parent, second.parent), (None, Some("call"), Some("call")));
    call.assert(&[
        ("otel.name", "Sent.calculator.Calculator.Add"),
        ("otel.kind", "client"),
        ("rpc.system", "grpc"),
        ("rpc.service", "calculator.Calculator"),
        ("rpc.method", "Add"),
        ("rpc.grpc.status_code", "0"),
        ("server.address", "server"),
        ("request_id", "r-1"),
        ("attempts", "2"),
        ("verdict", "Ok"),
        ("stopped", "succeeded"),
    ]);
    first.assert(&[
        ("otel.name", "Attempt.calculator.Calculator.Add"),
        ("attempt", "1"),
        ("kind", "original"),
        ("previous-rpc-attempts", "0"),
        ("transparent-retry", "false"),
        ("rpc.grpc.status_code", "14"),
        ("otel.status_code", "ERROR"),
        ("verdict", "MaybeProcessed(Unavailable)"),
        ("wait", "0ns"),
    ]);
    second.assert(&[("attempt", "2"), ("kind", "retry"), ("previous-rpc-attempts", "1")]);
    assert_ne!(second.fields["wait"], "0ns");
    assert!(!second.fields.contains_key("otel.status_code"));

    // The server received the trace of the call, and each attempt's own span.
    for (received, attempt) in server.received().iter().zip([first, second]) {
        let recorded = TraceContext::of(&received.headers).unwrap();
        assert_eq!(recorded.trace_id(), call.fields["trace_id"]);
        assert_eq!(recorded.span_id(), attempt.fields["span_id"]);
        assert!(recorded.is_sampled());
    }
    assert!(
        !format!("{:?}", spans.recorded()).contains("secret"),
        "texts of errors are not recorded"
    );
}

#[tokio::test(start_paused = true)]
async fn the_span_of_a_failed_call_has_the_reason() {
    let spans = Spans::capture();
    let client =
        story().layer(retries().layer(attempts().layer(ScriptedServer::new([unavailable()]))));
    call(client, request()).await.unwrap_err();
    let recorded = spans.recorded();
    assert_eq!(recorded.len(), 5, "a call of four attempts");
    recorded[0].assert(&[("attempts", "4"), ("rpc.grpc.status_code", "14")]);
    assert!(!recorded[0].fields["stopped"].is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_span_of_a_dropped_call_has_that_verdict() {
    let spans = Spans::capture();
    let client = story().layer(attempts().layer(ScriptedServer::new([Answer::Hang])));
    let limit = std::time::Duration::from_secs(1);
    tokio::time::timeout(limit, call(client, request())).await.unwrap_err();
    for recorded in spans.recorded() {
        recorded.assert(&[("verdict", "dropped before its end"), ("rpc.grpc.status_code", "1")]);
        assert!(recorded.closed);
    }
}

/// A server whose handler calls `next`, and records the trace in which it was called.
fn relay(
    next: ScriptedServer,
    seen: Arc<Mutex<Vec<TraceContext>>>,
) -> impl tower::Service<
    http::Request<Body>,
    Response = http::Response<crate::ResponseBody>,
    Error = BoxError,
> + Clone {
    ServerSettings::new().with_rng(Rng::seeded(9)).layer(&metrics()).layer(service_fn(
        move |request: http::Request<Body>| {
            let seen_now = request.extensions().get::<TraceContext>().cloned();
            seen.lock().unwrap().extend(seen_now);
            let attempts = AttemptSettings::new(TARGET).with_rng(Rng::seeded(10)).layer(&metrics());
            let client = CallLayer::new(&metrics(), TARGET).layer(attempts.layer(next.clone()));
            async move {
                let request = http::Request::post(PATH).body(Body::empty())?;
                call(client, request).await?;
                Ok::<_, BoxError>(Status::ok("").into_http::<Body>())
            }
        },
    ))
}

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test(start_paused = true)]
async fn a_trace_goes_from_client_through_a_server_to_the_next() {
    let spans = Spans::capture();
    let (last, seen) = (ScriptedServer::new([Answer::Ok(encode(&7_u32))]), Arc::default());
    let client = story().layer(attempts().layer(relay(last.clone(), Arc::clone(&seen))));
    let mut request = request();
    request.headers_mut().insert("traceparent", PARENT.parse().unwrap());
    request.headers_mut().insert("tracestate", "vendor=1".parse().unwrap());
    call(client, request).await.unwrap();

    let recorded = spans.recorded();
    let names: Vec<_> = recorded.iter().map(|recorded| recorded.name).collect();
    assert_eq!(names, ["call", "attempt", "serve", "call", "attempt"]);
    let parents: Vec<_> = recorded.iter().map(|recorded| recorded.parent).collect();
    assert_eq!(parents, [None, Some("call"), Some("attempt"), Some("serve"), Some("call")]);
    for recorded in &recorded {
        recorded.assert(&[("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736")]);
    }
    assert_eq!(recorded[2].fields["parent_id"], recorded[1].fields["span_id"]);
    assert_eq!(seen.lock().unwrap()[0].span_id(), recorded[2].fields["span_id"]);
    let received = &last.received()[0].headers;
    assert_eq!(received["tracestate"], "vendor=1");
    assert_eq!(TraceContext::of(received).unwrap().span_id(), recorded[4].fields["span_id"]);
    let ids: std::collections::BTreeSet<_> =
        recorded.iter().map(|t| &t.fields["span_id"]).collect();
    assert_eq!(ids.len(), 5, "each has an id of its own");
}

/// The lines of the target, without a span.
struct Lines(Arc<Mutex<Vec<BTreeMap<String, String>>>>);

impl<S: Subscriber> Subscribing<S> for Lines {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.is_event() && metadata.target() == "cinchona_observe"
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut recorded = Recorded::default();
        event.record(&mut recorded);
        self.0.lock().unwrap().push(recorded.fields);
    }
}

#[tokio::test(start_paused = true)]
async fn where_there_is_no_span_the_line_of_a_failure_names_its_method_and_its_trace() {
    let lines = Arc::<Mutex<Vec<_>>>::default();
    let subscriber = tracing_subscriber::registry().with(Lines(lines.clone()));
    let _default = cinchona_testkit::subscribe(subscriber);
    let lost = Answer::Status(Status::data_loss("lost"));
    let server = ScriptedServer::new([Answer::Ok(encode(&7_u32)), lost.clone(), lost]);
    let methods = Methods::unknown().with("calculator.Calculator", "Add", Safety::NoSideEffects);
    let server = ServerLayer::new(&Metrics::new(methods.unwrap())).layer(server);
    for parent in [None, None, Some(PARENT)] {
        let mut request = request();
        if let Some(parent) = parent {
            request.headers_mut().insert("traceparent", parent.parse().unwrap());
        }
        _ = call(server.clone(), request).await;
        // One line a second for each code.
        tokio::time::advance(std::time::Duration::from_secs(2)).await;
    }
    let lines = lines.lock().unwrap();
    let failed: Vec<_> = lines.iter().filter(|line| line["message"] == "failed").collect();
    let [first, second] = failed[..] else { panic!("{lines:#?}") };
    for line in [first, second] {
        assert_eq!((&*line["status"], &*line["rpc.method"]), ("DATA_LOSS", PATH));
    }
    assert_eq!(first.get("trace_id"), None);
    assert_eq!(second["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
}

#[tokio::test(start_paused = true)]
async fn a_trace_is_propagated_without_a_subscriber() {
    let (last, seen) = (ScriptedServer::new([Answer::Ok(encode(&7_u32))]), Arc::default());
    let server = relay(last.clone(), Arc::clone(&seen));
    let mut request = request();
    request.headers_mut().insert("traceparent", PARENT.parse().unwrap());
    call(server.clone(), request).await.unwrap();
    assert_eq!(last.received()[0].headers["traceparent"], PARENT);
    assert_eq!(seen.lock().unwrap()[0].to_string(), PARENT);

    call(server, super::request()).await.unwrap();
    assert!(!last.received()[1].headers.contains_key("traceparent"), "none is begun");
}

#[tokio::test(start_paused = true)]
async fn a_malformed_parent_begins_a_trace() {
    let spans = Spans::capture();
    let seen = Arc::<Mutex<Vec<TraceContext>>>::default();
    let server = relay(ScriptedServer::new([Answer::Hang]), Arc::clone(&seen));
    for parent in [&b"00-xyz"[..], b"\xff\xfe", b""] {
        let mut request = request();
        let parent = http::HeaderValue::from_bytes(parent).unwrap();
        request.headers_mut().insert("traceparent", parent);
        drop(server.clone().oneshot(request).now_or_never());
    }
    let recorded = spans.recorded();
    let served: Vec<_> = recorded.iter().filter(|recorded| recorded.name == "serve").collect();
    assert_eq!((served.len(), seen.lock().unwrap().len()), (3, 3));
    for (recorded, seen) in served.iter().zip(seen.lock().unwrap().iter()) {
        assert_eq!(recorded.fields["trace_id"], seen.trace_id());
        assert!(!recorded.fields.contains_key("parent_id"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_without_a_record_has_none_of_an_earlier_call() {
    let spans = Spans::capture();
    let server = ScriptedServer::new([1, 2, 3].map(|sum: u32| Answer::Ok(encode(&sum))));
    let metrics = metrics();
    let within = AttemptLayer::new(&metrics, TARGET).layer(server.clone());
    call(CallLayer::new(&metrics, TARGET).layer(within), request()).await.unwrap();
    // Two of what the call before has used are used again.
    let alone = AttemptLayer::new(&metrics, TARGET).layer(server);
    for previous in ["2", "5"] {
        let mut request = request();
        request.headers_mut().insert("grpc-previous-rpc-attempts", previous.parse().unwrap());
        call(alone.clone(), request).await.unwrap();
    }
    let recorded = spans.recorded();
    let attempts = recorded.iter().filter(|span| span.name == "attempt");
    let numbers: Vec<_> = attempts.map(|span| &*span.fields["attempt"]).collect();
    assert_eq!(numbers, ["1", "3", "6"]);
}
