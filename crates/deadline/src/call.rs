//! The deadline of the whole call.

use crate::{
    asked::{Asked, earlier},
    bound::{End, Says, Terms, What},
    limits::Times,
    readied::{Readied, ResponseFuture},
    timer::Timer,
};
use bytes::Bytes;
use cinchona_core::{
    BoxError, Call, Deadline, MethodKind, Methods, Mode, PerMethod, ServerContext, Switch,
};
use cinchona_plumbing::{Misplaced, Paths, Reloadable, ResponseBody, clock::Passing};
use http_body::Body;
use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::Instant;
use tonic::Status;
use tower_layer::Layer;
use tower_service::Service;

/// Applies [`CallDeadline`] to a service.
///
/// Its clones, and the services it was applied to, share the timeouts by method.
#[derive(Clone, Debug)]
pub struct CallDeadlineLayer {
    shared: Arc<Shared>,
}

/// The settings of a [`CallDeadlineLayer`]. By default it enforces the `grpc-timeout` of the calls
/// that have one.
#[derive(Clone, Debug, PartialEq)]
pub struct CallDeadlineSettings {
    limits: Times,
    yields: bool,
    silences: Times,
    methods: Option<Methods>,
    switch: Option<Switch>,
}

/// Ends a call at its deadline with `DEADLINE_EXCEEDED`, in any stage.
///
/// The deadline is the earliest of the request's `grpc-timeout`, the method's timeout
/// ([`set_timeouts`](CallDeadlineLayer::set_timeouts)) and, if a handler makes the call, the
/// deadline of the call that it serves; counted from the moment of the call. The configured limit
/// ends it too, for a stream [until its first message](crate#what-a-limit-bounds). The deadline is
/// passed on in the record of the call ([`Call::deadline`]). Always ready: waiting for the service
/// below is part of the call. A malformed `grpc-timeout` is answered with `INVALID_ARGUMENT`, a
/// zero one with `DEADLINE_EXCEEDED`, and neither is sent.
#[derive(Clone, Debug)]
pub struct CallDeadline<S> {
    inner: Readied<S>,
    shared: Arc<Shared>,
    kinds: Paths<MethodKind>,
}

#[derive(Debug)]
struct Shared {
    limits: Times,
    /// Whether the limit of all gives way to a deadline that a call has set itself.
    yields: bool,
    silences: Times,
    timeouts: Reloadable<PerMethod<Option<Duration>>>,
    methods: Option<Methods>,
    switch: Switch,
    misplaced: Misplaced,
}

const WITHIN_ATTEMPTS: &str = "the call deadline stands within the retries, so that each attempt \
    has all of the call's time: put `CallDeadlineLayer` around `RetryLayer`";

// === impl CallDeadlineSettings ===

impl CallDeadlineSettings {
    /// Enforces the `grpc-timeout` of the calls that have one.
    pub fn new() -> Self {
        Self {
            limits: Times::default(),
            yields: false,
            silences: Times::default(),
            methods: None,
            switch: None,
        }
    }

    /// Ends every call that has not been answered after `limit`. Any duration is valid; zero ends
    /// all calls, ten years or more are unlimited.
    #[must_use]
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.limits.all = Some(limit);
        self
    }

    /// Lets a call that has set itself a deadline (`Request::set_timeout`) have that alone: for a
    /// limit that is a default, and was chosen without knowing the method.
    #[must_use]
    pub fn yielding(self) -> Self {
        Self { yields: true, ..self }
    }

    /// Another limit, or none, for the methods of one kind.
    #[must_use]
    pub fn with_kind_limit(mut self, kind: MethodKind, limit: Option<Duration>) -> Self {
        self.limits.set_kind(kind, limit);
        self
    }

    /// Sets the limits of these methods, whatever their kind; `None` lifts it.
    #[must_use]
    pub fn with_limits(mut self, limits: PerMethod<Option<Duration>>) -> Self {
        self.limits.methods = limits;
        self
    }

    /// Ends a response that has begun after `silence` without a frame while the caller waits. Off
    /// by default.
    #[must_use]
    pub fn with_silence(mut self, silence: Duration) -> Self {
        self.silences.all = Some(silence);
        self
    }

    /// As [`with_silence`](Self::with_silence), for the methods of one kind.
    #[must_use]
    pub fn with_kind_silence(mut self, kind: MethodKind, silence: Option<Duration>) -> Self {
        self.silences.set_kind(kind, silence);
        self
    }

    /// As [`with_silence`](Self::with_silence), for the methods that have a silence here.
    #[must_use]
    pub fn with_silences(mut self, silences: PerMethod<Option<Duration>>) -> Self {
        self.silences.methods = silences;
        self
    }

    /// Reads from `methods` what each method streams. Default: all descriptor sets that this
    /// process has read before the layer is applied ([`Methods::known_kinds`]).
    #[must_use]
    pub fn with_methods(self, methods: Methods) -> Self {
        Self { methods: Some(methods), ..self }
    }

    /// Sets the switch that decides whether calls are ended, only counted, or not observed.
    #[must_use]
    pub fn with_switch(self, switch: Switch) -> Self {
        Self { switch: Some(switch), ..self }
    }

    /// A layer with these settings, and its own timeouts by method.
    #[must_use]
    pub fn layer(&self) -> CallDeadlineLayer {
        let shared = Shared {
            limits: self.limits.clone(),
            yields: self.yields,
            silences: self.silences.clone(),
            timeouts: Reloadable::new(PerMethod::new()),
            methods: self.methods.clone(),
            switch: self.switch.clone().unwrap_or_default(),
            misplaced: Misplaced::default(),
        };
        CallDeadlineLayer { shared: Arc::new(shared) }
    }
}

