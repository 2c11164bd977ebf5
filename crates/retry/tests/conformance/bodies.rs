//! Requests whose body fails while it is read: never complete, never retried, with their own
//! errors.

use super::*;
use cinchona_core::BoxError;
use cinchona_retry::{TowerBody, TowerPolicy};
use http_body_util::BodyExt;
use std::sync::{Arc, Mutex};
use tonic::{Streaming, body::Body};
use tower::{ServiceBuilder, util::BoxCloneSyncService};

/// A request as far as the server has read it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Read {
    bytes: Vec<u8>,
    is_complete: bool,
}

type Seen = Arc<Mutex<Vec<Read>>>;

/// A server that executes requests that look complete, and records all.
fn serve(network: &Network) -> (Serving, Seen) {
    let seen = Seen::default();
    let all = seen.clone();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let all = all.clone();
        async move {
            let n = {
                let mut all = all.lock().unwrap();
                all.push(Read::default());
                all.len() - 1
            };
            let mut body = request.into_body();
            loop {
                match body.frame().await {
                    Some(Ok(frame)) => {
                        let data = frame.into_data().unwrap_or_default();
                        all.lock().unwrap()[n].bytes.extend_from_slice(&data);
                    }
                    Some(Err(_)) => std::future::pending().await,
                    None => break,
                }
            }
            all.lock().unwrap()[n].is_complete = true;
            let empty = http::Request::new(Body::empty());
            tower::ServiceExt::oneshot(ScriptedServer::new([ok()]), empty).await
        }
    });
    (network.serve_service(service), seen)
}

type Stack = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, BoxError>;

fn boxed<S, B>(service: S) -> Stack
where
    S: tower::Service<http::Request<Body>, Response = http::Response<B>>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let service = ServiceBuilder::new()
        .map_response(|response: http::Response<B>| response.map(Body::new))
        .map_err(Into::into)
        .service(service);
    BoxCloneSyncService::new(service)
}

/// Every code that there is.
fn every_code() -> impl Iterator<Item = Code> {
    (1..=16).map(Code::from_i32)
}

/// A stack for each way in which a request can be repeated, and one for none.
fn stacks(network: &Network) -> Vec<(&'static str, Stack)> {
    let waiting = Policy::from(retry(4, every_code())).with_wait_for_ready(true);
    let tower_policy = TowerPolicy::new(retry(4, every_code()), Methods::all_idempotent());
    let tower = ServiceBuilder::new()
        .map_request(|request| TowerBody::capture(request, 256 * 1024))
        .retry(tower_policy)
        .map_request(TowerBody::release)
        .service(network.channel());
    vec![
        ("a bare channel", boxed(network.channel())),
        ("without a policy", boxed(layer(Policy::default()).layer(network.channel()))),
        ("retries", boxed(layer(retry(4, every_code())).layer(network.channel()))),
        ("retries that wait for ready", boxed(layer(waiting).layer(network.channel()))),
        ("hedges", boxed(layer(hedge(3, ms(10), every_code())).layer(network.channel()))),
        (
            "all hedges at once",
            boxed(layer(hedge(3, ms(0), every_code())).layer(network.channel())),
        ),
        ("tower's retry", boxed(tower)),
    ]
}

async fn stream(
    stack: Stack,
    items: impl tokio_stream::Stream<Item = Message> + Send + 'static,
    most: usize,
) -> Result<Response<Streaming<Message>>, Status> {
    let mut grpc = Grpc::new(stack).max_encoding_message_size(most);
    grpc.ready().await.map_err(Status::from_error)?;
    grpc.streaming(Request::new(items), PathAndQuery::from_static(PATH), ProstCodec::default())
        .await
}

/// The invariants of a call whose request has failed in this client.
#[track_caller]
fn check(name: &str, status: &Status, seen: &[Read]) {
    assert!(seen.iter().all(|read| !read.is_complete), "{name}: {seen:?}");
    assert!(seen.len() <= 3, "{name}: hedges that were there before, and no retry: {seen:?}");
    // A bare channel reports only that HTTP/2 has reset the stream, and tower's retry passes that
    // on.
    if !["a bare channel", "tower's retry"].contains(&name) {
        assert_eq!(status.code(), Code::OutOfRange, "{name}: {status:?}");
        assert!(status.message().starts_with("Error, encoded message length too large"), "{name}");
    }
}

