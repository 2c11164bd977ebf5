//! Servers that stop, over the in-memory network.

use super::*;
use bytes::Bytes;
use cinchona_testkit::{Connection, Network};
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame};
use http_body_util::{BodyExt, StreamBody};
use std::{convert::Infallible, future::pending};
use tokio::{io::AsyncWriteExt, runtime::Handle, sync::oneshot, time::sleep};
use tonic::{
    Code, Status,
    body::Body,
    transport::{Channel, Server},
};
use tower::{Layer, Service, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);
const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// Large enough to fill a window soon, and in one frame: the prefix of a message, and 16,000 bytes.
const MESSAGE: [u8; 16_005] = {
    let mut message = [0; 16_005];
    [message[3], message[4]] = 16_000_u16.to_be_bytes();
    message
};

type Served = Option<Result<(), tonic::transport::Error>>;

/// Answers by the path: one message and no end, messages without end, or after so many
/// milliseconds.
async fn answer(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let message = || Ok::<_, Status>(Frame::data(Bytes::from_static(&MESSAGE)));
    let path = request.uri().path().to_owned();
    let body = match path.as_str() {
        WATCH | "/t/Stream" => {
            let held = stream::once(async move { message() }).chain(stream::pending());
            Body::new(StreamBody::new(held))
        }
        "/t/Endless" => Body::new(StreamBody::new(stream::repeat_with(message))),
        "/t/Reads" => {
            drop(request.into_body().collect().await);
            return Ok(Status::ok("").into_http());
        }
        "/t/Never" => pending().await,
        wait => {
            sleep(Duration::from_millis(wait.trim_start_matches("/t/").parse().unwrap())).await;
            return Ok(Status::ok("").into_http());
        }
    };
    let mut response = Response::new(body);
    response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    Ok(response)
}

fn request(path: &str, body: Body) -> Request<Body> {
    let request = Request::post(format!("http://server{path}"));
    request.header("content-type", "application/grpc").body(body).unwrap()
}

/// The messages and the status of a call.
async fn call(channel: Channel, path: &str, body: Body) -> (usize, Code) {
    let response = match channel.oneshot(request(path, body)).await {
        Ok(response) => response,
        Err(error) => return (0, Status::from_error(Box::new(error)).code()),
    };
    let code = |headers: &HeaderMap| Status::from_header_map(headers).map(|status| status.code());
    let (head, mut body) = response.into_parts();
    let (mut messages, mut ended) = (0, code(&head.headers));
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(_)) => {
                messages += 1;
                // Time advances while there is always more to read.
                sleep(SECOND / 10).await;
            }
            Ok(Err(trailers)) => ended = code(trailers.trailers_ref().unwrap()),
            Err(status) => {
                ended = Some(status.code());
                break;
            }
        }
    }
    (messages, ended.unwrap())
}

/// A server that the channel stops; its result and when it returned.
fn serve(
    drain: &Drain,
    networks: &[&Network],
) -> (oneshot::Sender<()>, tokio::task::JoinHandle<(Served, Duration)>) {
    let incoming: Vec<_> = networks.iter().map(|network| Box::pin(network.incoming())).collect();
    let incoming = stream::select_all(incoming);
    let (drain, (stop, stopped)) = (drain.clone(), oneshot::channel::<()>());
    let serving = tokio::spawn(async move {
        let mut began = Instant::now();
        let shutdown = async {
            _ = stopped.await;
            began = Instant::now();
        };
        let serving = Server::builder().layer(drain.layer()).serve_with_incoming_shutdown(
            service_fn(answer),
            drain.incoming(incoming),
            drain.begun(),
        );
        let served = drain.serve(shutdown, serving).await;
        (served, Instant::now() - began)
    });
    (stop, serving)
}

fn endless() -> Body {
    Body::new(StreamBody::new(stream::pending::<Result<Frame<Bytes>, Status>>()))
}

