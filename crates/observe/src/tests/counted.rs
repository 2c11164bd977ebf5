//! What is counted of calls, attempts and served calls.

use super::{PATH, TARGET, assert_samples, call, client, metrics, request, request_to, samples};
use crate::{AttemptLayer, CallLayer, Metrics, ServerLayer};
use bytes::Bytes;
use cinchona_core::{BoxError, Methods, Rejected};
use cinchona_retry::{HedgePolicy, Policy, RetryLayer, RetryPolicy, RetrySettings};
use cinchona_testkit::{Answer, ScriptedServer, encode};
use futures_util::Stream;
use http_body::Frame;
use http_body_util::StreamBody;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::time::timeout;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service, ServiceExt, service_fn};

fn unavailable() -> Answer {
    Answer::Status(Status::unavailable("draining"))
}

fn ok() -> Answer {
    Answer::Ok(encode(&"seven".to_owned()))
}

fn retry_settings() -> RetrySettings {
    let policy = RetryPolicy::default().with_codes([Code::Unavailable]).unwrap();
    RetrySettings::new(policy, Methods::all_idempotent())
}

fn retries() -> RetryLayer {
    retry_settings().layer()
}

/// Calls and attempts, with `layer` between.
fn stack<L, S>(metrics: &Metrics, layer: L, inner: S) -> crate::Observed<L::Service>
where
    L: Layer<crate::Observed<S>>,
{
    let attempts = AttemptLayer::new(metrics, TARGET).layer(inner);
    CallLayer::new(metrics, TARGET).layer(layer.layer(attempts))
}

#[tokio::test(start_paused = true)]
async fn calls_and_attempts_are_separate_series() {
    let metrics = metrics();
    let server = ScriptedServer::new([unavailable(), unavailable(), ok()]);
    let began = tokio::time::Instant::now();
    call(stack(&metrics, retries(), server), request()).await.unwrap();
    // Divided once, as the rendering does: `as_secs_f64` may differ in the last digit.
    let took = (tokio::time::Instant::now() - began).as_nanos() as f64 / 1e9;
    assert!(took > 0.0, "it waited between its attempts");
    assert_samples(
        &metrics,
        &[
            (client("grpc_client_call_duration_seconds_count", "OK"), 1.0),
            (client("grpc_client_call_duration_seconds_sum", "OK"), took),
            (client("grpc_client_call_retries_count", ""), 1.0),
            (client("grpc_client_call_retries_sum", ""), 2.0),
            (client("grpc_client_call_retry_delay_seconds_count", ""), 1.0),
            (client("grpc_client_call_retry_delay_seconds_sum", ""), took),
            (client("grpc_client_attempt_started_total", ""), 3.0),
            (client("grpc_client_attempt_duration_seconds_count", "UNAVAILABLE"), 2.0),
            (client("grpc_client_attempt_duration_seconds_count", "OK"), 1.0),
        ],
    );
    let found = samples(&metrics);
    let none = ["hedges", "transparent_retries"]
        .map(|name| client(&format!("grpc_client_call_{name}_count"), ""));
    assert!(none.iter().all(|name| !found.contains_key(name)), "none were, none are reported");
    assert!(!found.contains_key(&client("grpc_client_call_duration_seconds_count", "UNAVAILABLE")));
}

#[tokio::test(start_paused = true)]
async fn a_call_without_retries_reports_none() {
    let metrics = metrics();
    call(stack(&metrics, retries(), ScriptedServer::new([ok()])), request()).await.unwrap();
    assert!(!metrics.render().contains("_retr"), "gRFC A96: zero is not reported");
}

#[tokio::test(start_paused = true)]
async fn hedges_are_counted_as_hedges_and_the_losers_were_cancelled() {
    let metrics = metrics();
    let hedge = HedgePolicy::default().with_max_attempts(3).with_delay(Duration::from_millis(50));
    let policies = cinchona_core::PerMethod::from(Policy::from(hedge));
    let layer = retry_settings().with_policies(policies).unwrap().layer();
    let server = ScriptedServer::new([Answer::Hang, Answer::Hang, ok()]);
    call(stack(&metrics, layer, server), request()).await.unwrap();
    assert_samples(
        &metrics,
        &[
            (client("grpc_client_call_hedges_sum", ""), 2.0),
            (client("grpc_client_call_hedges_count", ""), 1.0),
            (client("grpc_client_call_retry_delay_seconds_sum", ""), 0.0),
            (client("grpc_client_attempt_started_total", ""), 3.0),
            (client("grpc_client_attempt_duration_seconds_count", "CANCELLED"), 2.0),
            (client("grpc_client_attempt_duration_seconds_sum", "CANCELLED"), 0.15),
            (client("grpc_client_attempt_duration_seconds_count", "OK"), 1.0),
        ],
    );
    assert!(!metrics.render().contains("grpc_client_call_retries"));
}

