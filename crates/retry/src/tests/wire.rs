//! What servers and proxies see, and say: real tonic channels over in-memory HTTP/2.

use super::*;
use bytes::Bytes;
use cinchona_plumbing::ReplayBuffer;
use cinchona_testkit::{Network, encode};
use http::HeaderMap;
use tonic::client::Grpc;

/// One unary call of the real client; the message is a `Duration`, as any would do.
async fn call(
    layer: RetryLayer,
    script: impl IntoIterator<Item = Answer>,
    message: prost_types::Duration,
) -> (ScriptedServer, Result<tonic::Response<prost_types::Duration>, Status>) {
    let (server, network) = (ScriptedServer::new(script), Network::new());
    let _serving = network.serve_service(server.clone());
    let mut client = Grpc::new(layer.layer(network.channel()));
    client.ready().await.unwrap();
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("k", "v".parse().unwrap());
    let path = http::uri::PathAndQuery::from_static("/a.B/C");
    let codec = tonic_prost::ProstCodec::default();
    let outcome = client.unary(request, path, codec).await;
    (server, outcome)
}

fn message() -> prost_types::Duration {
    prost_types::Duration { seconds: 7, nanos: 0 }
}

fn answer() -> Answer {
    Answer::Ok(encode(&message()))
}

/// A failure that asks something of the next retry.
fn pushing_back(pushback: &str) -> Answer {
    let mut headers = HeaderMap::new();
    headers.insert("grpc-status", "14".parse().unwrap());
    headers.insert("grpc-retry-pushback-ms", pushback.parse().unwrap());
    Answer::Raw(headers)
}

fn unavailable_settings() -> RetrySettings {
    settings(on([Code::Unavailable]))
}

fn unavailable() -> RetryLayer {
    unavailable_settings().layer()
}

fn ledger(outcome: &Result<tonic::Response<prost_types::Duration>, Status>) -> &Ledger {
    Ledger::of(outcome.as_ref().unwrap_err()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn every_attempt_is_the_same_request_but_for_its_number() {
    let script = [failing(Code::Unavailable), failing(Code::Unavailable), answer()];
    let (server, outcome) = call(unavailable(), script, message()).await;
    assert_eq!(outcome.unwrap().into_inner(), message());
    let received = server.received();
    assert_eq!(received.len(), 3);
    for (n, attempt) in received.iter().enumerate() {
        assert_eq!((&*attempt.path, attempt.message()), ("/a.B/C", Some(message())));
        assert_eq!(attempt.headers["k"], "v");
        let previous = attempt.headers.get("grpc-previous-rpc-attempts");
        assert_eq!(
            previous.map(|n| n.to_str().unwrap().to_owned()),
            (n > 0).then(|| n.to_string())
        );
    }
}

#[tokio::test(start_paused = true)]
async fn pushback_sets_the_wait_and_the_backoff_begins_anew() {
    let script =
        [failing(Code::Unavailable), pushing_back("30000"), failing(Code::Unavailable), answer()];
    let (server, _) = call(unavailable(), script, message()).await;
    let gaps = gaps(&server);
    assert_eq!(gaps[1], 30 * SECOND);
    assert!(gaps[2] < 2 * SECOND, "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn negative_or_meaningless_pushback_forbids_the_retry() {
    for pushback in ["-1", "soon", "", "99999999999"] {
        let (server, outcome) = call(unavailable(), [pushing_back(pushback)], message()).await;
        assert_eq!((server.attempts(), ledger(&outcome).stopped()), (1, Stop::Pushback));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_over_the_buffer_is_sent_once_and_whole() {
    let layer = unavailable_settings().with_buffer(ReplayBuffer::new(4, 4)).layer();
    let (server, outcome) = call(layer, [failing(Code::Unavailable)], message()).await;
    assert_eq!(ledger(&outcome).stopped(), Stop::BodyTooLarge);
    let received = server.received();
    assert_eq!((received.len(), received[0].message()), (1, Some(message())));
}

#[tokio::test(start_paused = true)]
async fn a_refused_stream_is_repeated_once_immediately_and_does_not_count() {
    let refused = || Answer::Reset(h2::Reason::REFUSED_STREAM);
    let began = Instant::now();
    let script = [refused(), answer()];
    let none = layer(RetryPolicy::default().with_max_retries(0));
    let (server, outcome) = call(none, script, message()).await;
    let ledger = outcome.unwrap().extensions().get::<Ledger>().unwrap().clone();
    assert_eq!((ledger.attempts().len(), Instant::now()), (2, began));
    assert!(!server.received()[1].headers.contains_key("grpc-previous-rpc-attempts"));

    let (server, outcome) = call(unavailable(), [refused(), refused(), answer()], message()).await;
    assert!(outcome.is_ok());
    assert!(gaps(&server)[1] >= SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_response_that_has_begun_is_final() {
    let begun = Answer::HeadersThenStatus(Status::unavailable("late"));
    let (server, outcome) = call(unavailable(), [begun, answer()], message()).await;
    assert_eq!((server.attempts(), outcome.unwrap_err().code()), (1, Code::Unavailable));
}

#[tokio::test(start_paused = true)]
async fn the_failure_is_the_last_one_with_its_message_details_and_metadata() {
    let details = Bytes::from_static(b"why");
    let mut last = Status::with_details(Code::Unavailable, "last", details.clone());
    last.metadata_mut().insert("hint", "elsewhere".parse().unwrap());
    let layer = layer(on([Code::Unavailable]).with_max_retries(1));
    let script = [failing(Code::Unavailable), Answer::Status(last)];
    let (_, outcome) = call(layer, script, message()).await;
    let status = outcome.as_ref().unwrap_err();
    assert_eq!((status.message(), status.details()), ("last", &*details));
    assert_eq!(status.metadata().get("hint").unwrap(), "elsewhere");
    let text = ledger(&outcome).to_string();
    assert!(
        text.starts_with("2 attempts, stopped: exhausted\n  #1 UNAVAILABLE after 0.0ns, waited 1.")
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_lost_during_an_attempt_is_unavailable() {
    let (server, network) = (ScriptedServer::new([Answer::Hang, ok()]), Network::new());
    let _serving = network.serve_service(server.clone());
    let client = unavailable().layer(network.channel());
    let cut = async {
        while server.attempts() == 0 {
            tokio::task::yield_now().await;
        }
        network.reset();
    };
    let (outcome, ()) = tokio::join!(client.oneshot(request()), cut);
    let response = outcome.unwrap();
    let ledger = response.extensions().get::<Ledger>().unwrap();
    assert_eq!(ledger.attempts()[0].verdict.code(), Code::Unavailable);
}
