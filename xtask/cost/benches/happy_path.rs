//! The cost of the client's stack for a call that succeeds: `cargo xtask bench happy_path`.
//!
//! The service below the layers answers immediately, so the difference between two lines is the
//! cost of the layers. Allocations are counted separately, as they do not vary.

use cinchona::{
    config::ServiceConfig,
    core::{BoxError, Methods},
    deadline::{AttemptTimeoutLayer, CallDeadlineSettings},
    retry::{RetryLayer, RetryPolicy},
};
use criterion::{
    Criterion, criterion_group, criterion_main,
    measurement::{Measurement, WallTime},
};
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use std::{hint::black_box, time::Duration};
use tonic::body::Body;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

fn request() -> Request<Body> {
    let message = bytes::Bytes::from_static(&[0; 23]);
    let mut request = Request::new(Body::new(Full::new(message)));
    // The generated client puts this there.
    request.extensions_mut().insert(tonic::GrpcMethod::new("calculator.Calculator", "Add"));
    *request.uri_mut() = http::Uri::from_static("http://server/calculator.Calculator/Add");
    let headers = request.headers_mut();
    headers.insert("te", HeaderValue::from_static("trailers"));
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    request
}

fn bare() -> impl Service<Request<Body>, Response = Response<Body>, Error = BoxError, Future: Send>
+ Clone
+ Send
+ 'static {
    service_fn(|request: Request<Body>| async move {
        black_box(&request);
        let message = bytes::Bytes::from_static(&[0, 0, 0, 0, 2, 8, 7]);
        let mut response = Response::new(Body::new(Full::new(message)));
        let grpc = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert("content-type", grpc);
        Ok(response)
    })
}

async fn call<S, B>(service: &mut S)
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: std::fmt::Debug,
{
    let response = service.ready().await.expect("ready").call(request()).await;
    black_box(response.expect("answered"));
}

fn measure<S, B>(c: &mut Criterion, name: &str, service: S)
where
    S: Service<Request<Body>, Response = Response<B>> + Clone,
    S::Error: std::fmt::Debug,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime");
    let mut counted = service.clone();
    runtime.block_on(call(&mut counted));
    let counts = allocation_counter::measure(|| runtime.block_on(call(&mut counted)));
    println!("happy_path/{name}: {} allocations, {} bytes", counts.count_total, counts.bytes_total);
    c.bench_function(&format!("happy_path/{name}"), |bench| {
        bench.to_async(&runtime).iter_custom(|times| {
            let mut service = service.clone();
            async move {
                let began = WallTime.start();
                for _ in 0..times {
                    call(&mut service).await;
                }
                WallTime.end(began)
            }
        });
    });
}

const CONFIG: &str = r#"{ "methodConfig": [{
    "name": [{ "service": "calculator.Calculator" }], "timeout": "30s",
    "retryPolicy": { "maxAttempts": 4, "initialBackoff": "1s", "maxBackoff": "9s",
        "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"] } }],
    "retryThrottling": { "maxTokens": 10, "tokenRatio": 0.1 } }"#;

fn happy_path(c: &mut Criterion) {
    measure(c, "bare", bare());
    let limit = Duration::from_secs(30);
    measure(c, "deadline", CallDeadlineSettings::new().with_limit(limit).layer().layer(bare()));
    measure(c, "attempt timeout", AttemptTimeoutLayer::default().layer(bare()));
    let retry = RetryLayer::new(RetryPolicy::default(), Methods::all_idempotent());
    measure(c, "retry", retry.layer(bare()));
    let deadline = CallDeadlineSettings::new().with_limit(limit).layer();
    let stack = || {
        ServiceBuilder::new()
            .layer(deadline.clone())
            .layer(retry.clone())
            .layer(AttemptTimeoutLayer::default())
            .service(bare())
    };
    measure(c, "retry + deadline", stack());
    let config = ServiceConfig::parse(CONFIG).expect("valid");
    config.apply(&deadline, &retry).expect("no method is hedged");
    measure(c, "retry + deadline + throttle + service config", stack());
}

criterion_group!(benches, happy_path);
criterion_main!(benches);
