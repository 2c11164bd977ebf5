//! The one response body of this project: the inner body, and the layers that watch it.

mod frames;
mod watcher;

pub use watcher::{Next, Polled, Seen, Watcher};

use crate::{Kept, clock, headers, plain::plain_body, status};
use bytes::Bytes;
use frames::{Frames, is_data};
use http::{Response, StatusCode, header::CONTENT_TYPE};
use http_body::{Body as HttpBody, SizeHint};
use std::{
    any::Any,
    cell::Cell,
    fmt,
    pin::{Pin, pin},
    task::{Context, Poll},
};
use tokio::time::Instant;
use tonic::Status;
use watcher::BoxError;

/// A response body that layers watch.
///
/// Each layer of ours adds a [`Watcher`], and none wraps the body of another: however many there
/// are, there is one body around tonic's. It is a pointer, as layers move it often.
#[derive(Default)]
pub struct ResponseBody(Option<Box<Own>>);

/// A body and its watchers; then reused for another, to avoid allocations.
#[derive(Default)]
struct Own {
    frames: Frames,
    /// The innermost first.
    watchers: Vec<Slot>,
    has_scopes: bool,
    /// It is known to belong to the head of an answer, and none of it was read since.
    has_begun: Cell<bool>,
}

thread_local! {
    static KEPT: Kept<Own> = const { Kept::new() };
}

/// Whether this is the beginning of an answer: a head of gRPC's without a status, whose body goes
/// on. Each layer asks that of a head. What is kept is what no layer changes, unless it has another
/// body: another layer in between may have set a status.
pub fn begins(response: &Response<ResponseBody>) -> bool {
    let Some(own) = &response.body().0 else { return false };
    let headers = response.headers();
    if response.status() != StatusCode::OK || headers::has(headers, &Status::GRPC_STATUS) {
        return false;
    }
    if !own.has_begun.get() {
        let is_grpc = headers::get(headers, &CONTENT_TYPE).is_some_and(status::is_grpc_type);
        own.has_begun.set(is_grpc && !own.is_end_stream());
    }
    own.has_begun.get()
}

// === impl ResponseBody ===

impl ResponseBody {
    /// `body` with its watchers if it is already such a body. tonic's is taken unchanged, another
    /// is boxed.
    pub fn of<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let mut body = Some(body);
        if let Some(own) = (&mut body as &mut dyn Any).downcast_mut::<Option<Self>>() {
            return own.take().unwrap_or_default();
        }
        let mut own = Kept::take(&KEPT);
        own.frames.set(body.map(plain_body).unwrap_or_default());
        Self(Some(own))
    }

    /// Reads the answer of a unary call if all of it is ready, and it is small: those who watch it
    /// from now on see all of it at once, and nothing of them is kept until it is sent.
    ///
    /// For servers: what a handler has answered is ready, and its status is known.
    pub fn settle(&mut self) {
        if let Some(own) = &mut self.0
            && own.watchers.is_empty()
        {
            // What the handler has read is of before its answer.
            clock::forget();
            own.frames.read_ahead();
        }
    }

    /// Now, if it is [settled](Self::settle): one reading of the clock for all that look at it in
    /// one poll of a layer, which begins with [`clock::forget`].
    pub fn settled_now(&mut self) -> Option<Instant> {
        self.0.as_mut()?.frames.whole().map(|whole| whole.now())
    }

    /// Adds `watcher` outside of all others; it is boxed if it has to wait.
    #[inline]
    pub fn watch<W: Watcher + 'static>(&mut self, watcher: W) {
        self.add(watcher, false);
    }

    /// Adds `watcher` outside of all others, which are polled within its scope.
    #[inline]
    pub fn watch_within<W: Watcher + 'static>(&mut self, watcher: W) {
        self.add(watcher, true);
    }

    /// Adds `watcher` outside of all others, which sees the frames when they are sent, also those
    /// that were read before.
    #[inline]
    pub fn watch_sent<W: Watcher + 'static>(&mut self, watcher: W) {
        self.own().push(Box::pin(watcher), false);
    }

    /// Adds `watcher` outside of all others, in its own box.
    #[inline]
    pub fn watch_boxed<W: Watcher + 'static>(&mut self, watcher: Pin<Box<W>>) {
        self.add_boxed(watcher, false);
    }

    /// Adds `watcher` outside of all others, in its own box; they are polled within its scope.
    #[inline]
    pub fn watch_boxed_within<W: Watcher + 'static>(&mut self, watcher: Pin<Box<W>>) {
        self.add_boxed(watcher, true);
    }

    /// The same body, watched.
    #[must_use]
    pub fn watched<W: Watcher + 'static>(mut self, watcher: W) -> Self {
        self.watch(watcher);
        self
    }

    #[inline]
    fn add<W: Watcher + 'static>(&mut self, watcher: W, is_scope: bool) {
        let own = self.own();
        match own.frames.whole() {
            None => own.push(Box::pin(watcher), is_scope),
            Some(whole) => _ = whole.show(pin!(watcher)),
        }
    }

    #[inline]
    fn add_boxed<W: Watcher + 'static>(&mut self, mut watcher: Pin<Box<W>>, is_scope: bool) {
        let own = self.own();
        match own.frames.whole() {
            None => own.push(watcher, is_scope),
            Some(whole) => {
                if whole.show(watcher.as_mut()) == Next::Over {
                    watcher.is_over();
                }
            }
        }
    }

    #[inline]
    fn own(&mut self) -> &mut Own {
        self.0.get_or_insert_with(|| Kept::take(&KEPT))
    }
}

