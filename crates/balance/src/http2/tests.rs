//! Against a server of h2's, whose frames a test decides.

use super::*;
use crate::wire::Wire;
use cinchona_core::{Stage, Verdict};
use h2::{Reason, RecvStream, server};
use http::{HeaderMap, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use proptest::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::{
    io::{DuplexStream, duplex},
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Status};

type Server = server::Connection<DuplexStream, Bytes>;
type Respond = server::SendResponse<Bytes>;

const SECOND: Duration = Duration::from_secs(1);
const SETTINGS: Settings = Settings {
    stream_window: 1 << 20,
    connection_window: 1 << 20,
    max_header_list_size: 16 * 1024,
    keep_alive: None,
};

/// A connection, and its server.
async fn connected(server: &mut server::Builder) -> (Http2, Server) {
    let (near, far) = duplex(1 << 16);
    let (wire, line) = Wire::new(Box::new(TokioIo::new(near)));
    let uri = Uri::from_static("http://calculator:7");
    let begun = Http2::begin(wire, &line, &uri, SETTINGS);
    let (http2, server) = tokio::join!(begun, server.handshake(far));
    line.settles().await.unwrap();
    (http2.unwrap(), server.unwrap())
}

/// The next call, while the connection is driven until the test ends.
fn calls(mut server: Server) -> mpsc::UnboundedReceiver<(Request<RecvStream>, Respond)> {
    let (says, heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(call)) = server.accept().await {
            if says.send(call).is_err() {
                server.graceful_shutdown();
            }
        }
    });
    heard
}

fn request(body: Body) -> Request<Body> {
    Request::post("/a.B/C").header("te", "trailers").body(body).unwrap()
}

fn message(text: &'static str) -> Body {
    Body::new(Full::new(Bytes::from_static(text.as_bytes())))
}

/// A body whose frames come from the test, and how many were read.
type Frames = mpsc::UnboundedSender<Result<Frame<Bytes>, Status>>;

fn streamed() -> (Frames, Arc<AtomicUsize>, Body) {
    let (send, frames) = mpsc::unbounded_channel();
    let read = Arc::new(AtomicUsize::new(0));
    let count = read.clone();
    let frames = tokio_stream::StreamExt::map(UnboundedReceiverStream::new(frames), move |frame| {
        count.fetch_add(1, Ordering::Relaxed);
        frame
    });
    (send, read, Body::new(StreamBody::new(frames)))
}

fn data(bytes: impl Into<Bytes>) -> Result<Frame<Bytes>, Status> {
    Ok(Frame::data(bytes.into()))
}

fn ok() -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))])
}

/// Reads a request to its end, as far as it is whole.
async fn read(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        all.extend_from_slice(&data);
    }
    Ok(all)
}

/// Answers with these messages and an OK.
async fn answer(mut respond: Respond, messages: impl IntoIterator<Item = Vec<u8>>) {
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    for message in messages {
        stream.send_data(message.into(), false).unwrap();
    }
    stream.send_trailers(ok()).unwrap();
}

async fn verdict(sending: Sending) -> Verdict {
    Verdict::of_error(&*sending.await.err().expect("it has no answer"))
}

#[tokio::test(start_paused = true)]
async fn of_a_single_message_the_end_of_the_stream_is_part() {
    let (http2, server) = connected(&mut server::Builder::new()).await;
    let mut calls = calls(server);
    let exchange = tokio::spawn(http2.send(request(message("seven"))).unwrap());
    let (mut head, respond) = calls.recv().await.unwrap();
    assert_eq!(head.uri(), "http://calculator:7/a.B/C");
    let body = head.body_mut();
    assert_eq!(body.data().await.unwrap().unwrap(), "seven");
    assert!(body.is_end_stream(), "no empty frame follows");
    answer(respond, [b"eight".to_vec()]).await;
    let body = exchange.await.unwrap().unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.trailers(), Some(&ok()));
    assert_eq!(body.to_bytes(), "eight");
}

