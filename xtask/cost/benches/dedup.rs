//! What recognising repeated calls costs, with the store in memory: `cargo xtask bench dedup`.
//!
//! The service below the layer answers immediately, with 64 bytes, so the difference between a line
//! and `bare` is the cost of the layer.

use cinchona::{
    core::{BoxError, Methods},
    idempotency::{DedupLayer, MemoryStore},
};
use criterion::{
    Criterion, criterion_group, criterion_main,
    measurement::{Measurement, WallTime},
};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use prost::Message;
use prost_types::{
    FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto,
};
use std::{
    convert::Infallible,
    future::ready,
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::runtime::Runtime;
use tonic::body::Body;
use tower::{Layer, Service, ServiceExt, service_fn};

const PAYLOAD: usize = 64;

fn methods() -> Methods {
    let method = MethodDescriptorProto { name: Some("Pay".into()), ..Default::default() };
    let service = ServiceDescriptorProto {
        name: Some("Bank".into()),
        method: vec![method],
        ..Default::default()
    };
    let file = FileDescriptorProto { service: vec![service], ..Default::default() };
    let encoded = FileDescriptorSet { file: vec![file] }.encode_to_vec();
    Methods::from_file_descriptor_set(&encoded).expect("a descriptor set")
}

/// A request under the key of `n`, as long as a UUID.
fn request(n: u64) -> Request<Body> {
    let mut request = Request::new(Body::new(Full::new(bytes::Bytes::from_static(&[0; 23]))));
    *request.uri_mut() = http::Uri::from_static("/Bank/Pay");
    let key = HeaderValue::from_str(&format!("00000000-0000-7000-8000-{n:012x}")).expect("ASCII");
    request.headers_mut().insert("idempotency-key", key);
    request
}

fn bare() -> impl Service<Request<Body>, Response = Response<Body>, Error = BoxError, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static {
    service_fn(|request: Request<Body>| async move {
        // As tonic does, which reads it to its end.
        black_box(request.into_body().collect().await?);
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let body = Full::new(bytes::Bytes::from_static(&[0; PAYLOAD]));
        let body = body.with_trailers(ready(Some(Ok::<_, Infallible>(trailers))));
        let mut response = Response::new(Body::new(body));
        let grpc = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert("content-type", grpc);
        Ok(response)
    })
}

async fn call<S>(service: &mut S, n: u64)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = BoxError>,
{
    let response = service.ready().await.expect("ready").call(request(n)).await;
    // As hyper does, which sends it to its end.
    black_box(response.expect("answered").into_body().collect().await.expect("whole"));
}

fn runtime() -> Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime")
}

fn measure<S>(c: &mut Criterion, name: &str, service: S, key: impl Fn() -> u64)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = BoxError> + Clone,
{
    let runtime = runtime();
    let mut counted = service.clone();
    runtime.block_on(call(&mut counted, key()));
    let counts = allocation_counter::measure(|| runtime.block_on(call(&mut counted, key())));
    println!("dedup/{name}: {} allocations, {} bytes", counts.count_total, counts.bytes_total);
    c.bench_function(&format!("dedup/{name}"), |bench| {
        bench.to_async(&runtime).iter_custom(|times| {
            let (mut service, key) = (service.clone(), &key);
            async move {
                let began = WallTime.start();
                for _ in 0..times {
                    call(&mut service, key()).await;
                }
                WallTime.end(began)
            }
        });
    });
}

fn costs(c: &mut Criterion) {
    let number = Arc::new(AtomicU64::new(0));
    let fresh = || number.fetch_add(1, Ordering::Relaxed);
    measure(c, "bare", bare(), fresh);
    let dedup = DedupLayer::new(MemoryStore::new(), methods());
    measure(c, "first time", dedup.layer(bare()), fresh);
    measure(c, "replayed", dedup.layer(bare()), || 0);
    let full = MemoryStore::new().with_caps(1000, 1 << 30).expect("allowed");
    measure(c, "first time, evicting", DedupLayer::new(full, methods()).layer(bare()), fresh);
}

/// What a million records take, beside their payload.
fn size(_: &mut Criterion) {
    const ENTRIES: u64 = 1_000_000;
    let runtime = runtime();
    let store = MemoryStore::new();
    let mut service = DedupLayer::new(store.clone(), methods()).layer(bare());
    let counts = allocation_counter::measure(|| {
        runtime.block_on(async {
            for n in 0..ENTRIES {
                call(&mut service, n).await;
            }
        });
    });
    let each = counts.bytes_current as f64 / ENTRIES as f64;
    let goal = 2 * PAYLOAD + 200;
    println!("dedup/size: {each:.0} bytes an entry at {} entries, goal {goal}", store.entries());
}

/// How many times as many calls two threads do as one, alone and with the layer.
fn scaling(_: &mut Criterion) {
    println!("dedup/scaling: two threads do {:.2} times what one does, bare", scaled(bare));
    let dedup = || DedupLayer::new(MemoryStore::new(), methods()).layer(bare());
    println!("dedup/scaling: two threads do {:.2} times what one does, with dedup", scaled(dedup));
}

fn scaled<S>(service: impl Fn() -> S) -> f64
where
    S: Service<Request<Body>, Response = Response<Body>, Error = BoxError> + Clone + Send,
{
    const CALLS: u64 = 300_000;
    let rate = |threads: u64| {
        let service = service();
        let began = WallTime.start();
        thread::scope(|scope| {
            for thread in 0..threads {
                let mut service = service.clone();
                scope.spawn(move || {
                    runtime().block_on(async {
                        for n in 0..CALLS {
                            call(&mut service, n * threads + thread).await;
                        }
                    });
                });
            }
        });
        (threads * CALLS) as f64 / WallTime.end(began).as_secs_f64()
    };
    let mut ratios: Vec<f64> = (0..7).map(|_| rate(2) / rate(1)).collect();
    ratios.sort_by(f64::total_cmp);
    ratios[3]
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(3));
    targets = costs, size, scaling
}
criterion_main!(benches);
