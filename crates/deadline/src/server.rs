//! The deadline of a call that is served.

mod body;
mod end;
mod limits;
mod sample;

use body::{Bounded, Rare};
use bytes::Bytes;
use cinchona_core::{BoxError, Deadline, MethodKind, Methods, Mode, ServerContext, Switch};
use cinchona_plumbing::{
    Paths, ResponseBody, clock, headers,
    status::{self, PREVIOUS_ATTEMPTS},
    timeout::GRPC_TIMEOUT,
};
use end::{EXCEEDED, End, TICK};
use http_body::Body;
use limits::{Limits, Terms};
use pin_project_lite::pin_project;
use sample::Sample;
use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tonic::{Status, server::NamedService};
use tower_layer::Layer;
use tower_service::Service;

/// Applies [`ServerDeadline`] to a server, or to a single service.
#[derive(Clone, Debug)]
pub struct ServerDeadlineLayer {
    limits: Arc<Limits>,
}

/// The settings of a [`ServerDeadlineLayer`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerDeadlineSettings {
    limit: Option<Duration>,
    hopeless: Option<Switch>,
    switch: Option<Switch>,
}

/// Ends the work on a call at its deadline, and does not begin work that cannot be done in time.
///
/// * The deadline is the caller's `grpc-timeout`, or the configured limit if that is earlier; once
///   a response has begun, the caller's alone. A malformed one is answered with `INTERNAL`, as
///   gRPC's servers do; an expired one with `DEADLINE_EXCEEDED`, without calling the handler.
/// * At the deadline the handler is dropped, a stream is ended, and the answer is
///   `DEADLINE_EXCEEDED`. A stream whose caller does not read is ended when it reads again, or with
///   its connection, as without this layer: HTTP/2 asks for a frame only where there is room for
///   it. A caller that has vanished is found by keepalive.
/// * The handler finds the deadline in the record of the call, in the request's extensions
///   ([`ServerContext`]); calls that it makes in its own task inherit it.
/// * A failure of the handler's own call that it passes on is stripped of the metadata that the
///   other server meant for *its* caller ([`status::strip`]).
/// * A call with less time left than the fastest hundredth of its method's calls takes is
///   *hopeless*. By default it is only counted.
#[derive(Clone, Debug)]
pub struct ServerDeadline<S> {
    inner: S,
    shared: Arc<Shared>,
}

/// The state shared by the services of one layer.
#[derive(Debug)]
struct Shared {
    limits: Arc<Limits>,
    kinds: Paths<MethodKind>,
}

pin_project! {
    /// The future of a [`ServerDeadline`] call.
    pub struct ServerFuture<F> {
        #[pin]
        work: Work<F>,
        end: Option<End>,
        context: ServerContext,
        sample: Option<Sample>,
        rare: Option<Box<Rare>>,
    }
}

pin_project! {
    #[project = WorkProj]
    enum Work<F> {
        // The layer is off.
        Bare { #[pin] handler: F },
        Handler { #[pin] handler: F },
        // Boxed, as it is rare, and large.
        Refused { refused: Option<Box<Status>> },
    }
}

// === impl ServerDeadlineSettings ===

impl ServerDeadlineSettings {
    /// Enforces the callers' deadlines, and counts the calls that are hopeless.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends every call that has not been answered after `limit`, uploads included; for a stream,
    /// the first message. Any duration is valid: a millisecond or less ends all calls, ten years or
    /// more are unlimited.
    #[must_use]
    pub fn with_limit(self, limit: Duration) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// Sets the switch that decides whether hopeless calls are refused, only counted, or not
    /// detected. Default: one of the layer's own, in shadow.
    #[must_use]
    pub fn with_hopeless(self, switch: Switch) -> Self {
        Self { hopeless: Some(switch), ..self }
    }

    /// Sets the switch that decides whether deadlines are enforced. In shadow the calls that would
    /// be refused or ended are counted; the handler finds no deadline, and its calls inherit none.
    #[must_use]
    pub fn with_switch(self, switch: Switch) -> Self {
        Self { switch: Some(switch), ..self }
    }

    /// A layer with these settings, which learns by itself how long calls take.
    #[must_use]
    pub fn layer(&self) -> ServerDeadlineLayer {
        let shadow = || Switch::new(Mode::Shadow);
        let hopeless = self.hopeless.clone().unwrap_or_else(shadow);
        let limits = Limits::new(self.limit, hopeless, self.switch.clone().unwrap_or_default());
        ServerDeadlineLayer { limits: Arc::new(limits) }
    }
}

// === impl ServerDeadlineLayer ===

impl ServerDeadlineLayer {
    /// The layer of [`ServerDeadlineSettings::new`].
    pub fn new() -> Self {
        ServerDeadlineSettings::new().layer()
    }
}

impl Default for ServerDeadlineLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for ServerDeadlineLayer {
    type Service = ServerDeadline<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let shared = Shared { limits: self.limits.clone(), kinds: Methods::all_kinds(None) };
        ServerDeadline { inner, shared: Arc::new(shared) }
    }
}

// === impl ServerDeadline ===

impl<S, B, ResBody> Service<http::Request<B>> for ServerDeadline<S>
where
    S: Service<http::Request<B>, Response = http::Response<ResBody>>,
    ResBody: Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    type Response = http::Response<ResponseBody>;
    type Error = S::Error;
    type Future = ServerFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let Shared { limits, kinds } = &*self.shared;
        let mode = limits.switch.mode();
        if mode == Mode::Off {
            return ServerFuture::of(Work::Bare { handler: self.inner.call(request) });
        }
        let [asked, previous] =
            headers::get_each(request.headers(), [&GRPC_TIMEOUT, &PREVIOUS_ATTEMPTS]);
        let previous_attempts = previous.map_or(0, status::count_of_attempts);
        let Terms { left, asked, sample } = match limits.admit(request.uri().path(), asked) {
            Ok(terms) => terms,
            Err(refused) if mode == Mode::Enforce => return ServerFuture::refused(refused),
            Err(_) => {
                limits.switch.count();
                return ServerFuture::of(Work::Bare { handler: self.inner.call(request) });
            }
        };
        if mode == Mode::Shadow {
            return self.shadowed(request, Terms { left, asked, sample });
        }
        let mut context = ServerContext::of(&mut request, clock::now);
        if context.kind.is_none() {
            let kind = MethodKind::of(&request, kinds);
            context = ServerContext::of(&mut request, clock::now);
            context.kind = kind;
        }
        let began = context.began().unwrap_or_else(clock::now);
        let within = |left| Deadline::within(left, began);
        let first = left.and_then(within);
        let whole = (left != asked).then(|| asked.and_then(within));
        // The work of a stream's handler may last as long as the stream.
        let streams = context.kind.is_some_and(MethodKind::streams_responses);
        context.deadline = whole.filter(|_| streams).unwrap_or(first);
        context.previous_attempts = previous_attempts;
        let context = *context;
        let _entered = context.enter();
        let end = first.map(|first| End::at(first.0 - TICK));
        ServerFuture {
            work: Work::Handler { handler: self.inner.call(request) },
            end,
            context,
            sample,
            rare: whole.map(|whole| Rare::boxed(Some(whole), None)),
        }
    }
}

