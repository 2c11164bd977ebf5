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
    replay: Replay<u32>,
    first: Option<Request<Body>>,
}

impl Captured {
    fn of(request: Request<Body>, buffer: &ReplayBuffer) -> Self {
        let (replay, first) = Replay::<u32>::capture(request, buffer);
        Self { replay, first: Some(first) }
    }

    fn request(&mut self) -> Option<Request<Body>> {
        self.first.take().or_else(|| self.replay.request())
    }
}

impl std::ops::Deref for Captured {
    type Target = Replay<u32>;

    fn deref(&self) -> &Replay<u32> {
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

/// The bytes that can be read of a body now.
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
        request.extensions_mut().insert(7_u32);
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
async fn a_dropped_attempt_passes_the_source_to_waiting_ones() {
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
    replay.replay.settle(1);
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
    assert!(whole(Request::new(Body::empty()), 0).unwrap().1.is_empty());
}

/// One thing that a body does.
#[derive(Clone, Debug)]
enum Step {
    Data(&'static str),
    /// It is not ready, once.
    Pause,
    Trailers,
}

/// A body that does these things, and then ends or fails; then, as tonic's own, it says that it has
/// ended.
#[derive(Debug)]
struct Acting {
    steps: std::collections::VecDeque<Step>,
    fails: bool,
    is_over: bool,
}

impl http_body::Body for Acting {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(match self.steps.pop_front() {
            Some(Step::Pause) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(Step::Data(data)) => Some(Ok(Frame::data(data.into()))),
            Some(Step::Trailers) => Some(Ok(Frame::trailers(http::HeaderMap::new()))),
            None if self.fails && !self.is_over => {
                self.is_over = true;
                Some(Err(Status::data_loss("own words")))
            }
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty() && (!self.fails || self.is_over)
    }
}

/// The request as a server sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct View {
    data: String,
    end: Option<Result<(), String>>,
}

impl View {
    /// Reads once, as HTTP/2 does: a body that reports its end is not polled.
    fn read(&mut self, body: &mut Body) {
        if self.end.is_some() {
            return;
        }
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(&mut *body).poll_frame(&mut cx) {
            Poll::Pending => return,
            Poll::Ready(None) => self.end = Some(Ok(())),
            Poll::Ready(Some(Err(status))) => self.end = Some(Err(status.message().to_owned())),
            Poll::Ready(Some(Ok(frame))) => {
                let data = frame.into_data().unwrap_or_default();
                self.data.push_str(std::str::from_utf8(&data).unwrap());
            }
        }
        if self.end.is_none() && body.is_end_stream() {
            self.end = Some(Ok(()));
        }
    }

    fn of(mut body: Body) -> Self {
        let mut view = Self::default();
        if body.is_end_stream() {
            view.end = Some(Ok(()));
        }
        (0..100).for_each(|_| view.read(&mut body));
        view
    }
}

fn acting() -> impl proptest::strategy::Strategy<Value = (Vec<Step>, bool)> {
    use proptest::prelude::*;
    let step = prop_oneof![
        4 => prop::sample::select(vec!["a", "bc", "def", ""]).prop_map(Step::Data),
        2 => Just(Step::Pause),
        1 => Just(Step::Trailers),
    ];
    (prop::collection::vec(step, 0..8), any::<bool>())
}

fn body((steps, fails): &(Vec<Step>, bool)) -> Body {
    Body::new(Acting { steps: steps.iter().cloned().collect(), fails: *fails, is_over: false })
}

proptest::proptest! {
    // catalogue: S-A1
    /// The law of this module: a request looks complete to a server exactly when it would over a
    /// bare channel.
    #[test]
    fn the_first_attempt_is_to_the_server_what_the_body_itself_would_be(
        script in acting(), per_call in 0usize..12,
    ) {
        let bare = View::of(body(&script));
        let buffer = ReplayBuffer::new(per_call, 100);
        let (_, first) = Replay::<u32>::capture(Request::new(body(&script)), &buffer);
        proptest::prop_assert_eq!(View::of(first.into_body()), bare.clone());
        let whole = match whole(Request::new(body(&script)), per_call) {
            Ok((_, bytes)) => View::of(Body::new(http_body_util::Full::new(bytes))),
            Err(request) => View::of(request.into_body()),
        };
        proptest::prop_assert_eq!(whole, bare);
    }

    // catalogue: S-A1
    /// However attempts are interleaved, stopped, chosen and dropped.
    #[test]
    fn no_attempt_is_complete_unless_the_body_has_ended_and_all_of_it_was_sent(
        script in acting(), per_call in 0usize..12,
        moves in proptest::collection::vec((0u8..12, 0usize..4), 0..60),
    ) {
        let bare = View::of(body(&script));
        let (mut replay, first) =
            Replay::<u32>::capture(Request::new(body(&script)), &ReplayBuffer::new(per_call, 100));
        let mut attempts = vec![Some((first.into_body(), View::default()))];
        for (what, which) in moves {
            match what {
                0 => replay.settle(which as u32),
                1 => replay.stop(which as u32),
                2 => attempts.get_mut(which).map(Option::take).map_or((), drop),
                3 => attempts.extend(
                    replay.request().map(|again| Some((again.into_body(), View::default()))),
                ),
                _ => attempts
                    .get_mut(which)
                    .and_then(Option::as_mut)
                    .map_or((), |(body, view)| view.read(body)),
            }
        }
        for (_, view) in attempts.into_iter().flatten() {
            proptest::prop_assert!(bare.data.starts_with(&view.data));
            if view.end == Some(Ok(())) {
                proptest::prop_assert_eq!(view, bare.clone());
            }
        }
        let failed = replay.failure().map(|status| status.message().to_owned());
        proptest::prop_assert!(failed.is_none() || failed.as_deref() == Some("own words"));
        proptest::prop_assert!(!(replay.failure().is_some() && replay.can_repeat()));
    }
}

#[tokio::test]
async fn a_source_that_panics_has_failed_and_has_not_ended() {
    let (mut sender, slow) = streaming();
    let panics = slow.map_frame(|frame| match frame.data_ref() {
        Some(data) if data == "cd" => panic!("by the caller's own code"),
        _ => frame,
    });
    sender.send_data("ab".into()).await.unwrap();
    let (mut replay, _) = captured(Body::new(panics), 10);
    let mut first = replay.request().unwrap().into_body();
    assert_eq!(now(&mut first).unwrap(), "ab");
    sender.send_data("cd".into()).await.unwrap();
    let failed = first.frame().await.unwrap().unwrap_err();
    assert_eq!(failed.message(), "the request's body has panicked");
    let again = first.frame().await.unwrap().unwrap_err();
    assert_eq!(again.message(), "the request's body has panicked");
    assert!(!replay.can_repeat());
}

// catalogue: S-A2
#[tokio::test]
async fn a_body_that_is_always_ready_and_brings_nothing_is_taken_for_a_stream() {
    let endless = std::iter::repeat_with(|| Ok::<_, Infallible>(Frame::data(Bytes::new())));
    let body = Body::new(StreamBody::new(tokio_stream::iter(endless)));
    let (mut replay, _) = captured(body, 10);
    assert_eq!(now(&mut replay.request().unwrap().into_body()).unwrap(), "");
}
