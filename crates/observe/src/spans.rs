//! What the tracing layers note of one call.

use crate::{
    tally::{Book, Kind, Tally},
    trace::TraceContext,
};
use cinchona_core::{Rng, Verdict, status};
use http::{Extensions, HeaderMap, HeaderName};
use std::{error::Error, fmt, sync::Arc};
use tonic::{Code, body::Body};
use tracing::{Level, Span, field::Empty};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How a layer makes spans; shared by all that it was applied to.
#[derive(Clone)]
pub(crate) struct Tracer {
    pub(crate) role: Role,
    pub(crate) rng: Rng,
    pub(crate) story: Option<Arc<Story>>,
}

/// Tells why a call stopped: from the extensions of its response, or from its error.
pub(crate) type Story =
    dyn Fn(Result<&Extensions, &(dyn Error + 'static)>) -> Option<String> + Send + Sync;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Call,
    Attempt,
    Server,
}

/// The span of a call or an attempt.
#[derive(Debug)]
pub(crate) struct Traced {
    span: Span,
    tracer: Arc<Tracer>,
    tally: Tally,
    /// What calls of a handler continue.
    served: Option<Arc<TraceContext>>,
    has_story: bool,
}

/// How a call or an attempt has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending<'a> {
    /// By what its response says.
    Verdict(Verdict),
    Failed(Verdict, &'a (dyn Error + 'static)),
    Dropped,
}

/// What of a request goes into a span.
struct Named<'a> {
    service: &'a str,
    method: &'a str,
    id: Option<&'a str>,
    address: Option<&'a str>,
}

// === impl Tracer ===

impl Tracer {
    pub(crate) fn new(role: Role) -> Self {
        Self { role, rng: Rng::from_os(), story: None }
    }

    /// Whether there may be a span, or a trace to be passed on.
    pub(crate) fn is_interested(&self) -> bool {
        let is_enabled = tracing::span_enabled!(target: "cinchona_observe", Level::INFO);
        is_enabled
            || match self.role {
                Role::Call => TraceContext::is_served(),
                Role::Attempt => false,
                Role::Server => true,
            }
    }

    /// The span of a call that is about to be made, and its place in a trace; nothing where nobody
    /// is interested.
    pub(crate) fn begin(self: &Arc<Self>, request: &mut http::Request<Body>) -> Option<Traced> {
        let is_enabled = tracing::span_enabled!(target: "cinchona_observe", Level::INFO);
        match self.role {
            Role::Server => self.serve(request, is_enabled),
            Role::Call | Role::Attempt if is_enabled => Some(self.send(request)),
            Role::Call => {
                pass_on(request.headers_mut());
                None
            }
            Role::Attempt => None,
        }
    }

    fn send(self: &Arc<Self>, request: &mut http::Request<Body>) -> Traced {
        let parent = TraceContext::of(request.headers());
        let parent = parent.or_else(TraceContext::current);
        let own = match &parent {
            Some(parent) => parent.child(&self.rng),
            None => TraceContext::root(&self.rng),
        };
        let span = match self.role {
            Role::Attempt => attempt(request, &own),
            _ => call(request, &own),
        };
        own.stamp(request.headers_mut());
        self.traced(span, None)
    }

    fn serve(
        self: &Arc<Self>,
        request: &mut http::Request<Body>,
        is_enabled: bool,
    ) -> Option<Traced> {
        let parent = TraceContext::of(request.headers());
        let (span, own) = match (parent, is_enabled) {
            (None, false) => return None,
            (Some(parent), false) => (Span::none(), parent),
            (parent, true) => {
                let own = match &parent {
                    Some(parent) => parent.child(&self.rng),
                    None => TraceContext::root(&self.rng),
                };
                (served(request, &own, parent.as_ref()), own)
            }
        };
        request.extensions_mut().insert(own.clone());
        Some(self.traced(span, Some(Arc::new(own))))
    }

    fn traced(self: &Arc<Self>, span: Span, served: Option<Arc<TraceContext>>) -> Traced {
        let (tracer, tally) = (self.clone(), Tally::default());
        Traced { span, tracer, tally, served, has_story: false }
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer").field("role", &self.role).finish_non_exhaustive()
    }
}

/// Where nobody looks, a call still belongs to the trace of the one that is being served.
fn pass_on(headers: &mut HeaderMap) {
    if let Some(served) = TraceContext::current()
        && !headers.contains_key("traceparent")
    {
        served.stamp(headers);
    }
}

fn call(request: &http::Request<Body>, own: &TraceContext) -> Span {
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
        trace_id = own.trace_id(),
        span_id = own.span_id(),
        attempts = Empty,
        verdict = Empty,
        stopped = Empty,
    )
}

fn attempt(request: &http::Request<Body>, own: &TraceContext) -> Span {
    let Named { service, method, id, address } = Named::of(request);
    let previous = status::previous_attempts(request.headers());
    let (_, place) = Book::Spans.begins(previous);
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
        trace_id = own.trace_id(),
        span_id = own.span_id(),
        attempt = number,
        kind = kind.map(Kind::name),
        "previous-rpc-attempts" = previous,
        "transparent-retry" = kind == Some(Kind::Transparent),
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
        trace_id = own.trace_id(),
        span_id = own.span_id(),
        parent_id = parent.map(TraceContext::span_id),
        "previous-rpc-attempts" = status::previous_attempts(request.headers()),
        verdict = Empty,
    )
}

// === impl Ending ===

impl Ending<'_> {
    /// Whether the request may have left this client.
    pub(crate) const fn has_left(&self) -> bool {
        use cinchona_core::Stage::{Unconnected, Unsent};
        let verdict = match self {
            Self::Verdict(verdict) | Self::Failed(verdict, _) => verdict,
            Self::Dropped => return true,
        };
        !matches!(verdict, Verdict::NotProcessed(Unconnected | Unsent))
    }
}

// === impl Named ===

impl<'a> Named<'a> {
    fn of(request: &'a http::Request<Body>) -> Self {
        let path = request.uri().path();
        let path = path.strip_prefix('/').unwrap_or(path);
        let (service, method) = path.rsplit_once('/').unwrap_or(("", path));
        let id = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
        let address = request.uri().authority().map(http::uri::Authority::as_str);
        Self { service, method, id, address }
    }
}

// === impl Traced ===

impl Traced {
    /// Time has gone by since the last poll.
    pub(crate) const fn wake(&mut self) {
        self.tally.wake();
    }

    pub(crate) fn within<T>(&mut self, poll: impl FnOnce() -> T) -> T {
        let Self { span, tracer, tally, served, .. } = self;
        match (tracer.role, served) {
            (Role::Call, _) => tally.within(Book::Spans, || span.in_scope(poll)),
            (_, Some(served)) => served.within(|| span.in_scope(poll)),
            _ => span.in_scope(poll),
        }
    }

    /// The head of the response is there.
    pub(crate) fn head(&mut self, extensions: &Extensions) {
        self.tell(Ok(extensions));
    }

    fn tell(&mut self, outcome: Result<&Extensions, &(dyn Error + 'static)>) {
        if let Some(story) = &self.tracer.story
            && !self.span.is_disabled()
            && !self.has_story
            && let Some(told) = story(outcome)
        {
            self.has_story = true;
            self.span.record("stopped", told);
        }
    }

    pub(crate) fn end(mut self, code: Code, how: &Ending<'_>) {
        if self.tracer.role == Role::Attempt {
            Book::Spans.ends();
        }
        if self.span.is_disabled() {
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
        if self.tracer.role == Role::Call {
            self.span.record("attempts", self.tally.attempts());
        }
    }
}