impl<S> ServerDeadline<S> {
    /// The layer is in shadow: the record of the call is not changed.
    #[cold]
    fn shadowed<B>(&mut self, request: http::Request<B>, terms: Terms) -> ServerFuture<S::Future>
    where
        S: Service<http::Request<B>>,
    {
        let Shared { limits, kinds } = &*self.shared;
        let Terms { left, asked, sample } = terms;
        let known = ServerContext::find(&request).copied().unwrap_or_default();
        let began = known.began().unwrap_or_else(clock::now);
        let mut context = ServerContext::new(None, 0);
        context.begins(began);
        context.kind = known.kind.or_else(|| MethodKind::of(&request, kinds));
        let within = |left| Deadline::within(left, began);
        ServerFuture {
            work: Work::Handler { handler: self.inner.call(request) },
            end: left.and_then(within).map(|first| End::at(first.0 - TICK)),
            context,
            sample,
            rare: Some(Rare::boxed(
                (left != asked).then(|| asked.and_then(within)),
                Some(limits.switch.clone()),
            )),
        }
    }
}

impl<S: NamedService> NamedService for ServerDeadline<S> {
    const NAME: &'static str = S::NAME;
}

// === impl ServerFuture ===

impl<F> ServerFuture<F> {
    fn refused(status: Status) -> Self {
        Self::of(Work::Refused { refused: Some(Box::new(status)) })
    }

    /// Without a limit.
    fn of(work: Work<F>) -> Self {
        let context = ServerContext::default();
        Self { work, end: None, context, sample: None, rare: None }
    }
}

impl<F, B, E> Future for ServerFuture<F>
where
    F: Future<Output = Result<http::Response<B>, E>>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Output = Result<http::Response<ResponseBody>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let refused = match this.work.as_mut().project() {
            WorkProj::Bare { handler } => {
                return handler.poll(cx).map_ok(|reply| reply.map(ResponseBody::of));
            }
            WorkProj::Refused { refused } => refused.take(),
            WorkProj::Handler { handler } => {
                let shadow = Rare::shadow(this.rare);
                let polled = match shadow {
                    None => this.context.within(|| handler.poll(cx)),
                    Some(_) => handler.poll(cx),
                };
                if let Poll::Ready(reply) = polled {
                    let (end, context) = (this.end.take(), *this.context);
                    let (sample, rare) = (this.sample.take(), this.rare.take());
                    let bounded = Bounded { end, context, sample, rare };
                    return Poll::Ready(reply.map(|response| bounded.around(response)));
                }
                let Some(end) = this.end else { return Poll::Pending };
                ready!(end.poll(cx));
                if let Some(switch) = shadow {
                    switch.count();
                    *this.end = None;
                    Rare::whole(this.rare);
                    return Poll::Pending;
                }
                // Drops the handler, and its pending calls.
                this.work.set(Work::Refused { refused: None });
                None
            }
        };
        let status = refused.map_or_else(|| Status::deadline_exceeded(EXCEEDED), |status| *status);
        Poll::Ready(Ok(status.into_http::<()>().map(|()| ResponseBody::default())))
    }
}

impl<F> fmt::Debug for ServerFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerFuture").field("context", &self.context).finish_non_exhaustive()
    }
}
