//! Whole bodies and streams, sent again and again.

use super::*;
use http_body::Frame;
use http_body_util::{
    BodyExt, StreamBody,
    channel::{Channel, Sender},
};
use std::convert::Infallible;
use tokio_test::{assert_pending, assert_ready, task};

/// Builds what is captured like any other, the first included.
struct Captured {
    replay: Replay,
    first: Option<Request<Body>>,
}

impl Captured {
    fn of(request: Request<Body>, buffer: &ReplayBuffer) -> Self {
        let (replay, first) = Replay::capture(request, buffer);
        Self { replay, first: Some(first) }
    }

    fn request(&mut self) -> Option<Request<Body>> {
        self.first.take().or_else(|| self.replay.request())
    }
}

impl std::ops::Deref for Captured {
    type Target = Replay;

    fn deref(&self) -> &Replay {
        &self.replay
    }
}

fn captured(body: Body, per_call: usize) -> (Captured, ReplayBuffer) {
    let buffer = ReplayBuffer::new(per_call, 100);
    (Captured::of(Request::new(body), &buffer), buffer)
}

async fn read(request: Option<Request<Body>>) -> Bytes {
    request.unwrap().into_body().collect().await.unwrap().to_bytes()
}

fn frames(parts: &'static [&'static str]) -> Body {
    let frames = parts.iter().map(|part| Ok::<_, Infallible>(Frame::data((*part).into())));
    Body::new(StreamBody::new(tokio_stream::iter(frames)))
}

fn streaming() -> (Sender<Bytes, Infallible>, Body) {
    let (sender, body) = Channel::new(8);
    (sender, Body::new(body))
}

/// What can be read of a body now.
fn now(body: &mut Body) -> Option<Bytes> {
    let mut frame = task::spawn(body.frame());
    match frame.poll() {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
        _ => None,
    }
}

#[tokio::test]
async fn a_complete_body_can_be_sent_again_and_again() {
    let request = Request::builder().uri("/a.B/C").header("k", "v");
    let request = request.body(frames(&["ab", "cd"])).unwrap();
    let mut replay = Captured::of(request, &ReplayBuffer::new(4, 100));
    for _ in 0..3 {
        let again = replay.request().unwrap();
        assert_eq!((again.uri().path(), again.headers()["k"].as_bytes()), ("/a.B/C", &b"v"[..]));
        assert_eq!(read(Some(again)).await, "abcd");
    }
}

