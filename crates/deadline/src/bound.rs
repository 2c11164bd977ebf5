//! What both layers share: a call, from readiness to trailers, that ends at an instant.

use bytes::Bytes;
use cinchona_core::{BoxError, Deadline, Elapsed, Switch, status};
use http::uri::PathAndQuery;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::{
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};
use tower_service::Service;

pin_project! {
    /// The future of a call that ends at an instant.
    #[derive(Debug)]
    pub struct ResponseFuture<S, B, F> {
        #[pin]
        state: State<S, B, F>,
        #[pin]
        bound: Option<Bound>,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State<S, B, F> {
        // Boxed: it is rare, and large.
        Waiting { waiting: Option<Box<(S, http::Request<B>)>> },
        Called { #[pin] future: F },
        Failed { error: Option<BoxError> },
    }
}

pin_project! {
    /// A response body that ends at an instant, if need be with an error.
    #[derive(Debug)]
    pub struct BoundBody<B> {
        #[pin]
        inner: Option<B>,
        #[pin]
        bound: Option<Bound>,
    }
}

pin_project! {
    /// The instant, and what to say of the call when it comes.
    #[derive(Debug)]
    pub(crate) struct Bound {
        end: Instant,
        // Begun when there is something to wait for.
        #[pin]
        sleep: Option<Sleep>,
        what: &'static str,
        started: Instant,
        limit: Duration,
        path: Option<PathAndQuery>,
        attempt: u32,
        // Where the end is only counted.
        counting: Option<Switch>,
    }
}

/// A service whose readiness is waited for within the call, so that the wait is bounded too.
#[derive(Debug)]
pub(crate) struct Readied<S> {
    inner: S,
    readiness: Readiness,
}

#[derive(Debug)]
enum Readiness {
    Waiting,
    Ready,
    Failed(BoxError),
}

// === impl Readied ===

impl<S> Readied<S> {
    pub(crate) const fn new(inner: S) -> Self {
        Self { inner, readiness: Readiness::Waiting }
    }

    /// Polls the service and says nothing of it: the wait belongs to the call.
    pub(crate) fn poll<B>(&mut self, cx: &mut Context<'_>)
    where
        S: Service<http::Request<B>>,
        S::Error: Into<BoxError>,
    {
        if matches!(self.readiness, Readiness::Waiting) {
            self.readiness = match self.inner.poll_ready(cx) {
                Poll::Pending => Readiness::Waiting,
                Poll::Ready(Ok(())) => Readiness::Ready,
                Poll::Ready(Err(error)) => Readiness::Failed(error.into()),
            };
        }
    }

    /// Calls the service and ends the call at `deadline`; `what` names the limit that does.
    pub(crate) fn call_until<B>(
        &mut self,
        request: http::Request<B>,
        (deadline, what): (Deadline, &'static str),
        now: Instant,
    ) -> ResponseFuture<S, B, S::Future>
    where
        S: Service<http::Request<B>> + Clone,
    {
        let bound = Bound::new(what, deadline, &request, now);
        if deadline.has_passed(now) {
            return ResponseFuture::failed(bound.elapsed(now));
        }
        self.call(request, Some(bound))
    }

    pub(crate) fn call<B>(
        &mut self,
        mut request: http::Request<B>,
        bound: Option<Bound>,
    ) -> ResponseFuture<S, B, S::Future>
    where
        S: Service<http::Request<B>> + Clone,
    {
        let state = match mem::replace(&mut self.readiness, Readiness::Waiting) {
            Readiness::Failed(error) => State::Failed { error: Some(error) },
            Readiness::Ready => {
                if let Some(bound) = &bound {
                    stamp(&mut request, Some(bound), bound.started);
                }
                State::Called { future: self.inner.call(request) }
            }
            Readiness::Waiting => {
                // The one that is already queueing goes along; its place here takes a clone.
                let clone = self.inner.clone();
                let service = mem::replace(&mut self.inner, clone);
                State::Waiting { waiting: Some(Box::new((service, request))) }
            }
        };
        ResponseFuture { state, bound }
    }
}

impl<S: Clone> Clone for Readied<S> {
    /// A clone has to become ready by itself.
    fn clone(&self) -> Self {
        Self::new(self.inner.clone())
    }
}

fn stamp<B>(request: &mut http::Request<B>, bound: Option<&Bound>, now: Instant) {
    if let Some(bound) = bound.filter(|bound| bound.counting.is_none()) {
        Deadline(bound.end).stamp(request.headers_mut(), now);
    }
}

// === impl ResponseFuture ===

impl<S, B, F> ResponseFuture<S, B, F> {
    /// Answers with `error` and sends nothing.
    pub(crate) fn failed(error: impl Into<BoxError>) -> Self {
        Self { state: State::Failed { error: Some(error.into()) }, bound: None }
    }
}

impl<S, B, ResBody> Future for ResponseFuture<S, B, S::Future>
where
    S: Service<http::Request<B>, Response = http::Response<ResBody>>,
    S::Error: Into<BoxError>,
    ResBody: Body,
{
    type Output = Result<http::Response<BoundBody<ResBody>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let bound = this.bound.as_ref().get_ref().as_ref();
        match this.state.as_mut().poll_response(cx, bound) {
            Poll::Ready(Ok(response)) => Poll::Ready(Ok(bind(response, bound))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(status::of_error(error).into())),
            Poll::Pending => {
                let Some(elapsed) = ready!(Bound::poll_end(this.bound, cx)) else {
                    return Poll::Pending;
                };
                // Drops the call: HTTP/2 resets the stream.
                this.state.set(State::Failed { error: None });
                Poll::Ready(Err(elapsed.into()))
            }
        }
    }
}

impl<S, B, F> State<S, B, F> {
    fn poll_response<ResBody>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bound: Option<&Bound>,
    ) -> Poll<Result<http::Response<ResBody>, BoxError>>
    where
        S: Service<http::Request<B>, Response = http::Response<ResBody>, Future = F>,
        S::Error: Into<BoxError>,
        F: Future<Output = Result<S::Response, S::Error>>,
    {
        loop {
            let future = match self.as_mut().project() {
                StateProj::Called { future } => return future.poll(cx).map_err(Into::into),
                StateProj::Failed { error } => {
                    let polled_again = || "polled after it had completed".into();
                    return Poll::Ready(Err(error.take().unwrap_or_else(polled_again)));
                }
                StateProj::Waiting { waiting } => {
                    if let Some(waiting) = waiting {
                        ready!(waiting.0.poll_ready(cx)).map_err(Into::into)?;
                    }
                    let Some(waiting) = waiting.take() else { return Poll::Pending };
                    let (mut service, mut request) = *waiting;
                    stamp(&mut request, bound, Instant::now());
                    service.call(request)
                }
            };
            self.set(Self::Called { future });
        }
    }
}

/// Bounds the response's body, if there is one to wait for.
fn bind<B: Body>(
    response: http::Response<B>,
    bound: Option<&Bound>,
) -> http::Response<BoundBody<B>> {
    let (mut head, body) = response.into_parts();
    status::correct_timeout(&mut head.headers);
    let bound = bound.filter(|_| !body.is_end_stream()).map(Bound::again);
    http::Response::from_parts(head, BoundBody { inner: Some(body), bound })
}

// === impl Bound ===

impl Bound {
    pub(crate) fn new<B>(
        what: &'static str,
        deadline: Deadline,
        request: &http::Request<B>,
        now: Instant,
    ) -> Self {
        Self {
            end: deadline.0,
            sleep: None,
            what,
            started: now,
            limit: deadline.remaining(now),
            path: request.uri().path_and_query().cloned(),
            attempt: status::previous_attempts(request.headers()) + 1,
            counting: None,
        }
    }

    /// The same bound, which ends nothing and only tells `switch`.
    pub(crate) fn counting(self, switch: Switch) -> Self {
        Self { counting: Some(switch), ..self }
    }

    /// What there is to say at the end; `None` where it was only counted, and never again.
    fn poll_end(mut bound: Pin<&mut Option<Self>>, cx: &mut Context<'_>) -> Poll<Option<Elapsed>> {
        let Some(own) = bound.as_mut().as_pin_mut() else { return Poll::Pending };
        let elapsed = ready!(own.poll(cx));
        match bound.as_ref().get_ref().as_ref().and_then(|own| own.counting.as_ref()) {
            None => Poll::Ready(Some(elapsed)),
            Some(switch) => {
                switch.count();
                bound.set(None);
                Poll::Ready(None)
            }
        }
    }

    /// The same bound for the next phase of the call: a `Sleep` cannot move once polled.
    fn again(&self) -> Self {
        Self {
            end: self.end,
            sleep: None,
            what: self.what,
            started: self.started,
            limit: self.limit,
            path: self.path.clone(),
            attempt: self.attempt,
            counting: self.counting.clone(),
        }
    }

    /// Reports that the instant has come.
    fn elapsed(&self, now: Instant) -> Elapsed {
        let Self { what, limit, attempt, .. } = self;
        let method = self.path.as_ref().map_or("", PathAndQuery::path);
        let elapsed = now - self.started;
        tracing::info!(rpc.method = method, attempt, ?limit, ?elapsed, "{what} exceeded");
        Elapsed::new(format!("{what} of {limit:?} exceeded by {method}, attempt {attempt}"))
    }
}

impl Future for Bound {
    type Output = Elapsed;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Elapsed> {
        let mut this = self.as_mut().project();
        if this.sleep.is_none() {
            this.sleep.set(Some(sleep_until(*this.end)));
        }
        if let Some(sleep) = this.sleep.as_pin_mut() {
            ready!(sleep.poll(cx));
        }
        Poll::Ready(self.elapsed(Instant::now()))
    }
}

// === impl BoundBody ===

impl<B> Body for BoundBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        match inner.poll_frame(cx) {
            Poll::Ready(Some(Err(error))) => {
                Poll::Ready(Some(Err(status::of_error(error.into()).into())))
            }
            Poll::Ready(frame) => Poll::Ready(frame.map(|frame| frame.map_err(Into::into))),
            Poll::Pending => {
                let Some(elapsed) = ready!(Bound::poll_end(this.bound, cx)) else {
                    return Poll::Pending;
                };
                // Drops the body: HTTP/2 resets the stream.
                this.inner.set(None);
                Poll::Ready(Some(Err(elapsed.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}
