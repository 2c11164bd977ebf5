//! Through real clients and servers over an in-memory network.

use super::*;
use cinchona_core::Methods;
use cinchona_retry::{RetryLayer, RetryPolicy};
use cinchona_testkit::{Answer, Network, ScriptedServer, Serving, encode};
use http::{HeaderValue, uri::PathAndQuery};
use http_body_util::BodyExt;
use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::sleep;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Status, client::Grpc, transport::Channel};
use tonic_prost::ProstCodec;
use tower::{ServiceBuilder, ServiceExt, service_fn};

type Codec = ProstCodec<String, String>;

/// A `string` takes two bytes more as a message.
fn text(length: usize) -> String {
    "x".repeat(length - 2)
}

fn path() -> PathAndQuery {
    PathAndQuery::from_static("/a.B/C")
}

const fn limits(request: Option<u32>, response: Option<u32>) -> MessageLimits {
    MessageLimits { max_request_bytes: request, max_response_bytes: response }
}

fn layer(request: Option<u32>, response: Option<u32>) -> MessageLimitsLayer {
    MessageLimitsSettings::new().with_limits(limits(request, response)).layer()
}

#[track_caller]
fn exhausted(status: &Status, words: &str) {
    assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, words));
}

fn serve(answers: impl IntoIterator<Item = Answer>) -> (ScriptedServer, Channel, Serving) {
    let (server, network) = (ScriptedServer::new(answers), Network::new());
    let serving = network.serve_service(server.clone());
    (server, network.channel(), serving)
}

async fn unary(
    layer: &MessageLimitsLayer,
    channel: Channel,
    message: String,
) -> Result<String, Status> {
    let mut client = Grpc::new(layer.layer(channel));
    client.ready().await.map_err(Status::from_error)?;
    let answer = client.unary(tonic::Request::new(message), path(), Codec::default()).await;
    answer.map(tonic::Response::into_inner)
}

#[tokio::test(start_paused = true)]
async fn a_unary_request_that_is_too_large_is_not_sent() {
    let (server, channel, _serving) = serve([Answer::Ok(encode(&text(10)))]);
    let layer = layer(Some(10), None);
    assert_eq!(unary(&layer, channel.clone(), text(10)).await.unwrap(), text(10));
    let status = unary(&layer, channel, text(11)).await.unwrap_err();
    exhausted(&status, "trying to send message larger than max (11 vs. 10)");
    assert_eq!(server.attempts(), 1, "the one that fits");
}

#[tokio::test(start_paused = true)]
async fn a_unary_response_that_is_too_large_fails_the_call() {
    let (server, channel, _serving) = serve([Answer::Ok(encode(&text(10)))]);
    for (most, fits) in [(10, true), (9, false), (u32::MAX, true), (0, false)] {
        let answer = unary(&layer(None, Some(most)), channel.clone(), text(10)).await;
        match fits {
            true => assert_eq!(answer.unwrap(), text(10)),
            false => {
                let words = format!("received message larger than max (10 vs. {most})");
                exhausted(&answer.unwrap_err(), &words);
            }
        }
    }
    assert_eq!(server.attempts(), 4);
}

