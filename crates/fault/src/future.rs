//! The progress of a request, step by step.

use crate::{
    When, body,
    counters::Cells,
    rule::Action,
    rules::{Drawn, Hit},
    running::{Fate, Running},
    wire::Order,
};
use bytes::Bytes;
use cinchona_core::BoxError;
use http::{HeaderName, HeaderValue};
use pin_project_lite::pin_project;
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Sleep, sleep};
use tonic::{Code, Status, body::Body};
use tower_service::Service;

pin_project! {
    /// The future of a [`Fault`](crate::Fault) call.
    #[derive(Debug)]
    pub struct ResponseFuture<S, F, B> {
        #[pin]
        stage: Stage<S, F, B>,
        // `None` if the layer is off.
        answer: Option<Answer>,
    }

    impl<S, F, B> PinnedDrop for ResponseFuture<S, F, B> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let Some(answer) = this.answer
                && answer.is_counted
                && !answer.is_given
            {
                answer.cells().abandoned.count();
            }
        }
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = StageProj]
    enum Stage<S, F, B> {
        // Boxed, as is the late one: they are rare, and large.
        Delayed { held: Box<Held<(S, http::Request<B>)>> },
        Refused,
        Executing { #[pin] inner: F },
        Late { held: Box<Held<http::Response<Body>>> },
        Hung,
    }
}

/// What is waiting for the end of a delay.
#[derive(Debug)]
struct Held<T> {
    delay: Pin<Box<Sleep>>,
    what: Option<T>,
}

/// How the request is answered, and whether it was.
#[derive(Debug)]
pub(crate) struct Answer {
    running: Arc<Running>,
    fail: Option<When>,
    hit: Option<Box<Hit>>,
    is_counted: bool,
    is_given: bool,
}

type Reply<E> = Result<http::Response<Body>, E>;

/// Names the rules that hit a request.
const MARK: HeaderName = HeaderName::from_static("fault-injected");

// === impl ResponseFuture ===

impl<S, F, B> ResponseFuture<S, F, B> {
    pub(crate) fn delayed(
        delay: Duration,
        readied: S,
        request: http::Request<B>,
        answer: Answer,
    ) -> Self {
        answer.cells().delayed.count();
        let stage = Stage::Delayed { held: Held::new(delay, (readied, request)) };
        Self::at(stage, Some(answer))
    }

    pub(crate) const fn refused(answer: Answer) -> Self {
        Self::at(Stage::Refused, Some(answer))
    }

    #[inline(always)]
    pub(crate) const fn executing(inner: F, answer: Option<Answer>) -> Self {
        Self { stage: Stage::Executing { inner }, answer }
    }

    const fn at(stage: Stage<S, F, B>, answer: Option<Answer>) -> Self {
        Self { stage, answer }
    }
}

impl<S, B, R> Future for ResponseFuture<S, S::Future, B>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Output = Result<http::Response<Body>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let (stage, Some(answer)) = (this.stage.as_mut().project(), this.answer.as_mut())
            else {
                return this.stage.poll_bare(cx);
            };
            let next = match stage {
                StageProj::Delayed { held } => match ready!(held.poll(cx)) {
                    Some((mut readied, request)) if !answer.refuses() => {
                        answer.executes();
                        Stage::Executing { inner: readied.call(request) }
                    }
                    _ => Stage::Refused,
                },
                StageProj::Refused => match answer.instead(When::Before) {
                    Some(answer) => return Poll::Ready(Ok(answer)),
                    None => Stage::Hung,
                },
                StageProj::Executing { inner } => {
                    let reply = ready!(inner.poll(cx)).map(|reply| reply.map(Body::new));
                    if answer.is_plain() {
                        answer.is_given = true;
                        return Poll::Ready(reply);
                    }
                    match (reply, answer.late()) {
                        (Ok(reply), Some(delay)) => Stage::Late { held: Held::new(delay, reply) },
                        (Ok(reply), None) => match answer.after(reply) {
                            Some(reply) => return Poll::Ready(Ok(reply)),
                            None => Stage::Hung,
                        },
                        // A real error of the service replaces the injected failure.
                        (Err(error), _) => {
                            answer.is_given = true;
                            return Poll::Ready(Err(error));
                        }
                    }
                }
                StageProj::Late { held } => {
                    match ready!(held.poll(cx)).and_then(|reply| answer.after(reply)) {
                        Some(reply) => return Poll::Ready(Ok(reply)),
                        None => Stage::Hung,
                    }
                }
                StageProj::Hung => return Poll::Pending,
            };
            this.stage.set(next);
        }
    }
}

impl<S, F, B> Stage<S, F, B> {
    /// When off, there is nothing but the call.
    fn poll_bare<R, E>(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reply<E>>
    where
        F: Future<Output = Result<http::Response<R>, E>>,
        R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        match self.project() {
            StageProj::Executing { inner } => inner.poll(cx).map_ok(|reply| reply.map(Body::new)),
            _ => Poll::Pending,
        }
    }
}

// === impl Held ===