#[tokio::test]
async fn headers_and_extensions_are_the_same_every_time() {
    for foreign in [false, true] {
        let mut request =
            Request::builder().method("POST").uri("/a.B/C").body(Body::empty()).unwrap();
        for value in ["v", "w"] {
            request.headers_mut().append("k", value.parse().unwrap());
        }
        let deadline = crate::Deadline(tokio::time::Instant::now());
        request.extensions_mut().insert(deadline);
        request.extensions_mut().insert(GrpcMethod::new("a.B", "C"));
        if foreign {
            request.extensions_mut().insert(7u8);
        }
        let mut replay = Captured::of(request, &ReplayBuffer::default());
        for _ in 0..3 {
            let again = replay.request().unwrap();
            let values: Vec<_> =
                again.headers().get_all("k").iter().map(|v| v.as_bytes()).collect();
            assert_eq!((again.method().as_str(), values), ("POST", vec![&b"v"[..], b"w"]));
            assert_eq!(again.extensions().get(), Some(&deadline));
            assert_eq!(again.extensions().get::<GrpcMethod<'_>>().unwrap().method(), "C");
            assert_eq!(again.extensions().get(), foreign.then_some(&7u8));
        }
    }
}

#[tokio::test]
async fn a_body_over_the_buffer_is_sent_once_and_whole() {
    for per_call in [0, 3] {
        let (mut replay, buffer) = captured(frames(&["ab", "cd", "ef"]), per_call);
        assert!(!replay.can_repeat());
        assert_eq!(read(replay.request()).await, "abcdef");
        assert!(replay.request().is_none());
        assert_eq!(buffer.used(), 0);
    }
}

#[tokio::test]
async fn all_calls_together_keep_no_more_than_the_channel_may() {
    let buffer = ReplayBuffer::new(1000, 1500);
    let capture = || {
        let frames = tokio_stream::iter([Ok::<_, Infallible>(Frame::data(vec![0; 1000].into()))]);
        Captured::of(Request::new(Body::new(StreamBody::new(frames))), &buffer)
    };
    let first = capture();
    assert!(first.can_repeat());
    assert!(!capture().can_repeat());
    assert_eq!(buffer.used(), 1000);
    drop(first);
    assert_eq!(buffer.used(), 0);
    assert!(capture().can_repeat());
}

#[tokio::test]
async fn a_stream_is_replayed_from_its_beginning_and_then_goes_on() {
    let (mut sender, body) = streaming();
    sender.send_data("ab".into()).await.unwrap();
    let (mut replay, _) = captured(body, 10);
    let mut first = replay.request().unwrap().into_body();
    assert_eq!(now(&mut first).unwrap(), "ab");
    sender.send_data("cd".into()).await.unwrap();
    assert_eq!(now(&mut first).unwrap(), "cd");
    drop(first);
    let second = tokio::spawn(read(replay.request()));
    sender.send_data("ef".into()).await.unwrap();
    drop(sender);
    assert_eq!(second.await.unwrap(), "abcdef");
    assert_eq!(read(replay.request()).await, "abcdef");
}

#[tokio::test]
async fn attempts_side_by_side_all_get_every_frame() {
    let (mut sender, body) = streaming();
    let (mut replay, _) = captured(body, 10);
    let readers: Vec<_> = (0..3).map(|_| tokio::spawn(read(replay.request()))).collect();
    for part in ["ab", "cd", "ef"] {
        sender.send_data(part.into()).await.unwrap();
        tokio::task::yield_now().await;
    }
    drop(sender);
    for reader in readers {
        assert_eq!(reader.await.unwrap(), "abcdef");
    }
}

#[tokio::test]
async fn an_attempt_that_is_dropped_hands_the_source_to_those_who_wait() {
    let (mut sender, body) = streaming();
    let (mut replay, _) = captured(body, 10);
    let mut first = replay.request().unwrap().into_body();
    let mut second = replay.request().unwrap().into_body();
    let mut waits = task::spawn(second.frame());
    assert_pending!(waits.poll());
    {
        // The source now knows the first attempt's waker alone.
        assert!(now(&mut first).is_none());
    }
    drop(first);
    assert!(waits.is_woken());
    assert_pending!(waits.poll());
    sender.send_data("ab".into()).await.unwrap();
    assert!(waits.is_woken());
    assert_eq!(assert_ready!(waits.poll()).unwrap().unwrap().into_data().unwrap(), "ab");
}

#[tokio::test]
async fn a_stream_that_outgrows_its_buffer_goes_on_with_the_attempt_that_has_sent_the_most() {
    let (mut sender, body) = streaming();
    let (mut replay, buffer) = captured(body, 4);
    let mut first = replay.request().unwrap().into_body();
    let mut second = replay.request().unwrap().into_body();
    for part in ["ab", "cd", "ef"] {
        sender.send_data(part.into()).await.unwrap();
        assert_eq!(now(&mut second).unwrap(), part);
    }
    assert!(!replay.can_repeat() && replay.request().is_none());
    assert!(replay.has_left_behind(0) && !replay.has_left_behind(1));
    assert!(first.frame().await.unwrap().is_err());
    assert_eq!(buffer.used(), 0);
    sender.send_data("gh".into()).await.unwrap();
    assert_eq!(now(&mut second).unwrap(), "gh");
}

#[tokio::test]
async fn the_chosen_attempt_gets_the_rest_and_what_it_has_sent_is_freed() {
    let (mut sender, body) = streaming();
    let (mut replay, buffer) = captured(body, 10);
    let mut first = replay.request().unwrap().into_body();
    for part in ["ab", "cd"] {
        sender.send_data(part.into()).await.unwrap();
        assert_eq!(now(&mut first).unwrap(), part);
    }
    let mut second = replay.request().unwrap().into_body();
    assert_eq!(now(&mut second).unwrap(), "ab");
    replay.choose(1);
    assert_eq!(now(&mut second).unwrap(), "cd");
    sender.send_data("ef".into()).await.unwrap();
    assert_eq!(now(&mut second).unwrap(), "ef");
    assert_eq!(buffer.used(), 0);
}

#[tokio::test]
async fn an_attempt_that_has_failed_reads_no_more_of_the_stream() {
    let (mut sender, body) = streaming();
    let (mut replay, _) = captured(body, 10);
    let mut first = replay.request().unwrap().into_body();
    sender.send_data("ab".into()).await.unwrap();
    assert_eq!(now(&mut first).unwrap(), "ab");
    replay.stop(0);
    sender.send_data("cd".into()).await.unwrap();
    assert!(first.frame().await.unwrap().is_err());
    drop(sender);
    assert_eq!(read(replay.request()).await, "abcd");
}

#[tokio::test]
async fn an_empty_body_is_complete() {
    let (mut replay, _) = captured(Body::empty(), 0);
    assert!(read(replay.request()).await.is_empty());
    assert!(Replay::whole(Request::new(Body::empty()), 0).unwrap().1.is_empty());
}
