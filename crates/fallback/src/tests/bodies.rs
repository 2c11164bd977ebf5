//! Which bodies are read.

use super::*;
use http_body::Frame;
use http_body_util::StreamBody;
use std::convert::Infallible;
use tokio_test::{assert_pending, assert_ready_ok, task};

/// A body without frames that never ends.
fn silent() -> Body {
    let never = futures_util::stream::pending::<Result<Frame<Bytes>, Status>>();
    Body::new(StreamBody::new(never))
}

#[tokio::test(start_paused = true)]
async fn streaming_methods_pass_through_unread() {
    let server = ScriptedServer::new([Reply::HeadersThenHang, down()]);
    let client = settings()
        .with_forced("bank.Bank", "")
        .unwrap()
        .with_default("bank.Bank", "", 5_u32.encode_to_vec())
        .unwrap()
        .layer()
        .layer(server);
    let response = client.clone().oneshot(request(WATCH, 1)).await.unwrap();
    assert_eq!(response.status(), 200, "there, though its body never ends");
    assert_eq!(ask(&client, request(WATCH, 1)).await, unavailable());

    let unread = tower::service_fn(|_: Request<Body>| async {
        Ok::<_, Infallible>(Status::unavailable("early").into_http::<Body>())
    });
    let client = caching().layer(unread);
    let upload = Request::post(UPLOAD).body(silent()).unwrap();
    assert_eq!(ask(&client, upload).await, unavailable());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_complete_has_only_the_default() {
    let unread = tower::service_fn(|_: Request<Body>| async {
        Ok::<_, Infallible>(Status::unavailable("early").into_http::<Body>())
    });
    let alternate = ScriptedServer::new([ok(3)]);
    let client = settings()
        .with_alternate(alternate.clone())
        .with_default("bank.Bank", "", 5_u32.encode_to_vec())
        .unwrap()
        .layer()
        .layer(unread);
    let incomplete = Request::post(BALANCE).body(silent()).unwrap();
    assert_eq!(ask(&client, incomplete).await, second("default", 5));
    assert_eq!(alternate.attempts(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_large_answer_is_handed_on_unread_and_not_kept() {
    let large = "x".repeat(70_000);
    let server = ScriptedServer::new([Reply::Ok(encode(&large)), down()]);
    let layer = caching();
    let client = layer.layer(server.clone());
    let response = client.clone().oneshot(balance()).await.unwrap();
    assert!(!response.headers().contains_key(DEGRADED));
    let mut body = response.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), encode(&large));
    assert!(!http_body::Body::is_end_stream(&body));
    let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(status::code(&trailers), Some(Code::Ok));
    assert!(body.frame().await.is_none());
    assert_eq!(layer.counters().kept_entries, 0);
    assert_eq!(ask(&client, balance()).await, unavailable());

    let server = ScriptedServer::new([Reply::Ok(encode(&large))]);
    drop(caching().layer(server.clone()).oneshot(balance()).await.unwrap());
    assert_eq!(server.dropped(), 1, "its end was not read");
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_handed_on_when_it_has_ended() {
    let slow = Reply::After(SECOND, Box::new(ok(7)));
    let server = ScriptedServer::new([slow, Reply::HeadersThenHang]);
    let client = caching().layer(server.clone());
    let mut call = task::spawn(client.clone().oneshot(balance()));
    assert_pending!(call.poll());
    advance(SECOND).await;
    let response = assert_ready_ok!(call.poll());
    assert_eq!(http_body::Body::size_hint(response.body()).exact(), Some(7));
    let mut call = task::spawn(client.oneshot(balance()));
    assert_pending!(call.poll());
    drop(call);
    assert_eq!((server.attempts(), server.dropped()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_failure_without_a_second_answer_is_passed_on_as_it_came() {
    let layer = caching();
    let mut aborted = Status::aborted("conflict");
    aborted.metadata_mut().insert("x-detail", "42".parse().unwrap());
    let server = ScriptedServer::new([
        Reply::MessageThenStatus(encode(&7_u32), aborted.clone()),
        Reply::Status(aborted),
        Reply::Reset(h2::Reason::INTERNAL_ERROR),
    ]);
    let client = layer.layer(server);
    let response = client.clone().oneshot(balance()).await.unwrap();
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-detail"], "42");
    assert_eq!(collected.to_bytes(), encode(&7_u32));
    let response = client.clone().oneshot(balance()).await.unwrap();
    assert_eq!(
        (&response.headers()["grpc-status"], &response.headers()["x-detail"]),
        (&http::HeaderValue::from_static("10"), &http::HeaderValue::from_static("42"),)
    );
    let response = client.oneshot(balance()).await.unwrap();
    let error = response.into_body().collect().await.unwrap_err();
    let reset = cinchona_plumbing::cause::find_cause::<h2::Error>(&error);
    assert!(reset.is_some(), "{error}");
    assert_eq!(layer.counters().none, 3);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_service_below_is_passed_on_unchanged() {
    #[derive(Debug, PartialEq)]
    struct Own(u32);
    impl fmt::Display for Own {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "own {}", self.0)
        }
    }
    impl std::error::Error for Own {}
    let failing = tower::service_fn(|_: Request<Body>| async { Err::<Response<Body>, _>(Own(7)) });
    for path in [BALANCE, WITHDRAW] {
        let error = caching().layer(failing).oneshot(request(path, 1)).await.unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&Own(7)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_without_trailers_is_passed_on_and_not_kept() {
    let bare = tower::service_fn(|_: Request<Body>| async {
        let mut response = Response::new(framed_body(&7_u32));
        let grpc = http::HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(http::header::CONTENT_TYPE, grpc);
        Ok::<_, Infallible>(response)
    });
    let layer = settings().with_default("bank.Bank", "", 5_u32.encode_to_vec()).unwrap().layer();
    let response = layer.layer(bare).oneshot(balance()).await.unwrap();
    assert!(!response.headers().contains_key(DEGRADED));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), encode(&7_u32));
    assert_eq!(layer.counters().kept_entries, 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_one_whole_message_is_passed_on_and_not_kept() {
    let whole = encode(&"of some length".to_owned());
    let cut = whole.slice(..whole.len() - 1);
    for message in [Bytes::new(), whole.slice(..5), cut] {
        let layer = caching();
        let server = ScriptedServer::new([Reply::Ok(message.clone())]);
        let response = layer.layer(server).oneshot(balance()).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), message);
        assert_eq!(layer.counters().kept_entries, 0, "{message:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_answer_of_the_alternate_is_handed_on_marked() {
    let large = "x".repeat(70_000);
    let alternate = ScriptedServer::new([Reply::Ok(encode(&large))]);
    let client = settings().with_alternate(alternate).layer().layer(ScriptedServer::new([down()]));
    let response = client.oneshot(balance()).await.unwrap();
    assert_eq!(response.headers()[DEGRADED], "alternate");
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().and_then(status::code), Some(Code::Ok));
    assert_eq!(collected.to_bytes(), encode(&large));
}