/// Sends these bytes, and nothing after them.
async fn half(network: &Network, bytes: &[u8]) -> Connection {
    let mut connection = network.connect().await.unwrap();
    connection.write_all(bytes).await.unwrap();
    connection
}

// catalogue: S-P7
#[tokio::test(start_paused = true)]
async fn a_server_ends_within_its_grace_despite_any_client() {
    let before = Handle::current().metrics().num_alive_tasks();
    for grace in [0, 1, 10, 60].map(|seconds| seconds * SECOND) {
        let (drain, network, vanishing) = (Drain::new(grace), Network::new(), Network::new());
        let (stop, serving) = serve(&drain, &[&network, &vanishing]);
        let begin =
            |network: &Network, path, body| tokio::spawn(call(network.channel(), path, body));
        let short = begin(&network, "/t/800", Body::empty());
        let watch = begin(&network, WATCH, Body::empty());
        let held: Vec<_> = ["/t/Stream", "/t/Endless", "/t/Never", "/t/99999999"]
            .map(|path| begin(&network, path, Body::empty()))
            .into();
        let sending = begin(&network, "/t/Reads", endless());
        // Idle, half a preface, a preface and no settings, one that never reads, one that is gone.
        let idle = network.channel();
        assert_eq!(call(idle.clone(), "/t/0", Body::empty()).await.1, Code::Ok);
        let _halves = (
            half(&network, b"PRI * HT").await,
            half(&network, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await,
            network.connect().await.unwrap(),
        );
        let mut slow = network.channel();
        let unread = slow.ready().await.unwrap().call(request("/t/Endless", Body::empty())).await;
        let gone = begin(&vanishing, "/t/Stream", Body::empty());
        sleep(SECOND / 2).await;
        vanishing.freeze();
        stop.send(()).unwrap();
        let (served, took) = serving.await.unwrap();
        assert!(served.is_some_and(|served| served.is_ok()), "{grace:?}");
        assert!(took <= grace + SECOND / 100, "{grace:?}: {took:?}");
        assert_eq!(drain.connections(), 0);
        let said = short.await.unwrap();
        assert_eq!(said.1 == Code::Ok, grace > Duration::ZERO, "{grace:?}: {said:?}");
        if grace > Duration::ZERO {
            assert_eq!(watch.await.unwrap(), (1, Code::Unavailable));
            assert_eq!(sending.await.unwrap().1, Code::Unavailable);
            let mut codes = Vec::new();
            for held in held {
                codes.push(held.await.unwrap().1);
            }
            // A slow reader of an endless stream does not reach its status.
            assert_ne!(codes.remove(1), Code::Ok);
            assert_eq!(codes, [Code::Unavailable; 3], "{grace:?}");
        } else {
            watch.abort();
            sending.abort();
            held.iter().for_each(tokio::task::JoinHandle::abort);
        }
        gone.abort();
        drop((unread, slow, idle));
        sleep(SECOND).await;
    }
    assert_eq!(Handle::current().metrics().num_alive_tasks(), before);
}

// catalogue: S-P7
#[tokio::test(start_paused = true)]
async fn watches_and_idle_connections_delay_no_shutdown() {
    let (drain, network) = (Drain::default(), Network::new());
    let (stop, serving) = serve(&drain, &[&network]);
    let watches: Vec<_> =
        (0..10).map(|_| tokio::spawn(call(network.channel(), WATCH, Body::empty()))).collect();
    let idle = network.channel();
    assert_eq!(call(idle.clone(), "/t/0", Body::empty()).await.1, Code::Ok);
    assert_eq!(drain.connections(), 11);
    stop.send(()).unwrap();
    let (served, took) = serving.await.unwrap();
    assert!(served.unwrap().is_ok() && took < SECOND / 100, "{took:?}");
    for watch in watches {
        assert_eq!(watch.await.unwrap(), (1, Code::Unavailable));
    }
}

#[tokio::test(start_paused = true)]
async fn an_unlimited_grace_waits_for_the_calls_in_flight() {
    let (drain, network) = (Drain::new(Duration::MAX), Network::new());
    let (stop, serving) = serve(&drain, &[&network]);
    let day = 24 * 3600 * SECOND;
    let long = tokio::spawn(call(network.channel(), "/t/86400000", Body::empty()));
    sleep(SECOND).await;
    stop.send(()).unwrap();
    let (served, took) = serving.await.unwrap();
    assert!(served.unwrap().is_ok() && took > day - 2 * SECOND, "{took:?}");
    assert_eq!(long.await.unwrap().1, Code::Ok);
}

// catalogue: S-P7
#[tokio::test(start_paused = true)]
async fn a_cut_ends_all_immediately_before_and_during_draining() {
    for is_draining in [false, true] {
        let (drain, network) = (Drain::default(), Network::new());
        let (stop, serving) = serve(&drain, &[&network]);
        let held = tokio::spawn(call(network.channel(), "/t/Stream", Body::empty()));
        sleep(SECOND).await;
        if is_draining {
            stop.send(()).unwrap();
            sleep(SECOND).await;
        }
        let began = Instant::now();
        drain.cut();
        assert!(serving.await.unwrap().0.unwrap().is_ok());
        assert!(Instant::now() - began < SECOND / 100, "{:?}", Instant::now() - began);
        assert_ne!(held.await.unwrap().1, Code::Ok);
        drain.ended().await;
    }
}

#[tokio::test(start_paused = true)]
async fn serve_returns_a_second_after_the_grace_of_a_server_that_does_not_end() {
    let drain = Drain::new(SECOND);
    let began = Instant::now();
    assert_eq!(drain.serve(async {}, pending::<()>()).await, None);
    assert_eq!(Instant::now() - began, 2 * SECOND);
    assert_eq!(Drain::new(SECOND).serve(pending(), async { 7 }).await, Some(7));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_arrives_after_the_end_is_refused_unprocessed() {
    let drain = Drain::default();
    let service = drain.layer().layer(service_fn(answer));
    drain.shared.advance(Phase::Draining);
    let answered = service.clone().oneshot(request("/t/0", Body::empty())).await.unwrap();
    assert_eq!(Status::from_header_map(answered.headers()).unwrap().code(), Code::Ok);
    drain.shared.advance(Phase::Over);
    let refused = service.clone().oneshot(request("/t/Never", Body::empty())).await.unwrap();
    let (mut head, body) = refused.into_parts();
    assert_eq!(Status::from_header_map(&head.headers).unwrap().code(), Code::Unavailable);
    assert!(cinchona_plumbing::status::take_not_begun(&mut head.headers));
    assert!(body.is_end_stream());
    // A client of another protocol could not read the status.
    let plain = Request::post("/t/0").body(Body::empty()).unwrap();
    let answered = service.oneshot(plain).await.unwrap();
    assert_eq!(Status::from_header_map(answered.headers()).unwrap().code(), Code::Ok);
}

#[tokio::test(start_paused = true)]
async fn a_method_named_as_a_watch_ends_as_draining_begins() {
    let drain = Drain::default();
    let service =
        DrainSettings::new().with_watches(["/t/Stream"]).layer(&drain).layer(service_fn(answer));
    for (path, ends) in [("/t/Stream", true), ("/t/Endless", false), (WATCH, true)] {
        let answered = service.clone().oneshot(request(path, Body::empty())).await.unwrap();
        let mut body = std::pin::pin!(answered.into_body());
        drain.begin();
        assert!(body.frame().await.unwrap().unwrap().is_data(), "{path}: what was there");
        let next = tokio::time::timeout(SECOND, body.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(next.is_trailers(), ends, "{path}");
        if ends {
            assert!(body.is_end_stream() && body.frame().await.is_none());
        }
    }
}