#[tokio::test(start_paused = true)]
async fn with_a_limit_of_0_a_message_must_be_empty() {
    let (server, channel, _serving) = serve([Answer::Ok(encode(&String::new()))]);
    let layer = layer(Some(0), Some(0));
    assert_eq!(unary(&layer, channel.clone(), String::new()).await.unwrap(), "");
    exhausted(
        &unary(&layer, channel, text(3)).await.unwrap_err(),
        "trying to send message larger than max (3 vs. 0)",
    );
    assert_eq!(server.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn of_the_applications_limit_and_the_methods_the_smaller_counts() {
    let (_, channel, _serving) = serve([Answer::Ok(encode(&text(10)))]);
    for (own, by_method, most) in
        [(Some(5), Some(7), 5), (Some(7), Some(5), 5), (None, Some(5), 5), (Some(5), None, 5)]
    {
        let layer = layer(None, own);
        let mut methods = PerMethod::new();
        methods.insert("a.B", "C", limits(None, by_method)).unwrap();
        methods.insert("a.B", "", limits(None, Some(1))).unwrap();
        layer.set_limits(methods);
        let status = unary(&layer, channel.clone(), text(3)).await.unwrap_err();
        exhausted(&status, &format!("received message larger than max (10 vs. {most})"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_is_never_retried() {
    let (server, channel, _serving) = serve([Answer::Ok(encode(&text(10)))]);
    let policy = RetryPolicy::default().with_forced_codes(cinchona_plumbing::code::all());
    let retry = RetryLayer::new(policy, Methods::all_idempotent());
    for (layer, sent) in [(layer(Some(4), None), 0), (layer(None, Some(4)), 1)] {
        let stack = ServiceBuilder::new().layer(layer).layer(retry.clone());
        let mut client = Grpc::new(stack.service(channel.clone()));
        client.ready().await.unwrap();
        let request = tonic::Request::new(text(5));
        let status = client.unary(request, path(), Codec::default()).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(server.attempts(), sent);
    }
}

/// How many bytes of each request arrived, and whether it was complete.
type Read = Arc<Mutex<Vec<(usize, bool)>>>;

async fn drain(request: Request<Body>, read: Read) -> Result<Response<Body>, Infallible> {
    let mut body = request.into_body();
    let mut bytes = 0;
    let complete = loop {
        match body.frame().await {
            None => break true,
            Some(Err(_)) => break false,
            Some(Ok(frame)) => bytes += frame.into_data().map_or(0, |data| data.len()),
        }
    };
    read.lock().unwrap_or_else(PoisonError::into_inner).push((bytes, complete));
    Ok(Status::ok("").into_http())
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_requests_fails_at_the_message_that_is_too_large_and_is_never_complete() {
    let read = Read::default();
    let (noting, network) = (read.clone(), Network::new());
    let _serving = network.serve_service(service_fn(move |request| drain(request, noting.clone())));
    let retry = RetryLayer::new(RetryPolicy::default(), Methods::all_idempotent());
    let stack = ServiceBuilder::new().layer(layer(Some(10), None)).layer(retry);
    let mut client = Grpc::new(stack.service(network.channel()));
    for pause in [Duration::ZERO, Duration::from_millis(5)] {
        client.ready().await.unwrap();
        let messages = tokio_stream::iter([text(10), text(9), text(11), text(3)]);
        let messages = messages.then(move |message| async move {
            if !pause.is_zero() {
                sleep(pause).await;
            }
            message
        });
        let request = tonic::Request::new(Box::pin(messages));
        let answer = client.client_streaming(request, path(), Codec::default()).await;
        exhausted(&answer.unwrap_err(), "trying to send message larger than max (11 vs. 10)");
    }
    sleep(Duration::from_secs(1)).await;
    let read = read.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert!(read.iter().all(|(_, complete)| !complete), "{read:?}");
    assert_eq!(read.last().unwrap().0, 15 + 14, "the two that fit");
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_responses_delivers_what_fits_and_then_fails() {
    let messages = [text(5), text(6), text(7), text(3)];
    let frames: Vec<u8> = messages.iter().flat_map(|message| encode(message).to_vec()).collect();
    let (_, channel, _serving) = serve([Answer::Ok(frames.into())]);
    let mut client = Grpc::new(layer(None, Some(6)).layer(channel));
    client.ready().await.unwrap();
    let request = tonic::Request::new(String::new());
    let answer = client.server_streaming(request, path(), Codec::default()).await.unwrap();
    let mut answers = answer.into_inner();
    assert_eq!(answers.message().await.unwrap(), Some(text(5)));
    assert_eq!(answers.message().await.unwrap(), Some(text(6)));
    let status = answers.message().await.unwrap_err();
    exhausted(&status, "received message larger than max (7 vs. 6)");
}

#[tokio::test(start_paused = true)]
async fn a_call_both_ways_fails_with_its_request_after_the_answer_has_begun() {
    let network = Network::new();
    let echo = service_fn(|request: Request<Body>| async {
        let mut response = Response::new(request.into_body());
        let grpc = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(CONTENT_TYPE, grpc);
        Ok::<_, Infallible>(response)
    });
    let _serving = network.serve_service(echo);
    let mut client = Grpc::new(layer(Some(4), None).layer(network.channel()));
    client.ready().await.unwrap();
    let (send, receive) = tokio::sync::mpsc::channel(4);
    send.send(text(4)).await.unwrap();
    let request = tonic::Request::new(ReceiverStream::new(receive));
    let answer = client.streaming(request, path(), Codec::default()).await.unwrap();
    let mut answers: tonic::Streaming<String> = answer.into_inner();
    assert_eq!(answers.message().await.unwrap(), Some(text(4)));
    send.send(text(5)).await.unwrap();
    let status = answers.message().await.unwrap_err();
    exhausted(&status, "trying to send message larger than max (5 vs. 4)");
}

#[tokio::test(start_paused = true)]
async fn limits_that_are_replaced_are_those_of_the_calls_that_begin_after() {
    let slow = Answer::After(Duration::from_secs(1), Box::new(Answer::Ok(encode(&text(10)))));
    let (_, channel, _serving) = serve([slow]);
    let layer = MessageLimitsLayer::new();
    let running = tokio::spawn({
        let (layer, channel) = (layer.clone(), channel.clone());
        async move { unary(&layer, channel, text(3)).await }
    });
    sleep(Duration::from_millis(500)).await;
    layer.set_limits(PerMethod::from(limits(None, Some(5))));
    assert_eq!(running.await.unwrap().unwrap(), text(10));
    assert_eq!(unary(&layer, channel, text(3)).await.unwrap_err().code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn a_page_of_a_proxy_is_no_message() {
    let page = service_fn(|_: Request<Body>| async {
        let mut response = Response::new(http_body_util::Full::from("<html>502</html>"));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
        Ok::<_, Infallible>(response)
    });
    let limited = layer(None, Some(4)).layer(page);
    let response = limited.oneshot(Request::new(Body::empty())).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "<html>502</html>");
}

#[tokio::test]
async fn the_body_that_is_default_is_empty() {
    let body = ResponseBody::default();
    assert!(http_body::Body::is_end_stream(&body));
    assert_eq!(body.collect().await.unwrap().to_bytes(), "");
}