impl Default for CallDeadlineSettings {
    fn default() -> Self {
        Self::new()
    }
}

// === impl CallDeadlineLayer ===

impl CallDeadlineLayer {
    /// The layer of [`CallDeadlineSettings::new`].
    pub fn new() -> Self {
        CallDeadlineSettings::new().layer()
    }

    /// Sets the time limits of the calls of each method, streams included, while calls run: like
    /// the `timeout` of gRPC's service config, these are deadlines like a caller's own.
    pub fn set_timeouts(&self, timeouts: PerMethod<Option<Duration>>) {
        self.shared.timeouts.set(timeouts);
    }
}

impl Default for CallDeadlineLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for CallDeadlineLayer {
    type Service = CallDeadline<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let kinds = Methods::all_kinds(self.shared.methods.as_ref());
        CallDeadline { inner: Readied::new(inner), shared: self.shared.clone(), kinds }
    }
}

// === impl CallDeadline ===

impl<S, B, ResBody> Service<http::Request<B>> for CallDeadline<S>
where
    S: Service<http::Request<B>, Response = http::Response<ResBody>> + Clone,
    S::Error: Into<BoxError>,
    B: 'static,
    ResBody: Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    type Response = http::Response<ResponseBody>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.shared.switch.mode() == Mode::Off {
            return self.inner.poll_bare(cx);
        }
        self.inner.poll(cx);
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let mode = self.shared.switch.mode();
        if mode == Mode::Off {
            return self.inner.call(request, None);
        }
        let passing = Passing::begin();
        let now = passing.now();
        if Call::find(&request).is_some_and(Call::is_of_attempt) {
            self.shared.misplaced.warn(request.uri().path(), WITHIN_ATTEMPTS);
        }
        let kind = MethodKind::of(&request, &self.kinds);
        let asked = match Asked::of(&request, kind, now) {
            Ok(asked) => asked,
            Err(_) if mode == Mode::Shadow => {
                self.shared.switch.count();
                return self.inner.call(request, None);
            }
            Err(invalid) => {
                return ResponseFuture::failed(Status::invalid_argument(invalid.to_string()));
            }
        };
        if mode == Mode::Enforce {
            asked.drop_unlimited(&mut request);
        }
        let limits = Limits::of(&self.shared, request.uri().path(), kind, asked, now);
        let silence = self.shared.silences.of(request.uri().path(), kind);
        let mut terms = limits.terms(kind, silence);
        if terms.is_empty() {
            return self.inner.call(request, None);
        }
        if mode == Mode::Shadow {
            let mut timer = Timer::new(terms, &mut request, now);
            timer.as_mut().bound_mut().counting(&self.shared.switch);
            return self.inner.call(request, Some(timer));
        }
        if terms.announced == asked.whole && asked.first.is_none() {
            terms.says = Says::Already;
        }
        let call = Call::of(&mut request, || now);
        limits.hand_on(kind, call);
        if asked.first.is_none() {
            call.set_wanted(asked.whole);
        }
        let call = call.clone();
        let mut timer = Timer::new(terms, &mut request, now);
        timer.as_mut().bound_mut().of_call(call);
        self.inner.call(request, Some(timer))
    }
}

/// Which limit ends a call.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// The configured limit, or that of a layer above.
    first: Option<Deadline>,
    /// The deadline.
    whole: Option<Deadline>,
}

// === impl Limits ===

impl Limits {
    fn of(
        shared: &Shared,
        path: &str,
        kind: Option<MethodKind>,
        asked: Asked,
        now: Instant,
    ) -> Self {
        let within = |limit| Deadline::within(limit, now);
        let of_method = shared.timeouts.get().get(path).copied().flatten().and_then(within);
        let inherited = ServerContext::current().and_then(|inbound| inbound.deadline);
        let whole = earlier(earlier(of_method, asked.whole), inherited);
        let gives_way = shared.yields
            && asked.first.is_none()
            && asked.whole.is_some()
            && shared.limits.methods.get(path).is_none();
        let limit = shared.limits.of(path, kind).filter(|_| !gives_way).and_then(within);
        // If requests are streamed too, the limit is not an instant: see `Upload`.
        let above = asked.first.filter(|_| !kind.is_some_and(MethodKind::streams_requests));
        Self { first: earlier(limit, above), whole }
    }

    fn terms(self, kind: Option<MethodKind>, silence: Option<Duration>) -> Terms {
        let end = |deadline| End::new(deadline, What::Call);
        Terms {
            kind,
            first: self.first.map(end),
            whole: self.whole.map(end),
            silence,
            says: Says::Anything,
            announced: match kind {
                Some(MethodKind::Unary) => earlier(self.first, self.whole),
                _ => self.whole,
            },
        }
    }

    /// Passed to the layers below, which need not wait longer before there is an answer.
    fn hand_on(self, kind: Option<MethodKind>, call: &mut Call) {
        let streams = kind.filter(|kind| *kind != MethodKind::Unary);
        let first = match streams {
            Some(kind) if kind.streams_requests() => self.whole,
            _ => earlier(self.first, self.whole),
        };
        call.set_kind(kind);
        if kind != Some(MethodKind::Unary) {
            call.set_whole(self.whole);
        }
        if first.is_some() {
            call.set_deadline(first);
        }
    }
}
