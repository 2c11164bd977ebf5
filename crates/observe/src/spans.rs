//! The spans of calls, attempts and served calls.

use crate::{
    callback,
    ending::Ending,
    place::Place,
    series::Method,
    trace::{Digits, Serving, TraceContext},
};
use cinchona_core::{AttemptKind, Rng};
use cinchona_plumbing::{headers, status};
use http::{Extensions, HeaderMap};
use std::{error::Error, fmt, sync::Arc, time::Duration};
use tonic::{Code, body::Body};
use tracing::{Level, Span, field::Empty};

/// How a layer makes spans.
#[derive(Clone)]
pub(crate) struct Tracer {
    pub(crate) rng: Rng,
    pub(crate) story: Option<Arc<Story>>,
}

/// Explains why a call stopped: from the extensions of its response, or from its error.
pub(crate) type Story =
    dyn Fn(Result<&Extensions, &(dyn Error + 'static)>) -> Option<String> + Send + Sync;

/// The span of a call or an attempt.
#[derive(Debug)]
pub(crate) struct Traced {
    span: Span,
    tracer: Arc<Tracer>,
    /// The trace context for the calls of a handler.
    served: Option<Arc<TraceContext>>,
    has_story: bool,
}

/// While the guard lives, events of this thread belong to a span.
#[derive(Debug)]
pub(crate) struct Entered<'a> {
    _serving: Option<Serving>,
    _span: tracing::span::Entered<'a>,
}

/// The parts of a request that go into a span.
struct Named<'a> {
    service: &'a str,
    method: &'a str,
    id: Option<&'a str>,
    address: Option<&'a str>,
}

/// Whether a subscriber wants spans.
#[inline]
fn is_enabled() -> bool {
    tracing::span_enabled!(target: "cinchona_observe", Level::INFO)
}

/// Logs how a served call of `method` ended: at most once a second for each code that OpenTelemetry
/// counts as a server error, and otherwise at `DEBUG`. Without a span, the line itself `is_to_name`
/// the method, and has the trace.
pub(crate) fn report(
    code: Code,
    took: Duration,
    method: &Method,
    is_to_name: bool,
    trace: Option<&str>,
) {
    let name = method.path().filter(|_| is_to_name);
    let status = cinchona_plumbing::code::name(code);
    let is_failure = matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    );
    macro_rules! line {
        ($level:ident, $message:literal) => {
            tracing::$level!(
                target: "cinchona_observe",
                status,
                ?took,
                rpc.method = name,
                trace_id = trace,
                $message
            )
        };
    }
    match is_failure {
        true if method.has_line(code) => line!(error, "failed"),
        true => line!(debug, "failed"),
        false => line!(debug, "ended"),
    }
}

// === impl Tracer ===

impl Tracer {
    /// The span of a call, and its trace context; `None` without an interested subscriber.
    #[inline]
    pub(crate) fn call(tracer: &Arc<Self>, request: &mut http::Request<Body>) -> Option<Traced> {
        if is_enabled() {
            let (parent, own) = tracer.place(request.headers());
            let span = call(request, &own, parent.as_ref());
            own.stamp(request.headers_mut());
            return Some(Traced::new(tracer, span, None));
        }
        if TraceContext::is_served() {
            pass_on(request.headers_mut());
        }
        None
    }

    /// The span of an attempt, and its number in its call.
    #[inline]
    pub(crate) fn attempt(
        tracer: &Arc<Self>,
        request: &mut http::Request<Body>,
        among: impl FnOnce() -> Option<Place>,
    ) -> Option<Traced> {
        if !is_enabled() {
            return None;
        }
        let (parent, own) = tracer.place(request.headers());
        let span = attempt(request, &own, parent.as_ref(), among());
        own.stamp(request.headers_mut());
        Some(Traced::new(tracer, span, None))
    }

    /// The span of a call that is served; without one, the caller's trace context, if any.
    #[inline]
    pub(crate) fn serve(tracer: &Arc<Self>, request: &mut http::Request<Body>) -> Option<Traced> {
        let parent = TraceContext::of(request.headers());
        let (span, own) = match (parent, is_enabled()) {
            (None, false) => return None,
            (Some(parent), false) => (Span::none(), parent),
            (parent, true) => {
                let own = tracer.within(parent.as_ref());
                (served(request, &own, parent.as_ref()), own)
            }
        };
        request.extensions_mut().insert(own.clone());
        Some(Traced::new(tracer, span, Some(Arc::new(own))))
    }

    /// The trace context of a call with these headers, made by this task, and that of its parent.
    fn place(&self, headers: &HeaderMap) -> (Option<TraceContext>, TraceContext) {
        let parent = TraceContext::of(headers).or_else(TraceContext::current);
        let own = self.within(parent.as_ref());
        (parent, own)
    }

    fn within(&self, parent: Option<&TraceContext>) -> TraceContext {
        match parent {
            Some(parent) => parent.child(&self.rng),
            None => TraceContext::root(&self.rng),
        }
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer").finish_non_exhaustive()
    }
}

/// Without a span, a call still belongs to the trace of the call that is being served.
fn pass_on(headers: &mut HeaderMap) {
    if let Some(served) = TraceContext::current()
        && !headers.contains_key("traceparent")
    {
        served.stamp(headers);
    }
}

