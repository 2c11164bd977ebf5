//! The common part of both layers: a bounded call, from readiness to the head of its response.

use crate::{bound::Bound, stage::Stage, timer::Timer};
use bytes::Bytes;
use cinchona_core::{BoxError, Verdict};
use cinchona_plumbing::{ResponseBody, cause::find_cause, polled_again, status};
use http_body::Body;
use pin_project_lite::pin_project;
use std::{
    error::Error,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::time::Instant;
use tonic::{Code, TimeoutExpired};
use tower_service::Service;

pin_project! {
    /// The future of a bounded call.
    #[derive(Debug)]
    pub struct ResponseFuture<S, B, F> {
        #[pin]
        state: State<S, B, F>,
        timer: Option<Pin<Box<Timer>>>,
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

/// A service whose readiness is awaited within the call, so that the wait is bounded too.
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

    /// Polls the service and returns ready: the wait belongs to the call.
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

    /// Polls the service directly.
    pub(crate) fn poll_bare<B>(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>>
    where
        S: Service<http::Request<B>>,
        S::Error: Into<BoxError>,
    {
        let readiness = mem::replace(&mut self.readiness, Readiness::Waiting);
        if let Readiness::Failed(error) = readiness {
            return Poll::Ready(Err(error));
        }
        ready!(self.inner.poll_ready(cx)).map_err(Into::into)?;
        self.readiness = Readiness::Ready;
        Poll::Ready(Ok(()))
    }

    /// Calls the service, bounded by a timer if there is one.
    pub(crate) fn call<B>(
        &mut self,
        mut request: http::Request<B>,
        timer: Option<Pin<Box<Timer>>>,
    ) -> ResponseFuture<S, B, S::Future>
    where
        S: Service<http::Request<B>> + Clone,
    {
        let bound = timer.as_ref().map(|timer| timer.bound());
        if let Some(elapsed) = bound.and_then(Bound::passed) {
            return ResponseFuture::failed(elapsed);
        }
        let state = match mem::replace(&mut self.readiness, Readiness::Waiting) {
            Readiness::Failed(error) => State::Failed { error: Some(error) },
            Readiness::Ready => {
                if let Some(bound) = bound {
                    bound.stamp(request.headers_mut(), bound.started());
                }
                State::Called { future: self.inner.call(request) }
            }
            Readiness::Waiting => {
                // The instance that is already queueing is moved; a clone takes its place.
                let clone = self.inner.clone();
                let service = mem::replace(&mut self.inner, clone);
                State::Waiting { waiting: Some(Box::new((service, request))) }
            }
        };
        ResponseFuture { state, timer }
    }
}

impl<S: Clone> Clone for Readied<S> {
    /// A clone has to become ready by itself.
    fn clone(&self) -> Self {
        Self::new(self.inner.clone())
    }
}

// === impl ResponseFuture ===

impl<S, B, F> ResponseFuture<S, B, F> {
    /// Answers with `error` and sends nothing.
    pub(crate) fn failed(error: impl Into<BoxError>) -> Self {
        Self { state: State::Failed { error: Some(error.into()) }, timer: None }
    }
}

impl<S, B, ResBody> Future for ResponseFuture<S, B, S::Future>
where
    S: Service<http::Request<B>, Response = http::Response<ResBody>>,
    S::Error: Into<BoxError>,
    ResBody: Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    type Output = Result<http::Response<ResponseBody>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(timer) = this.timer else {
            let polled = this.state.poll_response(cx, None);
            return polled.map_ok(|response| response.map(ResponseBody::of));
        };
        match this.state.as_mut().poll_response(cx, Some(timer.bound())) {
            Poll::Ready(Ok(response)) => Poll::Ready(Ok(bind(response, this.timer.take()))),
            Poll::Ready(Err(error)) => {
                // tonic's channel has its own timer by `grpc-timeout`, without details.
                let due = is_tonics(&*error).then(|| timer.as_mut().due(this.state.stage()));
                Poll::Ready(Err(match due.flatten() {
                    Some(elapsed) => elapsed.into(),
                    None => Verdict::status_of(error).into(),
                }))
            }
            Poll::Pending => {
                let elapsed = ready!(timer.as_mut().poll_end(cx, this.state.stage()));
                // Drops the call: HTTP/2 resets the stream.
                this.state.set(State::Failed { error: None });
                Poll::Ready(Err(elapsed.into()))
            }
        }
    }
}

impl<S, B, F> State<S, B, F> {
    const fn stage(&self) -> Stage {
        match self {
            Self::Waiting { .. } => Stage::Readiness,
            _ => Stage::Head,
        }
    }

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
                    return Poll::Ready(Err(error.take().unwrap_or_else(polled_again)));
                }
                StateProj::Waiting { waiting } => {
                    if let Some(waiting) = waiting {
                        ready!(waiting.0.poll_ready(cx)).map_err(Into::into)?;
                    }
                    let now = Instant::now();
                    // Readiness at the instant of the deadline: the timer decides.
                    let waiting = waiting.take().filter(|_| !bound.is_some_and(|b| b.is_over(now)));
                    let Some(waiting) = waiting else { return Poll::Pending };
                    let (mut service, mut request) = *waiting;
                    if let Some(bound) = bound {
                        bound.stamp(request.headers_mut(), now);
                    }
                    service.call(request)
                }
            };
            self.set(Self::Called { future });
        }
    }
}

/// Whether the error is that of tonic's client timer.
fn is_tonics(error: &(dyn Error + 'static)) -> bool {
    find_cause::<TimeoutExpired>(error).is_some()
}

/// Bounds the response's body, if it has not ended.
fn bind<B>(
    mut response: http::Response<B>,
    timer: Option<Pin<Box<Timer>>>,
) -> http::Response<ResponseBody>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    // tonic's server answers CANCELLED when the time in `grpc-timeout` is over, and only in a head
    // (`GrpcTimeout`). At any other time the status is the application's.
    let is_all = response.body().is_end_stream();
    if is_all
        && status::code(response.headers()) == Some(Code::Cancelled)
        && timer.as_ref().is_some_and(|timer| timer.bound().announced_is_over(Instant::now()))
    {
        status::correct_timeout(response.headers_mut());
    }
    let timer = timer.filter(|_| !is_all);
    let timer = timer.and_then(|mut timer| timer.as_mut().bounds_body().then_some(timer));
    let mut response = response.map(ResponseBody::of);
    timer.into_iter().for_each(|timer| response.body_mut().watch_boxed(timer));
    response
}
