//! The cost of an observed call on the happy path: the record of the call, and no more.

use super::{TARGET, metrics, request};
use crate::{AttemptLayer, CallLayer, ServerLayer};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use std::{
    convert::Infallible,
    future::{Ready, ready},
    hint::black_box,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};
use tonic::body::Body;
use tower::{Service, ServiceBuilder};

/// Answers immediately, with headers, a message and trailers, without its own allocations.
#[derive(Clone, Default)]
struct Prompt {
    headers: HeaderMap,
    trailers: HeaderMap,
}

struct Answer {
    message: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Service<http::Request<Body>> for Prompt {
    type Response = http::Response<Answer>;
    type Error = Infallible;
    type Future = Ready<Result<http::Response<Answer>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        black_box(&request);
        let Self { headers, trailers } = std::mem::take(self);
        let message = Some(Bytes::from_static(&[0, 0, 0, 0, 2, 8, 7]));
        let mut response = http::Response::new(Answer { message, trailers: Some(trailers) });
        *response.headers_mut() = headers;
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
        let data = self.message.take().map(Frame::data);
        let frame = data.or_else(|| self.trailers.take().map(Frame::trailers));
        Poll::Ready(frame.map(Ok))
    }
}

fn prompt() -> Prompt {
    let only = |name, value| HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
    Prompt {
        headers: only(http::header::CONTENT_TYPE, "application/grpc"),
        trailers: only(tonic::Status::GRPC_STATUS, "0"),
    }
}

/// Calls once, to the end of the trailers.
fn call<S, B>(mut service: S, request: http::Request<Body>)
where
    S: Service<http::Request<Body>, Response = http::Response<B>, Error = Infallible>,
    B: http_body::Body,
{
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    let mut called = pin!(service.call(request));
    let Poll::Ready(Ok(response)) = called.as_mut().poll(&mut cx) else { panic!("not ready") };
    let mut body = pin!(response.into_body());
    while let Poll::Ready(Some(frame)) = body.as_mut().poll_frame(&mut cx) {
        assert!(frame.is_ok());
    }
}

/// That of the scripted answer, which is not tonic's, is boxed.
const BODY: u64 = 1;

/// The record of a client's call, and of a server's, in the extensions of the request. Its memory,
/// and that of the body that all layers watch, was that of an earlier call.
const PLACES: u64 = 2;

/// The allocations of a call that is not the first, through client and server.
fn allocations(request: fn() -> http::Request<Body>) -> u64 {
    let metrics = metrics().with_unlisted(|_| true);
    let calls = CallLayer::new(&metrics, TARGET);
    let attempts = AttemptLayer::new(&metrics, TARGET);
    let server = ServerLayer::new(&metrics);
    let stack = || {
        let layers = ServiceBuilder::new().layer(calls.clone()).layer(attempts.clone());
        layers.layer(server.clone()).service(prompt())
    };
    call(stack(), request());
    let (service, request) = (stack(), request());
    let counted = allocation_counter::measure(|| call(service, request));
    assert!(metrics.render().contains("grpc_server_call_duration_seconds_count"));
    counted.count_total
}

/// As a generated client makes it.
fn generated() -> http::Request<Body> {
    let mut request = request();
    request.extensions_mut().insert(tonic::GrpcMethod::new("calculator.Calculator", "Add"));
    request
}

#[tokio::test]
async fn an_observed_call_allocates_only_the_place_of_its_record() {
    assert_eq!(allocations(generated), PLACES + BODY);
}

#[tokio::test]
async fn a_request_of_unknown_length_takes_one_allocation_where_it_is_counted() {
    fn streamed() -> http::Request<Body> {
        let message = Frame::data(Bytes::from_static(&[0, 0, 0, 0, 1, 7]));
        let stream = futures_util::stream::iter([Ok::<_, Infallible>(message)]);
        generated().map(|_| Body::new(http_body_util::StreamBody::new(stream)))
    }
    // By the attempt, and by the server.
    assert_eq!(allocations(streamed), PLACES + BODY + 2);
}