// catalogue: S-A1
#[tokio::test(start_paused = true)]
async fn a_message_that_cannot_be_encoded_is_never_executed_as_an_empty_one() {
    for nth in 0..stacks(&Network::new()).len() {
        let network = Network::new();
        let (_serving, seen) = serve(&network);
        let (name, stack) = stacks(&network).swap_remove(nth);
        let mut grpc = Grpc::new(stack).max_encoding_message_size(1);
        let status = unary(&mut grpc, Request::new(message(1 << 40))).await.expect_err(name);
        settle().await;
        check(name, &status, &seen.lock().unwrap());
    }
}

// catalogue: S-A1
#[tokio::test(start_paused = true)]
async fn a_stream_that_fails_midway_is_never_complete_and_the_server_gets_what_came_before() {
    for (nth, pause) in (0..stacks(&Network::new()).len()).flat_map(|nth| [(nth, 0), (nth, 50)]) {
        let network = Network::new();
        let (_serving, seen) = serve(&network);
        let (name, stack) = stacks(&network).swap_remove(nth);
        let items = [message(1), message(2), message(1 << 40)];
        let items =
            tokio_stream::StreamExt::then(tokio_stream::iter(items), move |item| async move {
                if pause > 0 {
                    tokio::time::sleep(ms(pause)).await;
                }
                item
            });
        let status = match stream(stack, items, 2).await {
            Err(status) => status,
            Ok(answer) => answer.into_inner().message().await.expect_err(name),
        };
        settle().await;
        let seen = seen.lock().unwrap().clone();
        check(name, &status, &seen);
        if pause > 0 {
            let before = [&encode(&message(1))[..], &encode(&message(2))].concat();
            assert!(seen.iter().any(|read| read.bytes == before), "{name}: {seen:?}");
        }
    }
}

// catalogue: S-F1
#[tokio::test(start_paused = true)]
async fn a_reset_by_this_client_is_its_own_failure_and_one_by_a_server_is_not() {
    let network = Network::new();
    let (_serving, _) = serve(&network);
    let request = http::Request::post("http://s/a.B/C");
    let body = Body::new(http_body_util::StreamBody::new(tokio_stream::iter([Err::<
        http_body::Frame<Bytes>,
        _,
    >(
        Status::not_found("own"),
    )])));
    let outcome = tower::ServiceExt::oneshot(network.channel(), request.body(body).unwrap()).await;
    let verdict = cinchona_core::Verdict::of_error(&outcome.unwrap_err());
    assert_eq!(verdict, cinchona_core::Verdict::Local(Code::Internal));
}

/// A server that answers with a message immediately, and then reads on.
fn serve_early(network: &Network) -> Serving {
    let service = tower::service_fn(|request: http::Request<Body>| async move {
        tokio::spawn(async move {
            let mut body = request.into_body();
            while let Some(Ok(_)) = body.frame().await {}
        });
        let early = ScriptedServer::new([Answer::MessageThenHang(encode(&message(7)))]);
        tower::ServiceExt::oneshot(early, http::Request::new(Body::empty())).await
    });
    network.serve_service(service)
}

// catalogue: S-F1
#[tokio::test(start_paused = true)]
async fn a_request_that_fails_after_the_answer_has_begun_keeps_its_own_error() {
    for nth in 1..stacks(&Network::new()).len() - 1 {
        let network = Network::new();
        let _serving = serve_early(&network);
        let (name, stack) = stacks(&network).swap_remove(nth);
        let items = tokio_stream::iter([message(1), message(1 << 40)]);
        let items = tokio_stream::StreamExt::then(items, |item| async move {
            tokio::time::sleep(ms(50)).await;
            item
        });
        let mut answers = stream(stack, items, 2).await.expect(name).into_inner();
        assert_eq!(answers.message().await.expect(name), Some(message(7)), "{name}");
        let status = answers.message().await.expect_err(name);
        assert_eq!(status.code(), Code::OutOfRange, "{name}: {status:?}");
    }
}

// catalogue: S-A1
#[tokio::test(start_paused = true)]
async fn a_callers_stream_that_panics_is_an_error_of_its_call_and_never_complete() {
    let network = Network::new();
    let (_serving, seen) = serve(&network);
    let stack = boxed(layer(retry(4, every_code())).layer(network.channel()));
    let items = tokio_stream::iter([1, 2]);
    let items = tokio_stream::StreamExt::then(items, |n| async move {
        tokio::time::sleep(ms(50)).await;
        assert!(n < 2, "by the caller's own code");
        message(n)
    });
    let status = stream(stack, items, 100).await.map(|_| ()).unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Internal, "the request's body has panicked")
    );
    settle().await;
    let seen = seen.lock().unwrap();
    assert!(seen.len() == 1 && !seen[0].is_complete, "{seen:?}");
}