fn call(request: &http::Request<Body>, own: &TraceContext, parent: Option<&TraceContext>) -> Span {
    let Named { service, method, id, address } = Named::of(request);
    tracing::info_span!(
        target: "cinchona_observe",
        "call",
        otel.name = %format_args!("Sent.{service}.{method}"),
        otel.kind = "client",
        otel.status_code = Empty,
        rpc.system = "grpc",
        rpc.service = service,
        rpc.method = method,
        rpc.grpc.status_code = Empty,
        server.address = address,
        request_id = id,
        trace_id = own.trace_digits().as_str(),
        span_id = own.span_digits().as_str(),
        parent_id = parent.map(TraceContext::span_digits).as_ref().map(Digits::as_str),
        attempts = Empty,
        verdict = Empty,
        stopped = Empty,
    )
}

fn attempt(
    request: &http::Request<Body>,
    own: &TraceContext,
    parent: Option<&TraceContext>,
    place: Option<Place>,
) -> Span {
    let Named { service, method, id, address } = Named::of(request);
    let previous = status::previous_attempts(request.headers());
    let number = place.map_or(previous + 1, |place| place.number);
    let kind = place.map(|place| place.kind);
    tracing::info_span!(
        target: "cinchona_observe",
        "attempt",
        otel.name = %format_args!("Attempt.{service}.{method}"),
        otel.kind = "client",
        otel.status_code = Empty,
        rpc.system = "grpc",
        rpc.service = service,
        rpc.method = method,
        rpc.grpc.status_code = Empty,
        server.address = address,
        request_id = id,
        trace_id = own.trace_digits().as_str(),
        span_id = own.span_digits().as_str(),
        parent_id = parent.map(TraceContext::span_digits).as_ref().map(Digits::as_str),
        attempt = number,
        kind = kind.map(AttemptKind::name),
        "previous-rpc-attempts" = previous,
        "transparent-retry" = kind == Some(AttemptKind::Transparent),
        wait = place.map(|place| tracing::field::debug(place.waited)),
        endpoint = Empty,
        verdict = Empty,
    )
}

fn served(
    request: &http::Request<Body>,
    own: &TraceContext,
    parent: Option<&TraceContext>,
) -> Span {
    let Named { service, method, id, .. } = Named::of(request);
    let previous = status::previous_attempts(request.headers());
    tracing::info_span!(
        target: "cinchona_observe",
        "serve",
        otel.name = %format_args!("Recv.{service}.{method}"),
        otel.kind = "server",
        otel.status_code = Empty,
        rpc.system = "grpc",
        rpc.service = service,
        rpc.method = method,
        rpc.grpc.status_code = Empty,
        request_id = id,
        trace_id = own.trace_digits().as_str(),
        span_id = own.span_digits().as_str(),
        parent_id = parent.map(TraceContext::span_digits).as_ref().map(Digits::as_str),
        "previous-rpc-attempts" = Some(previous).filter(|previous| *previous > 0),
        verdict = Empty,
    )
}

// === impl Named ===

impl<'a> Named<'a> {
    fn of(request: &'a http::Request<Body>) -> Self {
        let path = request.uri().path();
        let path = path.strip_prefix('/').unwrap_or(path);
        let (service, method) = path.rsplit_once('/').unwrap_or(("", path));
        let id =
            headers::get(request.headers(), &headers::REQUEST_ID).and_then(|id| id.to_str().ok());
        let address = request.uri().authority().map(http::uri::Authority::as_str);
        Self { service, method, id, address }
    }
}

// === impl Traced ===

impl Traced {
    fn new(tracer: &Arc<Tracer>, span: Span, served: Option<Arc<TraceContext>>) -> Self {
        Self { span, tracer: tracer.clone(), served, has_story: false }
    }

    /// While the scope lives, events of this thread belong to the span.
    pub(crate) fn enter(&self) -> Entered<'_> {
        Entered {
            _serving: self.served.as_ref().map(TraceContext::enter),
            _span: self.span.enter(),
        }
    }

    /// The head of the response has arrived.
    pub(crate) fn head(&mut self, extensions: &Extensions) {
        self.tell(Ok(extensions));
    }

    fn tell(&mut self, outcome: Result<&Extensions, &(dyn Error + 'static)>) {
        if let Some(story) = &self.tracer.story
            && !self.span.is_disabled()
            && !self.has_story
            && let Some(reason) = callback::call("a story", || story(outcome)).flatten()
        {
            self.has_story = true;
            self.span.record("stopped", reason);
        }
    }

    /// It has ended with `code`: a call after so many `attempts`. A served one is of `method`.
    pub(crate) fn end(
        mut self,
        code: Code,
        how: &Ending<'_>,
        attempts: Option<u32>,
        took: Duration,
        method: Option<&Method>,
    ) {
        if self.span.is_disabled() {
            if let (Some(trace), Some(method)) = (&self.served, method) {
                report(code, took, method, true, Some(trace.trace_digits().as_str()));
            }
            return;
        }
        if let Ending::Failed(_, error) = how {
            self.tell(Err(*error));
        }
        self.span.record("rpc.grpc.status_code", code as i32);
        if code != Code::Ok {
            self.span.record("otel.status_code", "ERROR");
        }
        match how {
            Ending::Verdict(verdict) | Ending::Failed(verdict, _) => {
                self.span.record("verdict", tracing::field::debug(verdict))
            }
            Ending::Dropped => self.span.record("verdict", "dropped before its end"),
        };
        if let Some(attempts) = attempts {
            self.span.record("attempts", attempts);
        }
        if let (Some(_), Some(method)) = (&self.served, method) {
            self.span.in_scope(|| report(code, took, method, false, None));
        }
    }
}