impl Drop for ResponseBody {
    #[inline]
    fn drop(&mut self) {
        if let Some(own) = self.0.take() {
            own.keep();
        }
    }
}

// === impl Own ===

impl Own {
    #[inline]
    fn push<W: Watcher + 'static>(&mut self, watcher: Pin<Box<W>>, is_scope: bool) {
        self.has_scopes |= is_scope;
        self.watchers.push(Slot { sees_data: watcher.sees_data(), watcher: Some(watcher) });
    }

    /// Without watchers the frame stays where the inner body has written it: to copy it would take
    /// longer than the poll.
    #[inline]
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Polled> {
        self.has_begun.set(false);
        if self.has_scopes {
            return self.poll_within(cx);
        }
        if self.watchers.is_empty() {
            return self.frames.poll(cx);
        }
        self.poll_watched(cx)
    }

    fn poll_watched(&mut self, cx: &mut Context<'_>) -> Poll<Polled> {
        let mut polled = self.frames.poll(cx);
        let mut seen = Seen::default();
        for at in 0..self.watchers.len() {
            if self.watchers[at].sees(&polled) {
                step(&mut self.frames, &mut self.watchers[..=at], cx, &mut seen, &mut polled);
            }
        }
        polled
    }

    fn poll_within(&mut self, cx: &mut Context<'_>) -> Poll<Polled> {
        let mut polled = Poll::Pending;
        let mut seen = Seen::default();
        poll_within(&mut self.frames, &mut self.watchers, cx, &mut seen, &mut polled);
        polled
    }

    /// Drops what it holds, and keeps its box for another body.
    #[inline]
    fn keep(mut self: Box<Self>) {
        self.frames.clear();
        self.watchers.clear();
        self.has_scopes = false;
        self.has_begun.set(false);
        Kept::keep(&KEPT, self);
    }

    fn size_hint(&self) -> SizeHint {
        let mut watchers = self.watchers.iter().flat_map(|slot| &slot.watcher);
        match watchers.any(|watcher| watcher.may_cut()) {
            true => SizeHint::new(),
            false => self.frames.size_hint(),
        }
    }

    fn is_end_stream(&self) -> bool {
        let mut watchers = self.watchers.iter().flat_map(|slot| &slot.watcher);
        !self.has_begun.get()
            && self.frames.are_over()
            && !watchers.any(|watcher| watcher.holds_more())
    }
}

/// The slot of a watcher, which may be finished.
#[derive(Default)]
struct Slot {
    watcher: Option<Pin<Box<dyn Watcher>>>,
    sees_data: bool,
}

// === impl Slot ===

impl Slot {
    /// Whether this is for its watcher.
    #[inline]
    fn sees(&self, polled: &Poll<Polled>) -> bool {
        let is_data = || matches!(polled, Poll::Ready(polled) if is_data(polled));
        self.watcher.is_some() && (self.sees_data || !is_data())
    }
}

