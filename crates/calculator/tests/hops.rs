//! A call that makes a call that makes a call.

use super::*;
use calculator::client::stack;
use cinchona::{core::Deadline, deadline::ServerDeadlineLayer};
use http::Request as HttpRequest;
use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex},
};
use tonic::{Response, server::Grpc};
use tonic_prost::ProstCodec;
use tower::{Layer, Service, ServiceExt, service_fn};

/// What each server received: its name, the time that is left, and the number of previous attempts.
type Received = Arc<Mutex<Vec<(&'static str, Duration, u32)>>>;

/// How long a handler works before it asks the next server.
const WORK: Duration = Duration::from_millis(50);

/// Serves, behind the server's deadline layer, a handler that notes what it received and then asks
/// the next server, or hangs where there is none.
fn hop(name: &'static str, next: Option<&Network>, received: &Received) -> Network {
    let network = Network::new();
    network.set_latency(Duration::from_millis(10));
    let settings = retrying([Code::DeadlineExceeded, Code::Unavailable]);
    let next = next.map(|next| stack(next.channel(), &settings.layers().unwrap()));
    let received = received.clone();
    let handler = service_fn(move |request: HttpRequest<Body>| {
        let left = Deadline::parse_timeout(request.headers()).unwrap().unwrap();
        let previous = cinchona_plumbing::status::previous_attempts(request.headers());
        received.lock().unwrap().push((name, left, previous));
        let next = next.clone();
        async move {
            let Some(mut next) = next else { return pending().await };
            tokio::time::sleep(WORK).await;
            let request = HttpRequest::builder().uri("http://next/a.B/C").body(Body::empty());
            let answer = next.ready().await.unwrap().call(request.unwrap()).await;
            let failed = |error| Status::from_error(error).into_http();
            Ok::<_, Infallible>(answer.map_or_else(failed, |head| head.map(Body::new)))
        }
    });
    let served = ServerDeadlineLayer::new().layer(handler);
    let served = service_fn(move |request: HttpRequest<_>| served.clone().oneshot(request));
    std::mem::forget(network.serve_service(served));
    network
}

// catalogue: S-A15
#[tokio::test(start_paused = true)]
async fn over_three_hops_the_deadline_shrinks_and_only_the_first_caller_retries() {
    let received = Received::default();
    let third = hop("third", None, &received);
    let second = hop("second", Some(&third), &received);
    let first = hop("first", Some(&second), &received);

    let settings = Settings { timeout: SECOND, ..retrying([Code::DeadlineExceeded]) };
    let mut client = client(first.channel(), &settings.layers().unwrap());
    let mut request = Request::new(operation(1.0, 2.0));
    request.set_timeout(3 * SECOND);
    let began = Instant::now();
    let status = client.add(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(Instant::now() - began <= 3 * SECOND);

    let received = received.lock().unwrap();
    let attempts = Ledger::of(&status).unwrap().attempts().len();
    assert!(attempts > 1, "{received:?}");
    // One chain for each attempt of the first caller, and no more.
    let chains: Vec<_> = received.chunks(3).collect();
    assert_eq!(chains.len(), attempts, "{received:?}");
    for (n, chain) in chains.iter().enumerate() {
        let names: Vec<_> = chain.iter().map(|(name, ..)| *name).collect();
        assert_eq!(names, ["first", "second", "third"]);
        let left: Vec<_> = chain.iter().map(|(_, left, _)| *left).collect();
        assert!(left[0] >= left[1] + WORK && left[1] >= left[2] + WORK, "{left:?}");
        assert_eq!(chain[0].2 as usize, n);
    }
}

/// What the second of three servers does with the failure of the third: its status, for the caller.
type Hands = fn(Status) -> Status;

/// The second of three asks the third for a sum, in its own task or `elsewhere`.
async fn second(
    client: Client,
    request: BinaryOperation,
    elsewhere: bool,
) -> Result<Value, Status> {
    let ask = async move { client.clone().add(request).await.map(Response::into_inner) };
    if elsewhere { tokio::spawn(ask).await.unwrap() } else { ask.await }
}

type Stream = Pin<Box<dyn tokio_stream::Stream<Item = Result<Value, Status>> + Send>>;

/// Serves, behind the server's deadline layer, what asks the third server and passes its failures
/// on as it `hands` them.
fn relay(third: &Network, hands: Hands, elsewhere: bool) -> Network {
    let settings = Settings { timeout: SECOND, ..retrying([]) };
    let client = client(third.channel(), &settings.layers().unwrap());
    let handler = service_fn(move |request: HttpRequest<Body>| {
        let (client, is_stream) = (client.clone(), request.uri().path().ends_with("Range"));
        async move {
            let add = service_fn(move |request: Request<BinaryOperation>| {
                let asked = second(client.clone(), request.into_inner(), elsewhere);
                async move { asked.await.map(Response::new).map_err(hands) }
            });
            let mut grpc = Grpc::new(ProstCodec::<Value, BinaryOperation>::default());
            if !is_stream {
                return Ok::<_, Infallible>(grpc.unary(add, request).await);
            }
            let range = service_fn(move |request: Request<BinaryOperation>| {
                let asked = add.clone().call(request);
                async move {
                    let begun = tokio_stream::once(Ok(Value { value: 1.0 }));
                    let failed = asked.await.map(Response::into_inner);
                    let all: Stream = Box::pin(begun.chain(tokio_stream::once(failed)));
                    Ok::<_, Status>(Response::new(all))
                }
            });
            Ok(grpc.server_streaming(range, request).await)
        }
    });
    let served = ServerDeadlineLayer::new().layer(handler);
    let network = Network::new();
    let served = service_fn(move |request: HttpRequest<_>| served.clone().oneshot(request));
    std::mem::forget(network.serve_service(served));
    network
}

/// A failure with all that the third server says to the second alone, and what it says to anyone.
fn theirs() -> Status {
    let mut status = Status::with_details(Code::Unavailable, "the disk is full", "why".into());
    for (name, value) in [
        ("grpc-retry-pushback-ms", "-1"),
        ("idempotency-domain", "third"),
        ("degraded", "third"),
        ("server", "third"),
        ("date", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("x-disk", "sda"),
    ] {
        status.metadata_mut().insert(name, value.parse().unwrap());
    }
    status
}

/// The status that the first of three servers receives from the second, which receives `answer`
/// from the third; in trailers, for a stream.
async fn first(answer: Answer, hands: Hands, elsewhere: bool, is_stream: bool) -> Status {
    let third = Network::new();
    let _serving = third.serve_service(ScriptedServer::new([answer]));
    let mut plain = CalculatorClient::new(relay(&third, hands, elsewhere).channel());
    if !is_stream {
        return plain.add(operation(1.0, 2.0)).await.unwrap_err();
    }
    let request = RangeRequest { first: 1.0, last: 2.0, step: None };
    let mut answers = plain.range(request).await.unwrap().into_inner();
    assert_eq!(answers.next().await.unwrap().unwrap().value, 1.0);
    answers.next().await.unwrap().unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn a_status_is_handed_on_without_what_was_said_to_this_hop_alone() {
    for (answer, elsewhere, is_stream) in [
        (Answer::Status(theirs()), false, false),
        (Answer::Status(theirs()), true, false),
        (Answer::Status(theirs()), false, true),
        (Answer::HeadersThenStatus(theirs()), false, false),
        (Answer::MessageThenStatus(encode(&Value { value: 1.0 }), theirs()), false, false),
    ] {
        let said = format!("{answer:?} {elsewhere} {is_stream}");
        let status = first(answer, |theirs| theirs, elsewhere, is_stream).await;
        assert_eq!((status.code(), status.message()), (Code::Unavailable, "the disk is full"));
        assert_eq!(status.details(), b"why");
        assert_eq!(status.metadata().get("x-disk").unwrap(), "sda");
        for name in ["grpc-retry-pushback-ms", "idempotency-domain", "degraded", "server"] {
            assert_eq!(status.metadata().get(name), None, "{name}: {said}");
        }
        let date = status.metadata().get("date").map(|date| date.to_str().unwrap());
        assert_ne!(date, Some("Thu, 01 Jan 1970 00:00:00 GMT"), "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_handler_asks_for_itself_is_said_even_where_it_is_the_same() {
    fn own(_: Status) -> Status {
        let mut own = Status::unavailable("busy");
        own.metadata_mut().insert("grpc-retry-pushback-ms", "-1".parse().unwrap());
        own
    }
    fn changed(mut theirs: Status) -> Status {
        theirs.metadata_mut().insert("grpc-retry-pushback-ms", "250".parse().unwrap());
        theirs
    }
    for (hands, expected) in [(own as Hands, "-1"), (changed, "250")] {
        for is_stream in [false, true] {
            let status = first(Answer::Status(theirs()), hands, false, is_stream).await;
            assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), expected);
            assert_eq!(status.metadata().get("idempotency-domain"), None);
        }
    }
}
