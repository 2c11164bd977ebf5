//! The cost of observing a call, with spans that no subscriber wants: `cargo xtask bench observe`.
//!
//! The service below answers immediately, with a message and trailers. Runs with and without the
//! layers alternate many times, so that other load on the machine affects both; the summary has the
//! medians. Allocations are counted by the tests of `cinchona-observe`: an allocator that counts
//! takes longer.

use bytes::Bytes;
use cinchona::{
    core::Methods,
    observe::{AttemptLayer, CallLayer, Metrics, ServerLayer},
};
use criterion::{
    Criterion, criterion_group, criterion_main,
    measurement::{Measurement, WallTime},
};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::Full;
use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    hint::black_box,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};
use tonic::{GrpcMethod, body::Body};
use tower::{Layer, Service};

const PATH: &str = "/calculator.Calculator/Add";
const URI: &str = "http://server/calculator.Calculator/Add";

/// Answers immediately.
#[derive(Clone)]
struct Prompt;

struct Answer {
    message: Option<Bytes>,
    has_trailers: bool,
}

impl Service<Request<Body>> for Prompt {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // Read to its end, as a server or a connection does.
        read(request.into_body());
        let message = Some(Bytes::from_static(&[0, 0, 0, 0, 2, 8, 7]));
        // tonic's channel and server answer with its own body as well.
        let mut response = Response::new(Body::new(Answer { message, has_trailers: true }));
        let grpc = http::HeaderValue::from_static("application/grpc");
        response.headers_mut().insert("content-type", grpc);
        ready(Ok(response))
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(message) = self.message.take() {
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        let trailers = std::mem::take(&mut self.has_trailers).then(|| {
            HeaderMap::from_iter([(tonic::Status::GRPC_STATUS, HeaderValue::from_static("0"))])
        });
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }
}

/// As the generated client makes it, or as it comes from the network: of unknown length.
fn request(streamed: bool) -> Request<Body> {
    let message = Full::new(Bytes::from_static(&[0, 0, 0, 0, 7, 1, 2, 3, 4, 5, 6, 7]));
    let body = if streamed { Body::new(Unsized(message)) } else { Body::new(message) };
    let mut request = Request::new(body);
    *request.uri_mut() = http::Uri::from_static(URI);
    let headers = request.headers_mut();
    headers.insert("te", HeaderValue::from_static("trailers"));
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("user-agent", HeaderValue::from_static("tonic/0.14.9"));
    request.extensions_mut().insert(GrpcMethod::new("calculator.Calculator", "Add"));
    request
}

/// Does not say how long it is.
struct Unsized(Full<Bytes>);

impl http_body::Body for Unsized {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }
}

/// Calls, and reads the answer to its end.
fn call<S, B>(service: &mut S, request: Request<Body>)
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body,
{
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    let mut called = pin!(service.call(request));
    let Poll::Ready(Ok(response)) = called.as_mut().poll(&mut cx) else { panic!("not ready") };
    read(response.into_body());
}

fn read(body: impl http_body::Body) {
    let (mut body, mut cx) = (pin!(body), Context::from_waker(Waker::noop()));
    while let Poll::Ready(Some(frame)) = body.as_mut().poll_frame(&mut cx) {
        black_box(frame.is_ok());
    }
}

/// How often both are measured, and by how many calls.
const ROUNDS: usize = 101;
const CALLS: u32 = 2_000;

/// Nanoseconds of one call, with everything that the bench itself does for it.
fn nanos(call: &mut impl FnMut()) -> f64 {
    let began = WallTime.start();
    (0..CALLS).for_each(|_| call());
    WallTime.end(began).as_nanos() as f64 / f64::from(CALLS)
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Prints what a call takes without and with the layers.
fn compare(name: &str, mut bare: impl FnMut(), mut watched: impl FnMut()) {
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        without.push(nanos(&mut bare));
        with.push(nanos(&mut watched));
    }
    let (without, with) = (median(without), median(with));
    println!(
        "observe/{name}: {without:.0} ns bare, {with:.0} ns watched: {:.0} ns more, {:.2} times",
        with - without,
        with / without,
    );
}

fn observe(c: &mut Criterion) {
    let metrics = Metrics::new(Methods::unknown()).with_unlisted(|path| path == PATH);
    let attempts = AttemptLayer::new(&metrics, "dns:///calculator").layer(Prompt);
    let client = CallLayer::new(&metrics, "dns:///calculator").layer(attempts);
    let server = ServerLayer::new(&metrics).layer(Prompt);
    let (mut own, whole, streamed) = (Prompt, || request(false), || request(true));
    let mut of = client.clone();
    compare("call + attempt", || call(&mut own, whole()), || call(&mut of, whole()));
    let (mut own, mut of) = (Prompt, server.clone());
    compare("served", || call(&mut own, whole()), || call(&mut of, whole()));
    let (mut own, mut of) = (Prompt, server.clone());
    let name = "served, length unknown";
    compare(name, || call(&mut own, streamed()), || call(&mut of, streamed()));

    let mut group = c.benchmark_group("observe");
    let (mut bare, mut client, mut server) = (Prompt, client, server);
    group.bench_function("bare", |bench| bench.iter(|| call(&mut bare, whole())));
    group.bench_function("call + attempt", |bench| bench.iter(|| call(&mut client, whole())));
    group.bench_function("served", |bench| bench.iter(|| call(&mut server, whole())));
}

criterion_group!(benches, observe);
criterion_main!(benches);