#[tokio::test(start_paused = true)]
async fn what_http_2_forbids_is_removed_and_the_user_agent_follows_that_of_the_application() {
    let (http2, server) = connected(&mut server::Builder::new()).await;
    let mut calls = calls(server);
    let mut call = request(message(""));
    for (name, value) in [
        ("connection", "close, x-hop"),
        ("keep-alive", "1"),
        ("proxy-connection", "1"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("x-hop", "1"),
        ("x-end", "1"),
        ("user-agent", "orders/1"),
    ] {
        call.headers_mut().insert(name, value.parse().unwrap());
    }
    let _exchange = tokio::spawn(http2.send(call).unwrap());
    let (head, _respond) = calls.recv().await.unwrap();
    let mut names: Vec<_> = head.headers().keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["te", "user-agent", "x-end"]);
    assert_eq!(head.headers()["te"], "trailers");
    assert_eq!(head.headers()["user-agent"], format!("orders/1 {USER_AGENT_VALUE}").as_str());
}

#[tokio::test(start_paused = true)]
async fn a_call_over_the_servers_limit_waits_unread_and_was_not_sent_if_the_connection_dies() {
    let (http2, server) = connected(server::Builder::new().max_concurrent_streams(1)).await;
    let (stop, stopped) = oneshot::channel::<()>();
    let mut server = server;
    let serving = tokio::spawn(async move {
        let mut held = Vec::new();
        tokio::select! {
            () = async { while let Some(call) = server.accept().await { held.push(call); } } => {}
            _ = stopped => {}
        }
        held.len()
    });
    let first = tokio::spawn(verdict(http2.send(request(message("1"))).unwrap()));
    tokio::time::sleep(SECOND).await;
    let (frames, read, body) = streamed();
    frames.send(data("2")).unwrap();
    let second = tokio::spawn(verdict(http2.send(request(body)).unwrap()));
    tokio::time::sleep(SECOND).await;
    assert_eq!(read.load(Ordering::Relaxed), 0, "its body is not read before");
    stop.send(()).unwrap();
    assert_eq!(serving.await.unwrap(), 1);
    assert_eq!(second.await.unwrap(), Verdict::NotProcessed(Stage::NotWritten));
    assert_eq!(first.await.unwrap(), Verdict::MaybeProcessed(Code::Unavailable));
    let rejected = http2.send(request(message("3"))).err().unwrap();
    assert_eq!(Verdict::of_error(&rejected), Verdict::NotProcessed(Stage::NotWritten));
}