#[tokio::test(start_paused = true)]
async fn hedges_that_fail_immediately_are_hedges_and_no_retries() {
    let metrics = metrics();
    let hedge = HedgePolicy::default().with_max_attempts(4).with_delay(Duration::from_secs(1));
    let policies = cinchona_core::PerMethod::from(Policy::from(hedge));
    let layer = retry_settings().with_policies(policies).unwrap().layer();
    // Each has failed before the next begins: none overlaps another.
    let server = ScriptedServer::new([unavailable(), unavailable(), unavailable(), ok()]);
    call(stack(&metrics, layer, server), request()).await.unwrap();
    assert_samples(
        &metrics,
        &[
            (client("grpc_client_call_hedges_sum", ""), 3.0),
            (client("grpc_client_call_hedges_count", ""), 1.0),
            (client("grpc_client_attempt_started_total", ""), 4.0),
        ],
    );
    assert!(!metrics.render().contains("grpc_client_call_retries"));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_never_left_is_a_transparent_retry_and_sent_nothing() {
    let metrics = metrics();
    let (tries, mut server) = (Arc::new(AtomicU32::new(0)), ScriptedServer::new([ok()]));
    let flaky = service_fn(move |request: http::Request<Body>| {
        let first = tries.fetch_add(1, Ordering::Relaxed) == 0;
        let answer = server.call(request);
        async move {
            if first {
                return Err(BoxError::from(Rejected::lost("the connection went away")));
            }
            Ok(answer.await?)
        }
    });
    call(stack(&metrics, retries(), flaky), request()).await.unwrap();
    let sent = "grpc_client_attempt_sent_total_compressed_message_size_bytes_sum";
    assert_samples(
        &metrics,
        &[
            (client("grpc_client_call_transparent_retries_sum", ""), 1.0),
            (client(sent, "UNAVAILABLE"), 0.0),
            (client(sent, "OK"), 7.0),
        ],
    );
    assert!(!metrics.render().contains("grpc_client_call_retries"));
}

#[tokio::test(start_paused = true)]
async fn the_final_status_is_the_one_in_the_trailers() {
    let metrics = metrics();
    let answer =
        Answer::MessageThenStatus(encode(&"half".to_owned()), Status::data_loss("the rest"));
    call(stack(&metrics, retries(), ScriptedServer::new([answer])), request()).await.unwrap();
    assert_samples(
        &metrics,
        &[
            (client("grpc_client_call_duration_seconds_count", "DATA_LOSS"), 1.0),
            (client("grpc_client_attempt_duration_seconds_count", "DATA_LOSS"), 1.0),
        ],
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_before_its_end_was_cancelled() {
    let metrics = metrics();
    for answer in [Answer::Hang, Answer::HeadersThenHang] {
        let dropped = call(stack(&metrics, retries(), ScriptedServer::new([answer])), request());
        timeout(Duration::from_secs(3), dropped).await.unwrap_err();
    }
    let mut never_polled = stack(&metrics, retries(), ScriptedServer::new([ok()]));
    let ready = ServiceExt::<http::Request<Body>>::ready(&mut never_polled).await;
    drop(ready.unwrap().call(request()));
    assert_samples(
        &metrics,
        &[
            (client("grpc_client_call_duration_seconds_count", "CANCELLED"), 3.0),
            (client("grpc_client_call_duration_seconds_sum", "CANCELLED"), 6.0),
            (client("grpc_client_attempt_started_total", ""), 3.0),
            (client("grpc_client_attempt_duration_seconds_count", "CANCELLED"), 3.0),
        ],
    );
}

#[tokio::test(start_paused = true)]
async fn an_error_has_the_code_of_its_verdict() {
    let metrics = metrics();
    let refused =
        || Err::<http::Response<Body>, _>(BoxError::from(Rejected::new("it is open", None)));
    let service = service_fn(move |_: http::Request<Body>| async move { refused() });
    let call_layer = CallLayer::new(&metrics, TARGET);
    call(call_layer.layer(service), request()).await.unwrap_err();
    let status = service_fn(|_: http::Request<Body>| async {
        Err::<http::Response<Body>, _>(Status::not_found("no such thing"))
    });
    call(call_layer.layer(status), request()).await.unwrap_err();
    let name = "grpc_client_call_duration_seconds_count";
    let expected = [(client(name, "UNAVAILABLE"), 1.0), (client(name, "NOT_FOUND"), 1.0)];
    assert_samples(&metrics, &expected);
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_answers_503_is_unavailable_and_a_body_without_trailers_unknown() {
    let metrics = metrics();
    let answering = |status: u16| {
        service_fn(move |_: http::Request<Body>| async move {
            let response = http::Response::builder().status(status).body(Body::empty());
            Ok::<_, BoxError>(response?)
        })
    };
    for status in [503, 200] {
        let service = CallLayer::new(&metrics, TARGET).layer(answering(status));
        call(service, request()).await.unwrap();
    }
    let name = "grpc_client_call_duration_seconds_count";
    let expected = [(client(name, "UNAVAILABLE"), 1.0), (client(name, "UNKNOWN"), 1.0)];
    assert_samples(&metrics, &expected);
}

#[tokio::test(start_paused = true)]
async fn a_server_counts_its_calls_and_their_sizes_both_ways() {
    let metrics = Metrics::new(Methods::unknown()).with_unlisted(|path| path == PATH);
    let server = ScriptedServer::new([ok(), Answer::Status(Status::not_found("none"))]);
    let service = ServerLayer::new(&metrics).layer(server);
    call(service.clone(), request()).await.unwrap();
    // Streamed, in three frames of 2, 0 and 300 bytes.
    let stream = Body::new(StreamBody::new(frames(&[2, 0, 300])));
    call(service, request_to(PATH, stream)).await.unwrap();
    let label = |name: &str, status: &str| {
        format!("grpc_server_call_{name}{{grpc_method=\"{}\"{status}}}", &PATH[1..])
    };
    let (ok, none) = (",grpc_status=\"OK\"", ",grpc_status=\"NOT_FOUND\"");
    assert_samples(
        &metrics,
        &[
            (label("started_total", ""), 2.0),
            (label("duration_seconds_count", ok), 1.0),
            (label("rcvd_total_compressed_message_size_bytes_sum", ok), 7.0),
            (label("sent_total_compressed_message_size_bytes_sum", ok), 7.0),
            (label("rcvd_total_compressed_message_size_bytes_sum", none), 302.0),
            (label("sent_total_compressed_message_size_bytes_sum", none), 0.0),
        ],
    );
}

/// gRPC frames of these sizes.
fn frames(sizes: &[usize]) -> impl Stream<Item = Result<Frame<Bytes>, Status>> + use<> {
    let framed = |size: &usize| {
        let mut frame = vec![0];
        frame.extend((*size as u32).to_be_bytes());
        frame.resize(5 + size, 9);
        Ok(Frame::data(Bytes::from(frame)))
    };
    futures_util::stream::iter(sizes.iter().map(framed).collect::<Vec<_>>())
}

#[tokio::test(start_paused = true)]
async fn unregistered_methods_are_other() {
    let metrics = metrics();
    let server = ScriptedServer::new([ok()]);
    let service = ServerLayer::new(&metrics).layer(server.clone());
    for path in ["/made/up", "/calculator.Calculator/Add", "/../../etc/passwd", "*"] {
        let request = http::Request::post(path).body(Body::empty()).unwrap();
        call(service.clone(), request).await.unwrap();
    }
    let calls = CallLayer::new(&metrics, TARGET).layer(server);
    call(calls, request_to(PATH, Body::empty())).await.unwrap();
    let others = "grpc_server_call_started_total{grpc_method=\"other\"}".to_owned();
    assert_samples(&metrics, &[(others, 4.0)]);
    assert!(!metrics.render().contains("made"), "a stranger names no series");
    assert!(!metrics.render().contains("Calculator"), "no generated client called");
}

#[tokio::test(start_paused = true)]
async fn clients_of_one_target_count_together() {
    let metrics = metrics();
    for target in [TARGET, TARGET, "dns:///other"] {
        let layer = CallLayer::new(&metrics.clone(), target);
        call(layer.layer(ScriptedServer::new([ok()])), request()).await.unwrap();
    }
    let name = "grpc_client_call_duration_seconds_count";
    let other = client(name, "OK").replace(TARGET, "dns:///other");
    assert_samples(&metrics, &[(client(name, "OK"), 2.0), (other, 1.0)]);
}

#[tokio::test(start_paused = true)]
async fn the_layers_fit_tonics_own_client_and_server() {
    let metrics = Metrics::new(Methods::unknown()).with_unlisted(|path| path == PATH);
    let net = cinchona_testkit::Network::new();
    let routes = ScriptedServer::new([ok()]).routes();
    let server = tonic::transport::Server::builder()
        .layer(ServerLayer::new(&metrics))
        .add_routes(routes)
        .serve_with_incoming(net.incoming());
    let serving = tokio::spawn(server);
    // The request is streamed to tonic's channel, so it is counted while it is sent.
    let mut request = request();
    *request.body_mut() = Body::new(StreamBody::new(frames(&[7])));
    let client = stack(&metrics, retries(), net.channel());
    call(client, request).await.unwrap();
    serving.abort();
    let server = |name: &str, status: &str| {
        format!("grpc_server_call_{name}{{grpc_method=\"{}\"{status}}}", &PATH[1..])
    };
    let size = "total_compressed_message_size_bytes_sum";
    let ok = ",grpc_status=\"OK\"";
    assert_samples(
        &metrics,
        &[
            (client_of("attempt_started_total", ""), 1.0),
            (client_of(&format!("attempt_sent_{size}"), "OK"), 7.0),
            (client_of(&format!("attempt_rcvd_{size}"), "OK"), 7.0),
            (client_of("call_duration_seconds_count", "OK"), 1.0),
            (server("started_total", ""), 1.0),
            (server("duration_seconds_count", ok), 1.0),
            (server(&format!("sent_{size}"), ok), 7.0),
            (server(&format!("rcvd_{size}"), ok), 7.0),
        ],
    );
}

fn client_of(name: &str, status: &str) -> String {
    client(&format!("grpc_client_{name}"), status)
}
