//! What the whole client stack sends, byte for byte: nothing without a reader.

use crate::layers::methods;
use bytes::Bytes;
use cinchona::{
    balance::{Balance, Options},
    breaker::{BreakerLayer, BreakerPolicy},
    core::Target,
    deadline::{AttemptTimeoutLayer, CallDeadlineSettings},
    fallback::FallbackLayer,
    idempotency::IdempotencyKeyLayer,
    observe::{AttemptLayer, CallLayer, Metrics},
    retry::{RetryLayer, RetryPolicy},
    shed::{AdaptiveThrottleLayer, BulkheadLayer},
};
use cinchona_testkit::{Answer, Network, ScriptedServer, encode};
use http::{HeaderMap, HeaderValue};
use std::{
    sync::{Arc, mpsc},
    time::Duration,
};
use tonic::{
    body::Body,
    client::{Grpc, GrpcService},
};
use tonic_prost::ProstCodec;
use tower::ServiceBuilder;

/// Calls `path` through everything, by real HTTP/2; the headers that have come, and those that were
/// given to the balancer.
async fn sent(path: &'static str) -> (HeaderMap, HeaderMap) {
    let (given, all) = mpsc::channel();
    let (network, server) =
        (Network::new(), ScriptedServer::new([Answer::Ok(encode(&"seven".to_owned()))]));
    let _serving = network.serve_service(server.clone());
    let (metrics, breaker) = (Metrics::new(methods()), BreakerLayer::new(BreakerPolicy::default()));
    let gate = move |server: &Target| breaker.endpoint(server.uri.to_string());
    let options = Options { gate: Some(Arc::new(gate)), ..Options::default() };
    let targets = vec![Target::from(http::Uri::from_static("http://any:1"))];
    let balance = Balance::with_connector(targets, network.connector(), options).unwrap();
    let stack = ServiceBuilder::new()
        .layer(CallLayer::new(&metrics, "any"))
        .layer(IdempotencyKeyLayer::new(methods()))
        .layer(CallDeadlineSettings::new().with_limit(Duration::from_secs(30)).layer())
        .layer(FallbackLayer::new(methods()))
        .layer(BulkheadLayer::default())
        .layer(RetryLayer::new(RetryPolicy::default(), methods()))
        .layer(AdaptiveThrottleLayer::default())
        .layer(AttemptLayer::new(&metrics, "any"))
        .layer(AttemptTimeoutLayer::new(Duration::from_secs(2)))
        .map_request(move |request: http::Request<Body>| {
            given.send(request.headers().clone()).unwrap();
            request
        })
        .service(balance);
    unary(stack, path).await;
    let [received] = &server.received()[..] else { panic!("one attempt") };
    (received.headers.clone(), all.try_recv().unwrap())
}

async fn unary<S>(service: S, path: &'static str)
where
    S: GrpcService<Body>,
    S::ResponseBody: http_body::Body<Data = Bytes> + Send + 'static,
    <S::ResponseBody as http_body::Body>::Error: Into<cinchona::core::BoxError>,
    S::Error: Into<cinchona::core::BoxError>,
{
    let mut client = Grpc::new(service);
    client.ready().await.map_err(Into::into).unwrap();
    let codec = ProstCodec::<String, String>::default();
    let request = tonic::Request::new("seven".to_owned());
    client.unary(request, http::uri::PathAndQuery::from_static(path), codec).await.unwrap();
}

fn lines(headers: &HeaderMap) -> Vec<String> {
    let line = |(name, value): (&http::HeaderName, &HeaderValue)| {
        format!("{name}: {}", value.to_str().unwrap())
    };
    headers.iter().map(line).collect()
}

#[test]
fn a_plain_call_is_sent_with_the_headers_of_grpc_and_no_other() {
    let agent = concat!("user-agent: grpc-rust-cinchona/", env!("CARGO_PKG_VERSION"));
    let (te, kind) = ("te: trailers", "content-type: application/grpc");
    let expected = [te, kind, "grpc-timeout: 2000000u", agent];
    assert_eq!(lines(&crate::virtually(sent("/a.B/Read")).0), expected);
    // It may be a stream, which a limit of a layer is not to end.
    assert_eq!(lines(&crate::virtually(sent("/a.B/Unknown")).0), [te, kind, agent]);
}

#[test]
fn a_key_is_kept_out_of_the_tables_of_hpack() {
    let (_, headers) = crate::virtually(sent("/a.B/Unary"));
    assert!(headers["idempotency-key"].is_sensitive(), "it never comes again");
    assert!(!headers.contains_key("x-request-id"), "nobody reads it");
    assert!(!headers["grpc-timeout"].is_sensitive(), "it is the same in each call");
}