#[tokio::test(start_paused = true)]
async fn a_call_over_the_servers_limit_is_sent_when_another_has_ended() {
    let (http2, server) = connected(server::Builder::new().max_concurrent_streams(1)).await;
    let mut calls = calls(server);
    let first = tokio::spawn(http2.send(request(message("1"))).unwrap());
    let (_, respond) = calls.recv().await.unwrap();
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..10 {
        waiting.spawn(http2.send(request(message("2"))).unwrap());
    }
    answer(respond, []).await;
    first.await.unwrap().unwrap().into_body().collect().await.unwrap();
    for _ in 0..10 {
        let (mut head, respond) = calls.recv().await.unwrap();
        assert_eq!(super::tests::read(head.body_mut()).await.unwrap(), b"2");
        answer(respond, []).await;
        let answered = waiting.join_next().await.unwrap().unwrap().unwrap();
        answered.into_body().collect().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_before_its_answer_is_reset_and_counts_no_more() {
    let (http2, server) = connected(&mut server::Builder::new()).await;
    let mut calls = calls(server);
    let (frames, _, body) = streamed();
    frames.send(data("1")).unwrap();
    let call = tokio::spawn(http2.send(request(body)).unwrap());
    let (mut head, _respond) = calls.recv().await.unwrap();
    assert_eq!(head.body_mut().data().await.unwrap().unwrap(), "1");
    assert_eq!(http2.shared.in_flight(), 1);
    call.abort();
    let reset = head.body_mut().data().await.unwrap().unwrap_err();
    assert_eq!(reset.reason(), Some(Reason::CANCEL));
    assert_eq!(http2.shared.in_flight(), 0);
    frames.closed().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_reads_lets_the_request_go_on() {
    let (http2, server) = connected(&mut server::Builder::new()).await;
    let mut calls = calls(server);
    let (frames, _, body) = streamed();
    let call = tokio::spawn(http2.send(request(body)).unwrap());
    let (mut head, mut respond) = calls.recv().await.unwrap();
    let _stream = respond.send_response(Response::new(()), false).unwrap();
    drop(call.await.unwrap().unwrap());
    for _ in 0..10 {
        frames.send(data("1")).unwrap();
        assert_eq!(head.body_mut().data().await.unwrap().unwrap(), "1");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_goes_on_while_its_call_is_not_polled() {
    let (http2, server) = connected(&mut server::Builder::new()).await;
    let mut calls = calls(server);
    let (frames, _, body) = streamed();
    let mut call = Box::pin(http2.send(request(body)).unwrap());
    let is_pending = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_pending()));
    assert!(is_pending.await);
    for _ in 0..3 {
        frames.send(data("1")).unwrap();
    }
    drop(frames);
    let (mut head, respond) = calls.recv().await.unwrap();
    assert_eq!(read(head.body_mut()).await.unwrap(), b"111");
    answer(respond, []).await;
    call.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_given_up_while_they_wait_cost_the_server_nothing() {
    let (http2, server) = connected(server::Builder::new().max_concurrent_streams(1)).await;
    let mut calls = calls(server);
    let running = tokio::spawn(http2.send(request(message("1"))).unwrap());
    let (_head, respond) = calls.recv().await.unwrap();
    for _ in 0..1000 {
        let call = tokio::spawn(http2.send(request(message("2"))).unwrap());
        tokio::task::yield_now().await;
        call.abort();
    }
    tokio::time::sleep(SECOND).await;
    answer(respond, []).await;
    running.await.unwrap().unwrap().into_body().collect().await.unwrap();
    let last = tokio::spawn(http2.send(request(message("3"))).unwrap());
    let (mut head, respond) = calls.recv().await.unwrap();
    assert_eq!(read(head.body_mut()).await.unwrap(), b"3", "it has seen none of the others");
    answer(respond, []).await;
    last.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_and_is_not_polled_keeps_none_behind_it_waiting() {
    let (http2, server) = connected(server::Builder::new().max_concurrent_streams(1)).await;
    let mut calls = calls(server);
    let running = tokio::spawn(http2.send(request(message("1"))).unwrap());
    let (_head, respond) = calls.recv().await.unwrap();
    let unpolled = http2.send(request(message("2"))).unwrap();
    let behind = tokio::spawn(http2.send(request(message("3"))).unwrap());
    answer(respond, []).await;
    running.await.unwrap().unwrap().into_body().collect().await.unwrap();
    let (mut head, respond) = calls.recv().await.unwrap();
    assert_eq!(read(head.body_mut()).await.unwrap(), b"2");
    answer(respond, []).await;
    drop(unpolled);
    let (mut head, respond) = calls.recv().await.unwrap();
    assert_eq!(read(head.body_mut()).await.unwrap(), b"3");
    answer(respond, []).await;
    behind.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_that_a_goaway_covers_is_sent_to_its_end() {
    let (http2, mut server) = connected(server::Builder::new().max_concurrent_streams(1)).await;
    let first = tokio::spawn(http2.send(request(message("1"))).unwrap());
    let (_head, respond) = server.accept().await.unwrap().unwrap();
    let (frames, _, body) = streamed();
    let second = tokio::spawn(http2.send(request(body)).unwrap());
    answer(respond, []).await;
    let (next, body) = tokio::join!(server.accept(), async {
        first.await.unwrap().unwrap().into_body().collect().await
    });
    body.unwrap();
    let (mut head, respond) = next.unwrap().unwrap();
    server.graceful_shutdown();
    let serving = tokio::spawn(async move { while server.accept().await.is_some() {} });
    tokio::time::sleep(SECOND).await;
    frames.send(data("2")).unwrap();
    drop(frames);
    assert_eq!(read(head.body_mut()).await.unwrap(), b"2");
    answer(respond, []).await;
    second.await.unwrap().unwrap().into_body().collect().await.unwrap();
    serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_has_its_timeout_and_sends_what_is_left_of_it() {
    let (http2, server) = connected(server::Builder::new().max_concurrent_streams(1)).await;
    let mut calls = calls(server);
    let running = tokio::spawn(http2.send(request(message("1"))).unwrap());
    let (_head, respond) = calls.recv().await.unwrap();
    let timed = |timeout: &'static str| {
        let mut call = request(message("2"));
        call.headers_mut().insert("grpc-timeout", HeaderValue::from_static(timeout));
        tokio::spawn(http2.send(call).unwrap())
    };
    let (short, long) = (timed("1S"), timed("5S"));
    tokio::time::sleep(2 * SECOND).await;
    let error = short.await.unwrap().err().unwrap();
    assert_eq!(Verdict::of_error(&*error), Verdict::Deadline);
    answer(respond, []).await;
    running.await.unwrap().unwrap().into_body().collect().await.unwrap();
    let (head, respond) = calls.recv().await.unwrap();
    assert_eq!(head.headers()["grpc-timeout"], "3000000u");
    answer(respond, []).await;
    long.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_body_that_fails_is_reset_and_never_looks_complete() {
    let (http2, server) = connected(&mut server::Builder::new()).await;
    let mut calls = calls(server);
    let (frames, _, body) = streamed();
    frames.send(data("1")).unwrap();
    let call = tokio::spawn(verdict(http2.send(request(body)).unwrap()));
    let (mut head, _respond) = calls.recv().await.unwrap();
    frames.send(Err(Status::internal("it cannot be encoded"))).unwrap();
    let reset = read(head.body_mut()).await.unwrap_err();
    assert_eq!(reset.reason(), Some(Reason::INTERNAL_ERROR));
    assert_eq!(call.await.unwrap(), Verdict::Local(Code::Internal));
}

#[tokio::test(start_paused = true)]
async fn a_body_is_read_no_faster_than_the_server_takes_it() {
    let (http2, server) = connected(&mut server::Builder::new()).await;
    let mut calls = calls(server);
    let (frames, read, body) = streamed();
    for _ in 0..100 {
        frames.send(data(vec![0; 10_000])).unwrap();
    }
    let _call = tokio::spawn(http2.send(request(body)).unwrap());
    let (mut head, _respond) = calls.recv().await.unwrap();
    tokio::time::sleep(SECOND).await;
    // The server's window is 65,535 bytes.
    assert!((7..=9).contains(&read.load(Ordering::Relaxed)), "{read:?}");
    drop(frames);
    assert_eq!(super::tests::read(head.body_mut()).await.unwrap().len(), 1_000_000);
}

#[tokio::test(start_paused = true)]
async fn messages_go_both_ways_after_the_head_of_the_answer() {
    let (http2, server) = connected(&mut server::Builder::new()).await;
    let mut calls = calls(server);
    let (frames, _, body) = streamed();
    let call = tokio::spawn(http2.send(request(body)).unwrap());
    let (mut head, mut respond) = calls.recv().await.unwrap();
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    let mut answer = call.await.unwrap().unwrap().into_body();
    for n in 0..10_u8 {
        frames.send(data(vec![n])).unwrap();
        assert_eq!(head.body_mut().data().await.unwrap().unwrap(), vec![n]);
        stream.send_data(vec![n].into(), false).unwrap();
        let back = answer.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(back, vec![n]);
    }
    drop(frames);
    assert!(read(head.body_mut()).await.unwrap().is_empty());
    stream.send_trailers(ok()).unwrap();
    assert!(answer.frame().await.unwrap().unwrap().is_trailers());
    assert!(answer.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_before_the_request_has_ended_is_whole() {
    let (http2, server) = connected(&mut server::Builder::new()).await;
    let mut calls = calls(server);
    let (frames, _, body) = streamed();
    frames.send(data("1")).unwrap();
    let call = tokio::spawn(http2.send(request(body)).unwrap());
    let (head, mut respond) = calls.recv().await.unwrap();
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    stream.send_data("enough".into(), false).unwrap();
    stream.send_trailers(ok()).unwrap();
    let answer = call.await.unwrap().unwrap();
    tokio::time::sleep(SECOND).await;
    respond.send_reset(Reason::NO_ERROR);
    drop((head, respond, stream));
    tokio::time::sleep(SECOND).await;
    let body = answer.into_body().collect().await.unwrap();
    assert_eq!(body.trailers(), Some(&ok()));
    assert_eq!(body.to_bytes(), "enough");
    frames.closed().await;
}

#[tokio::test(start_paused = true)]
async fn the_resets_of_a_server_have_the_verdicts_of_their_reasons() {
    let (http2, server) = connected(&mut server::Builder::new()).await;
    let mut calls = calls(server);
    for (reason, expected) in [
        (Reason::REFUSED_STREAM, Verdict::NotProcessed(Stage::RefusedStream)),
        (Reason::CANCEL, Verdict::MaybeProcessed(Code::Cancelled)),
        (Reason::ENHANCE_YOUR_CALM, Verdict::MaybeProcessed(Code::ResourceExhausted)),
        (Reason::INTERNAL_ERROR, Verdict::MaybeProcessed(Code::Internal)),
    ] {
        let call = tokio::spawn(verdict(http2.send(request(message("1"))).unwrap()));
        let (_head, mut respond) = calls.recv().await.unwrap();
        respond.send_reset(reason);
        assert_eq!(call.await.unwrap(), expected, "{reason:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_cancels_after_the_head_says_so() {
    let (http2, server) = connected(&mut server::Builder::new()).await;
    let mut calls = calls(server);
    let call = tokio::spawn(http2.send(request(message("1"))).unwrap());
    let (_head, mut respond) = calls.recv().await.unwrap();
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    let body = call.await.unwrap().unwrap().into_body();
    stream.send_reset(Reason::CANCEL);
    let error = body.collect().await.unwrap_err();
    assert_eq!(Verdict::of_error(&*error), Verdict::MaybeProcessed(Code::Cancelled));
}

#[tokio::test(start_paused = true)]
async fn a_goaway_ends_no_call_and_takes_no_more() {
    let (http2, server) = connected(&mut server::Builder::new()).await;
    let mut calls = calls(server);
    let call = tokio::spawn(http2.send(request(message("1"))).unwrap());
    let (_head, respond) = calls.recv().await.unwrap();
    // The server shuts down with its next call.
    drop(calls);
    let last = tokio::spawn(verdict(http2.send(request(message("2"))).unwrap()));
    tokio::time::sleep(SECOND).await;
    let rejected = http2.send(request(message("3"))).err().unwrap();
    assert_eq!(Verdict::of_error(&rejected), Verdict::NotProcessed(Stage::NotWritten));
    answer(respond, []).await;
    call.await.unwrap().unwrap().into_body().collect().await.unwrap();
    last.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_timeout_that_no_layer_has_taken_over_ends_the_call() {
    let (http2, server) = connected(&mut server::Builder::new()).await;
    let mut calls = calls(server);
    let mut call = request(message("1"));
    call.headers_mut().insert("grpc-timeout", "250m".parse().unwrap());
    let began = Instant::now();
    let call = tokio::spawn(verdict(http2.send(call).unwrap()));
    let (mut head, _respond) = calls.recv().await.unwrap();
    assert_eq!(call.await.unwrap(), Verdict::Deadline);
    assert_eq!(Instant::now() - began, SECOND / 4);
    assert!(read(head.body_mut()).await.is_ok(), "the request was whole");
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_closed_with_its_last_handle_and_call() {
    let (http2, mut server) = connected(&mut server::Builder::new()).await;
    let call = tokio::spawn(http2.send(request(message("1"))).unwrap());
    let (_head, respond) = server.accept().await.unwrap().unwrap();
    drop(http2);
    let next = tokio::spawn(async move { server.accept().await.is_none() });
    tokio::time::sleep(SECOND).await;
    assert!(!next.is_finished(), "a call is under way");
    answer(respond, []).await;
    call.await.unwrap().unwrap().into_body().collect().await.unwrap();
    assert!(next.await.unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the frames and the windows are.
    #[test]
    fn what_is_sent_is_what_arrives_both_ways(
        sizes in prop::collection::vec(0..40_000_usize, 0..12),
        back in prop::collection::vec(0..40_000_usize, 0..12),
        window in 1..100_000_u32,
        is_slow: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut settings = server::Builder::new();
            let (http2, server) = connected(settings.initial_window_size(window)).await;
            let mut calls = calls(server);
            let (frames, _, body) = streamed();
            let filled = |sizes: &[usize]| -> Vec<Vec<u8>> {
                sizes.iter().enumerate().map(|(n, size)| vec![n as u8; *size]).collect()
            };
            let (there, answers) = (filled(&sizes), filled(&back));
            let sent = there.clone();
            tokio::spawn(async move {
                for frame in sent {
                    if is_slow {
                        tokio::time::sleep(SECOND).await;
                    }
                    _ = frames.send(data(frame));
                }
            });
            let call = tokio::spawn(http2.send(request(body)).unwrap());
            let (mut head, respond) = calls.recv().await.unwrap();
            assert_eq!(read(head.body_mut()).await.unwrap(), there.concat());
            let expected = answers.concat();
            tokio::spawn(answer(respond, answers));
            let body = call.await.unwrap().unwrap().into_body().collect().await.unwrap();
            assert_eq!(body.trailers(), Some(&ok()));
            assert_eq!(body.to_bytes(), expected);
        });
    }
}