impl<T> Held<T> {
    fn new(delay: Duration, what: T) -> Box<Self> {
        Box::new(Self { delay: Box::pin(sleep(delay)), what: Some(what) })
    }

    /// What has waited.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.delay.as_mut().poll(cx).map(|()| self.what.take())
    }
}

// === impl Answer ===

impl Answer {
    pub(crate) fn new(running: &Arc<Running>, fate: Fate) -> Self {
        Self {
            running: running.clone(),
            fail: fate.plan.fail,
            hit: fate.hit,
            is_counted: fate.is_counted,
            is_given: false,
        }
    }

    /// For a request to `path` into which nothing is injected.
    pub(crate) fn passing(running: &Arc<Running>, path: &str) -> Self {
        let is_counted = running.pass(path);
        Self { running: running.clone(), fail: None, hit: None, is_counted, is_given: false }
    }

    /// Whether the reply is unchanged.
    const fn is_plain(&self) -> bool {
        self.fail.is_none() && self.hit.is_none()
    }

    fn cells(&self) -> &Cells {
        self.running.counted.cells()
    }

    /// Whether the request is answered without being executed.
    pub(crate) fn refuses(&self) -> bool {
        self.stands_in(When::Before)
    }

    pub(crate) fn executes(&mut self) {
        if self.is_counted {
            self.cells().executed.count();
        }
        // The end of a delay makes room for another fault (gRFC A33).
        if let Some(hit) = self.hit.as_mut().filter(|hit| hit.is_over()) {
            hit.active = None;
        }
    }

    /// Whether something replaces the reply at that time.
    fn stands_in(&self, time: When) -> bool {
        let drawn = self.hit.as_ref().and_then(|hit| hit.action.as_ref());
        let ruled = drawn.filter(|drawn| drawn.action.replaces_the_reply());
        self.fail == Some(time) || ruled.is_some_and(|drawn| drawn.when == time)
    }

    /// How long the reply waits.
    fn late(&self) -> Option<Duration> {
        let late = self.hit.as_ref().map(|hit| hit.after).filter(|after| !after.is_zero())?;
        self.cells().delayed.count();
        Some(late)
    }

    /// The reply, or its replacement; `None` if there is never one.
    fn after(&mut self, reply: http::Response<Body>) -> Option<http::Response<Body>> {
        if self.stands_in(When::After) {
            return self.instead(When::After);
        }
        self.is_given = true;
        let Some(hit) = self.hit.take() else { return Some(reply) };
        let mut reply = reply;
        self.mark(&mut reply, &hit);
        Some(match hit.action {
            Some(drawn) if !drawn.action.replaces_the_reply() => {
                body::spoil(reply, &drawn.action, &self.running, hit.active)
            }
            _ => reply,
        })
    }

    /// The replacement of the reply; `None` if there is never one.
    ///
    /// # Panics
    /// When the rule is to panic, on a server.
    fn instead(&mut self, time: When) -> Option<http::Response<Body>> {
        self.is_given = true;
        let failed = match time {
            When::Before => &self.cells().failed_before,
            When::After => &self.cells().failed_after,
        };
        if self.fail == Some(time) {
            failed.count();
            let faults = &self.running.faults;
            return Some(Status::new(faults.code, &*faults.message).into_http());
        }
        // A hang stays active until it is dropped.
        let drawn = self.hit.as_ref().and_then(|hit| hit.action.clone());
        let running = &self.running;
        let cells = running.counted.cells();
        let Drawn { action, .. } = drawn?;
        let mut answer = match action {
            Action::Status { codes, message, details } => {
                failed.count();
                let code = codes.first().map_or(Code::Unknown, |(code, _)| *code);
                Status::with_details(code, message, details.into()).into_http()
            }
            Action::HeadersThenHang => {
                cells.hung.count();
                let mut hit = self.hit.take()?;
                let active = hit.active.take();
                let mut silent = body::silent(running, active);
                self.mark(&mut silent, &hit);
                return Some(silent);
            }
            Action::Reset(code) => {
                cells.reset.count();
                body::reset(code, running)
            }
            Action::Drop => {
                cells.dropped.count();
                body::reset(Order::Drop.code(), running)
            }
            Action::GoAway(code) => {
                cells.sent_away.count();
                body::reset(Order::GoAway(code).code(), running)
            }
            Action::Panic => {
                cells.panicked.count();
                // Below a client, the error is that of tonic's server for a handler that panics.
                assert!(running.is_client, "injected by a fault rule");
                body::reset(h2::Reason::CANCEL.into(), running)
            }
            Action::Hang | Action::Cut { .. } | Action::Trailers(_) | Action::Drip { .. } => {
                cells.hung.count();
                return None;
            }
        };
        if let Some(hit) = &self.hit {
            self.mark(&mut answer, hit);
        }
        Some(answer)
    }

    fn mark(&self, reply: &mut http::Response<Body>, hit: &Hit) {
        for id in hit.ids.iter().filter(|_| self.running.is_marking) {
            if let Ok(id) = HeaderValue::from_str(id) {
                reply.headers_mut().append(MARK, id);
            }
        }
    }
}