/// Polls the body below the last of `slots`, within its scope.
fn poll_within(
    frames: &mut Frames,
    slots: &mut [Slot],
    cx: &mut Context<'_>,
    seen: &mut Seen,
    polled: &mut Poll<Polled>,
) {
    let Some((last, further_in)) = slots.split_last_mut() else {
        *polled = frames.poll(cx);
        return;
    };
    let mut poll = || poll_within(frames, further_in, cx, seen, polled);
    match &mut last.watcher {
        Some(watcher) => watcher.as_mut().scope(&mut poll),
        None => poll(),
    }
    if slots.last().is_some_and(|last| last.sees(polled)) {
        step(frames, slots, cx, seen, polled);
    }
}

/// Passes the poll to the last of `slots`.
fn step(
    frames: &mut Frames,
    slots: &mut [Slot],
    cx: &mut Context<'_>,
    seen: &mut Seen,
    polled: &mut Poll<Polled>,
) {
    let Some((last, further_in)) = slots.split_last_mut() else { return };
    let Some(watcher) = &mut last.watcher else { return };
    let next = match polled {
        Poll::Ready(polled) => watcher.as_mut().sees(polled, seen),
        Poll::Pending => match watcher.as_mut().waits(cx) {
            Poll::Ready(last) => {
                *polled = Poll::Ready(last);
                Next::Cut
            }
            Poll::Pending => Next::Watch,
        },
    };
    match next {
        Next::Watch => {}
        Next::Over => {
            if let Some(watcher) = last.watcher.take() {
                watcher.is_over();
            }
        }
        Next::Cut => {
            frames.clear();
            further_in.fill_with(Slot::default);
            // What those further out see is another frame.
            *seen = Seen::default();
        }
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Polled> {
        match &mut self.0 {
            None => Poll::Ready(None),
            Some(own) => own.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|own| own.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |own| own.size_hint())
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;
    use http_body::Frame;
    use http_body_util::{BodyExt, Full, StreamBody};
    use proptest::prelude::*;
    use std::{
        collections::VecDeque,
        convert::Infallible,
        sync::{Arc, Mutex},
    };
    use tonic::{Code, Status};

    type Log = Arc<Mutex<Vec<String>>>;

    /// Records the polls, and does `next` at the frame of this number.
    struct Notes {
        name: &'static str,
        log: Log,
        next: (usize, Next),
        frames: usize,
    }

    fn notes(name: &'static str, log: &Log, next: (usize, Next)) -> Notes {
        Notes { name, log: log.clone(), next, frames: 0 }
    }

    impl Notes {
        fn note(&self, what: &str) {
            self.log.lock().unwrap().push(format!("{} {what}", self.name));
        }
    }

    impl Watcher for Notes {
        fn sees(mut self: Pin<&mut Self>, polled: &mut Polled, _: &mut Seen) -> Next {
            let what = match polled {
                Some(Ok(frame)) if frame.is_data() => "data",
                Some(Ok(_)) => "trailers",
                Some(Err(_)) => "error",
                None => "end",
            };
            self.note(what);
            let (at, next) = self.next;
            self.frames += 1;
            if self.frames != at {
                return Next::Watch;
            }
            if next == Next::Cut {
                *polled = Some(Err(Status::cancelled("cut")));
            }
            next
        }

        fn scope(self: Pin<&mut Self>, poll: &mut dyn FnMut()) {
            self.note("enters");
            poll();
            self.note("leaves");
        }

        fn is_over(self: Pin<Box<Self>>) {
            self.note("over");
        }
    }

    impl Drop for Notes {
        fn drop(&mut self) {
            self.note("dropped");
        }
    }

    const NEVER: (usize, Next) = (0, Next::Watch);

    fn body() -> ResponseBody {
        let frames = [Frame::data(Bytes::from("a")), Frame::trailers(HeaderMap::new())];
        let frames = frames.map(Ok::<_, Infallible>);
        ResponseBody::of(StreamBody::new(tokio_stream::iter(frames)))
    }

    async fn read(mut body: ResponseBody) -> Vec<String> {
        let mut read = vec![];
        while let Some(frame) = body.frame().await {
            read.push(
                frame.map_or_else(|error| error.message().into(), |frame| format!("{frame:?}")),
            );
        }
        read
    }

    fn taken(log: &Log) -> Vec<String> {
        std::mem::take(&mut log.lock().unwrap())
    }

    #[tokio::test]
    async fn watchers_see_each_frame_from_the_innermost_outwards_until_they_are_over() {
        let log = Log::default();
        let inner = notes("inner", &log, (1, Next::Over));
        let outer = notes("outer", &log, NEVER);
        // Converting a body repeatedly does not change it.
        let watched = ResponseBody::of(ResponseBody::of(body().watched(inner)).watched(outer));
        assert_eq!(read(watched).await.len(), 2);
        let expected = [
            "inner data",
            "inner over",
            "inner dropped",
            "outer data",
            "outer trailers",
            "outer end",
            "outer dropped",
        ];
        assert_eq!(taken(&log), expected);
    }

    /// Records the code in the trailers, which it replaces if it has others.
    struct Codes(Arc<Mutex<Vec<Option<Code>>>>, Option<HeaderMap>);

    impl Watcher for Codes {
        fn sees(mut self: Pin<&mut Self>, polled: &mut Polled, seen: &mut Seen) -> Next {
            let Some(Ok(frame)) = polled else { return Next::Watch };
            let Some(trailers) = frame.trailers_ref() else { return Next::Watch };
            self.0.lock().unwrap().push(seen.code(trailers));
            let Some(others) = self.1.take() else { return Next::Watch };
            *polled = Some(Ok(Frame::trailers(others)));
            Next::Cut
        }
    }

    #[tokio::test]
    async fn a_code_that_was_read_is_not_that_of_trailers_that_replace_it() {
        let trailers = |code: u16| HeaderMap::from_iter([(Status::GRPC_STATUS, code.into())]);
        for is_settled in [false, true] {
            let frames = [Frame::data(Bytes::from("a")), Frame::trailers(trailers(0))];
            let frames = frames.map(Ok::<_, Infallible>);
            let mut body = ResponseBody::of(StreamBody::new(tokio_stream::iter(frames)));
            if is_settled {
                body.settle();
            }
            let codes = Arc::default();
            let replaces = Some(trailers(13));
            let own = [None, replaces, None].map(|others| Codes(Arc::clone(&codes), others));
            let body = own.into_iter().fold(body, ResponseBody::watched);
            assert_eq!(read(body).await.len(), 2);
            let seen = std::mem::take(&mut *codes.lock().unwrap());
            assert_eq!(
                seen,
                [Some(Code::Ok), Some(Code::Ok), Some(Code::Internal)],
                "{is_settled}"
            );
        }
    }

    #[tokio::test]
    async fn a_body_that_is_cut_drops_what_is_further_in_and_ends_with_the_error() {
        let log = Log::default();
        let watched = body()
            .watched(notes("inner", &log, NEVER))
            .watched(notes("cuts", &log, (1, Next::Cut)))
            .watched(notes("outer", &log, NEVER));
        assert_eq!(read(watched).await, ["cut"]);
        let expected = ["inner data", "cuts data", "inner dropped", "outer error"];
        assert_eq!(taken(&log)[..4], expected);
    }

    #[tokio::test]
    async fn what_is_further_in_is_polled_and_watched_within_the_scope() {
        let log = Log::default();
        let mut watched = body().watched(notes("inner", &log, NEVER));
        watched.watch_within(notes("scope", &log, NEVER));
        read(watched).await;
        let first = ["scope enters", "inner enters", "inner leaves", "inner data", "scope leaves"];
        assert_eq!(taken(&log)[..5], first);
    }

    #[tokio::test]
    async fn a_body_that_waits_fails_by_the_watcher_that_says_so() {
        struct Impatient;
        impl Watcher for Impatient {
            fn sees(self: Pin<&mut Self>, _: &mut Polled, _: &mut Seen) -> Next {
                Next::Watch
            }

            fn waits(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Polled> {
                Poll::Ready(Some(Err(Status::deadline_exceeded("too long"))))
            }
        }
        let (log, never) = (Log::default(), StreamBody::new(tokio_stream::pending()));
        let never =
            ResponseBody::of::<StreamBody<tokio_stream::Pending<Result<_, Infallible>>>>(never);
        let watched = never
            .watched(notes("inner", &log, NEVER))
            .watched(Impatient)
            .watched(notes("outer", &log, NEVER));
        assert_eq!(read(watched).await, ["too long"]);
        assert_eq!(taken(&log), ["inner dropped", "outer error", "outer end", "outer dropped"]);
    }

    /// Frames of a body; `None` means that the next is not ready.
    #[derive(Clone, Debug)]
    struct Frames(VecDeque<Option<Result<u8, ()>>>);

    impl HttpBody for Frames {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Polled> {
            Poll::Ready(match self.0.pop_front() {
                Some(None) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(Some(Ok(0))) => Some(Ok(Frame::trailers(HeaderMap::new()))),
                Some(Some(Ok(byte))) => Some(Ok(Frame::data(vec![byte].into()))),
                Some(Some(Err(()))) => Some(Err(Status::internal("broken"))),
                None => None,
            })
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }
    }

    proptest! {
        #[test]
        fn a_settled_body_is_seen_and_sent_as_any_other(
            frames in prop::collection::vec(
                prop::option::of(prop::result::maybe_err(0..3_u8, Just(()))), 0..4),
            inner in (0..3_usize, prop::sample::select(vec![Next::Over, Next::Cut])),
            outer in 0..3_usize,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let results = [false, true].map(|is_settled| {
                let log = Log::default();
                let mut body = ResponseBody::of(Frames(frames.iter().copied().collect()));
                if is_settled {
                    body.settle();
                }
                body.watch(notes("inner", &log, inner));
                body.watch(notes("outer", &log, (outer, Next::Over)));
                let read = runtime.block_on(read(body));
                // Each one's own order: those of a whole answer see it one after the other.
                let of = |name| {
                    let log = log.lock().unwrap();
                    let own = log.iter().filter(|line| line.starts_with(name));
                    let seen = own.filter(|line| !line.ends_with("over"));
                    seen.filter(|line| !line.ends_with("dropped")).cloned().collect::<Vec<_>>()
                };
                (read, of("inner"), of("outer"))
            });
            // What is whole ends with its trailers: nobody polls for what is after them.
            let until_trailers = |seen: &Vec<String>| {
                let is_data = |line: &String| line.ends_with("data") || line.contains("Data");
                let end = seen.iter().position(|line| !is_data(line));
                seen[..end.map_or(seen.len(), |end| end + 1)].to_vec()
            };
            prop_assert_eq!(until_trailers(&results[0].0), until_trailers(&results[1].0));
            if inner.1 != Next::Cut {
                prop_assert_eq!(until_trailers(&results[0].1), until_trailers(&results[1].1));
            }
            prop_assert_eq!(until_trailers(&results[0].2), until_trailers(&results[1].2));
        }
    }

    type Case = (Vec<Option<Result<u8, ()>>>, bool, bool, (usize, Next));

    /// The frames of a watched body that are read before it is dropped, and what was seen of it.
    fn seen((frames, is_settled, is_scope, next): &Case, polls: usize) -> [Vec<String>; 2] {
        let log = Log::default();
        let mut body = ResponseBody::of(Frames(frames.iter().copied().collect()));
        if *is_settled {
            body.settle();
        }
        match is_scope {
            true => body.watch_within(notes("it", &log, *next)),
            false => body.watch(notes("it", &log, *next)),
        }
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        let polled = (0..polls).map(|_| format!("{:?}", Pin::new(&mut body).poll_frame(cx)));
        let polled = polled.collect();
        drop(body);
        [polled, taken(&log)]
    }

    fn case() -> impl Strategy<Value = Case> {
        let frame = prop::option::of(prop::result::maybe_err(0..3_u8, Just(())));
        let next = prop::sample::select(vec![Next::Over, Next::Cut]);
        (prop::collection::vec(frame, 0..4), any::<bool>(), any::<bool>(), (0..3_usize, next))
    }

    proptest! {
        #[test]
        fn a_body_has_nothing_of_the_one_whose_memory_it_takes(
            before in prop::collection::vec((case(), 0..5_usize), 1..4),
            then in case(),
        ) {
            before.iter().for_each(|(case, polls)| _ = seen(case, *polls));
            let again = seen(&then, 5);
            // A thread that has kept none.
            let new = std::thread::scope(|scope| scope.spawn(|| seen(&then, 5)).join());
            prop_assert_eq!(again, new.unwrap());
        }
    }

    #[tokio::test]
    async fn a_small_answer_that_is_ready_is_seen_before_it_is_sent_and_no_other() {
        let seen_of = |frames: &[Option<Result<u8, ()>>], at_most: usize| {
            let log = Log::default();
            let mut body = ResponseBody::of(Frames(frames.iter().copied().collect()));
            body.settle();
            body.watch(notes("it", &log, NEVER));
            assert!(taken(&log).len() <= at_most);
            !taken(&log).is_empty() || body.own().watchers.is_empty()
        };
        assert!(seen_of(&[Some(Ok(1)), Some(Ok(0))], 3), "a message and its trailers");
        assert!(!seen_of(&[Some(Ok(1)), None, Some(Ok(0))], 0), "the trailers are not ready");
        assert!(!seen_of(&[Some(Ok(1)), Some(Ok(2)), Some(Ok(0))], 0), "two messages");
        assert!(!seen_of(&[Some(Ok(1)), Some(Err(()))], 0), "it fails");
        let log = Log::default();
        let large = Frame::data(Bytes::from(vec![0; 16 * 1024 + 1]));
        let frames = [large, Frame::trailers(HeaderMap::new())].map(Ok::<_, Infallible>);
        let mut body = ResponseBody::of(StreamBody::new(tokio_stream::iter(frames)));
        body.settle();
        body.watch(notes("it", &log, NEVER));
        assert_eq!(taken(&log).len(), 0);
        assert_eq!(read(body).await.len(), 2);
    }

    #[tokio::test]
    async fn what_watches_the_sending_sees_a_settled_answer_when_it_is_read() {
        let log = Log::default();
        let mut body = ResponseBody::of(Frames([Some(Ok(1)), Some(Ok(0))].into()));
        body.settle();
        body.watch_sent(notes("sent", &log, NEVER));
        body.watch(notes("ready", &log, NEVER));
        assert_eq!(taken(&log), ["ready data", "ready trailers", "ready dropped"]);
        assert_eq!(read(body).await.len(), 2);
        assert_eq!(taken(&log)[..2], ["sent data", "sent trailers"]);
    }

    /// Notes when it sees the trailers.
    struct Times(Arc<Mutex<Vec<Instant>>>);

    impl Watcher for Times {
        fn sees(self: Pin<&mut Self>, _: &mut Polled, seen: &mut Seen) -> Next {
            self.0.lock().unwrap().push(seen.now());
            Next::Watch
        }

        fn sees_data(&self) -> bool {
            false
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_reading_of_the_clock_is_for_one_poll_and_no_longer() {
        let times = Arc::new(Mutex::new(Vec::new()));
        let mut body = ResponseBody::of(Frames([Some(Ok(1)), Some(Ok(0))].into()));
        body.watch_sent(Times(times.clone()));
        assert_eq!(body.settled_now(), None, "it is watched");
        let mut body = ResponseBody::of(Frames([Some(Ok(1)), Some(Ok(0))].into()));
        body.settle();
        body.watch(Times(times.clone()));
        let began = Instant::now();
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        assert_eq!(body.settled_now(), Some(began), "in the same poll");
        // A layer has waited, and another one is polled.
        clock::forget();
        let late = Instant::now();
        assert_eq!(body.settled_now(), Some(late));
        body.watch_sent(Times(times.clone()));
        read(body).await;
        assert_eq!(*times.lock().unwrap(), [began, late, late], "trailers, and the end");
    }

    #[test]
    fn the_beginning_of_an_answer_is_a_head_of_grpc_without_status_whose_body_goes_on() {
        let head = |name: &'static str, value, body: ResponseBody| {
            let builder = Response::builder().header("content-type", "application/grpc");
            builder.header(name, value).body(body).unwrap()
        };
        assert!(begins(&head("x", "1", body())));
        assert!(!begins(&head("grpc-status", "0", body())));
        assert!(!begins(&head("x", "1", ResponseBody::default())));
        assert!(!begins(&Response::new(body())), "it is of no content type");
        let mut refused = head("x", "1", body());
        *refused.status_mut() = StatusCode::BAD_GATEWAY;
        assert!(!begins(&refused));
        let mut whole = head("x", "1", ResponseBody::of(Full::from("a")));
        assert!(begins(&whole) && !whole.body().is_end_stream());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(whole.body_mut()).poll_frame(&mut cx).is_ready());
        assert!(whole.body().is_end_stream(), "what was found out holds until it is read");
        let mut changed = head("x", "1", body());
        assert!(begins(&changed));
        changed.headers_mut().insert("grpc-status", "14".parse().unwrap());
        assert!(!begins(&changed), "a layer in between has set a status");
        changed.headers_mut().remove("grpc-status");
        *changed.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        assert!(!begins(&changed));
    }
}
