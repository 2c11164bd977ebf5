//! Requests that fail while they are read: never complete, never answered, with their own errors.

use super::*;
use cinchona_testkit::Network;
use futures_util::{StreamExt, stream};
use http_body::Frame;
use http_body_util::StreamBody;
use tonic::{Streaming, client::Grpc};
use tonic_prost::ProstCodec;

/// A frame of a request's body, after a wait or immediately.
#[derive(Clone, Copy, Debug)]
enum Piece {
    Data,
    Wait,
}

/// A request whose body yields `pieces`, and then fails.
fn failing(pieces: &'static [Piece], code: Code) -> Request<Body> {
    let frames = stream::iter(pieces).filter_map(async |piece| match piece {
        Piece::Data => Some(Ok(Frame::data(encode(&1_u32)))),
        Piece::Wait => {
            tokio::time::sleep(SECOND).await;
            None
        }
    });
    let failure = stream::iter([Err(Status::new(code, "own words"))]);
    let body = Body::new(StreamBody::new(frames.chain(failure)));
    Request::post(BALANCE).body(body).unwrap()
}

const BODIES: [&[Piece]; 5] = [
    &[],
    &[Piece::Data],
    &[Piece::Data, Piece::Data],
    &[Piece::Wait, Piece::Data],
    &[Piece::Data, Piece::Wait],
];

fn layers(alternate: &ScriptedServer) -> [FallbackLayer; 4] {
    let plain = || FallbackSettings::new(methods());
    let all =
        |own: FallbackSettings| own.with_default("bank.Bank", "", 5_u32.encode_to_vec()).unwrap();
    let asking = |own: FallbackSettings| own.with_alternate(alternate.clone());
    let all = [all(plain()), all(settings()), asking(plain()), all(asking(settings()))];
    all.map(|settings| settings.layer())
}

async fn fails_by_itself<S, B>(client: Fallback<S>, request: Request<Body>, code: Code)
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let error = client.oneshot(request).await.unwrap_err();
    let status = error.downcast_ref::<Status>().unwrap();
    assert_eq!((status.code(), status.message()), (code, "own words"));
}

// catalogue: S-A1, S-F1
#[tokio::test(start_paused = true)]
async fn a_request_that_fails_is_passed_on_as_failing_and_has_no_second_answer() {
    let replies = [
        down(),
        Reply::HeadersThenStatus(Status::internal("the stream was reset")),
        Reply::Status(Status::not_found("simulated")),
        Reply::Reset(h2::Reason::CANCEL),
    ];
    for (pieces, reply) in
        BODIES.iter().flat_map(|body| replies.iter().map(move |reply| (body, reply)))
    {
        for code in [Code::Internal, Code::Unavailable, Code::OutOfRange, Code::Cancelled] {
            let alternate = ScriptedServer::new([ok(3)]);
            for layer in layers(&alternate) {
                let server = ScriptedServer::new([reply.clone()]);
                let client = layer.layer(server.clone());
                fails_by_itself(client, failing(pieces, code), code).await;
                let [received] = &server.received()[..] else { panic!("one request") };
                assert!(!received.is_complete, "{pieces:?}");
                let many = pieces.iter().filter(|piece| matches!(piece, Piece::Data)).count();
                assert_eq!(received.body, encode(&1_u32).repeat(many));
                let none = FallbackCounters::default();
                assert_eq!(layer.counters(), none, "{pieces:?} {reply:?}");
            }
            assert_eq!(alternate.attempts(), 0, "{pieces:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_fails_neither_takes_back_nor_replaces_what_is_kept() {
    for reply in [ok(8), Reply::Status(Status::not_found("simulated"))] {
        let client = caching().layer(ScriptedServer::new([ok(7), reply, down()]));
        ask(&client, balance()).await;
        let _ = ask(&client, failing(&[Piece::Data], Code::Internal)).await;
        assert_eq!(ask(&client, balance()).await, cached(7, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_not_sent_is_answered_like_any_other_in_an_outage() {
    let failing_below = tower::service_fn(|_: Request<Body>| async {
        Err::<Response<Body>, _>(Status::unavailable("no connection"))
    });
    let [layer, ..] = layers(&ScriptedServer::new([]));
    let client = layer.layer(failing_below);
    let slow = failing(&[Piece::Wait], Code::Internal);
    assert_eq!(ask(&client, slow).await, second("default", 5), "no server has read it");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_too_large_to_encode_is_not_executed_as_an_empty_one() {
    let alternate = ScriptedServer::new([ok(3)]);
    for layer in layers(&alternate) {
        let net = Network::new();
        let server = ScriptedServer::new([ok(7)]);
        let _serving = net.serve_service(server.clone());
        let origin = http::Uri::from_static("http://bank");
        let client = layer.layer(net.channel());
        let mut client = Grpc::with_origin(client, origin).max_encoding_message_size(10);
        client.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static(BALANCE);
        let codec = ProstCodec::<String, u32>::default();
        let call = tonic::Request::new(stream::iter(["x".repeat(100)]));
        let got: Result<tonic::Response<Streaming<u32>>, _> =
            client.streaming(call, path.clone(), codec).await;
        let status = got.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
        assert!(status.message().starts_with("Error, encoded message length too large"));
        let call = tonic::Request::new("x".repeat(100));
        let codec = ProstCodec::<String, u32>::default();
        client.ready().await.unwrap();
        let status = client.unary(call, path, codec).await.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
        tokio::time::sleep(SECOND).await;
        assert!(server.received().iter().all(|received| !received.is_complete));
        assert_eq!(layer.counters(), FallbackCounters::default());
    }
    assert_eq!(alternate.attempts(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_this_clients_http2_library_resets_has_no_second_answer() {
    let net = Network::new();
    let _serving = net.serve_service(ScriptedServer::new([ok(7)]));
    for layer in layers(&ScriptedServer::new([ok(3)])) {
        // A layer below that cannot process a request which was whole.
        let broken = tower::util::MapRequest::new(net.channel(), |_: Request<Body>| {
            let mut request = failing(&[Piece::Data], Code::Internal);
            *request.uri_mut() = http::Uri::from_static("http://bank/bank.Bank/Balance");
            request
        });
        assert_eq!(ask(&layer.layer(broken), balance()).await, failed(Code::Internal));
        assert_eq!(layer.counters(), FallbackCounters::default());
    }
}
