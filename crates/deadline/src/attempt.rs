//! The time limit of one attempt.

use crate::{
    asked::{Asked, earlier},
    bound::{End, Says, Terms, What},
    limits::Times,
    readied::{Readied, ResponseFuture},
    timer::Timer,
};
use bytes::Bytes;
use cinchona_core::{BoxError, Call, Deadline, MethodKind, Methods, Mode, PerMethod, Switch};
use cinchona_plumbing::{Paths, ResponseBody, clock::Passing, timeout::encode_timeout};
use http::HeaderValue;
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

/// Applies [`AttemptTimeout`] to a service; the default limit is 2 s.
#[derive(Clone, Debug)]
pub struct AttemptTimeoutLayer {
    shared: Arc<Shared>,
}

/// The settings of an [`AttemptTimeoutLayer`]; the default limit is 2 s.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptTimeoutSettings {
    limits: Times,
    yields: bool,
    silences: Times,
    methods: Option<Methods>,
    switch: Option<Switch>,
}

/// Ends an attempt that has not been answered within a limit with `DEADLINE_EXCEEDED`.
///
/// The part of the attempt that is bounded depends on the [kind of
/// method](crate#what-a-limit-bounds). Never later than the call's own deadline.
#[derive(Clone, Debug)]
pub struct AttemptTimeout<S> {
    inner: Readied<S>,
    shared: Arc<Shared>,
    kinds: Paths<MethodKind>,
}

/// Another limit for the attempts of one call, put into the request's extensions; `None` lifts it.
/// Like every attempt's limit, it ends with the first message of a stream.
///
/// ```
/// let mut request = tonic::Request::new(());
/// request.extensions_mut().insert(cinchona_deadline::AttemptLimit(None));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptLimit(pub Option<Duration>);

#[derive(Debug)]
struct Shared {
    limits: Times,
    /// Whether the limit of all gives way to a later deadline that a call has set itself.
    yields: bool,
    /// The usual limit, encoded for `grpc-timeout`.
    encoded: HeaderValue,
    silences: Times,
    methods: Option<Methods>,
    switch: Switch,
}

// === impl AttemptTimeoutSettings ===

impl AttemptTimeoutSettings {
    /// Bounds each attempt by `limit`. Any duration is valid; zero ends all attempts, ten years or
    /// more are unlimited.
    pub fn new(limit: Duration) -> Self {
        Self {
            limits: Times { all: Some(limit), ..Times::default() },
            yields: false,
            silences: Times::default(),
            methods: None,
            switch: None,
        }
    }

    /// Lets a call that has set itself a later deadline (`Request::set_timeout`) have all of it in
    /// each attempt: for a limit that is a default, and was chosen without knowing the method.
    #[must_use]
    pub fn yielding(self) -> Self {
        Self { yields: true, ..self }
    }

    /// Bounds the attempts of the methods of one kind by `limit`, or not at all.
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

    /// Sets the switch that decides whether attempts are ended, only counted, or not observed. In
    /// shadow and off, the call's own deadline is left to the layers above.
    #[must_use]
    pub fn with_switch(self, switch: Switch) -> Self {
        Self { switch: Some(switch), ..self }
    }

    /// A layer with these settings.
    #[must_use]
    pub fn layer(&self) -> AttemptTimeoutLayer {
        let shared = Shared {
            limits: self.limits.clone(),
            yields: self.yields,
            encoded: encode_timeout(self.limits.all.unwrap_or(Duration::MAX)),
            silences: self.silences.clone(),
            methods: self.methods.clone(),
            switch: self.switch.clone().unwrap_or_default(),
        };
        AttemptTimeoutLayer { shared: Arc::new(shared) }
    }
}

impl Default for AttemptTimeoutSettings {
    fn default() -> Self {
        Self::new(Duration::from_secs(2))
    }
}

// === impl AttemptTimeoutLayer ===

impl AttemptTimeoutLayer {
    /// The layer of [`AttemptTimeoutSettings::new`].
    pub fn new(limit: Duration) -> Self {
        AttemptTimeoutSettings::new(limit).layer()
    }
}

impl Default for AttemptTimeoutLayer {
    fn default() -> Self {
        Self::new(Duration::from_secs(2))
    }
}

impl<S> Layer<S> for AttemptTimeoutLayer {
    type Service = AttemptTimeout<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let kinds = Methods::all_kinds(self.shared.methods.as_ref());
        AttemptTimeout { inner: Readied::new(inner), shared: self.shared.clone(), kinds }
    }
}

// === impl AttemptTimeout ===

impl<S, B, ResBody> Service<http::Request<B>> for AttemptTimeout<S>
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
        let terms = self.shared.terms(&request, kind, asked, now);
        let timer = (!terms.is_empty()).then(|| {
            let mut timer = Timer::new(terms, &mut request, now);
            let bound = timer.as_mut().bound_mut();
            if mode == Mode::Shadow {
                bound.counting(&self.shared.switch);
            } else {
                bound.keeping(Call::find(&request));
            }
            timer
        });
        self.inner.call(request, timer)
    }
}

// === impl Shared ===

impl Shared {
    /// How long an attempt of this request may take, if nothing else is said in it.
    fn limit<B>(
        &self,
        request: &http::Request<B>,
        kind: Option<MethodKind>,
        asked: Asked,
        now: Instant,
    ) -> Option<Duration> {
        let path = request.uri().path();
        let limit = self.limits.of(path, kind);
        if !self.yields || self.limits.methods.get(path).is_some() {
            return limit;
        }
        let wanted = match asked.first {
            Some(_) => Call::find(request).and_then(Call::wanted),
            None => asked.whole,
        };
        let wants_more = wanted.is_some_and(|wanted| Some(wanted.remaining(now)) > limit);
        limit.filter(|_| !wants_more)
    }

    fn terms<B>(
        &self,
        request: &http::Request<B>,
        kind: Option<MethodKind>,
        asked: Asked,
        now: Instant,
    ) -> Terms {
        let path = request.uri().path();
        let own = request.extensions().get().map(|limit: &AttemptLimit| limit.0);
        let limit = own.unwrap_or_else(|| self.limit(request, kind, asked, now));
        let own = limit.and_then(|limit| Deadline::within(limit, now));
        let silence = self.silences.of(path, kind);
        // A deadline in `grpc-timeout` ends the whole call at the server, also if it is a stream.
        let ends_all = kind == Some(MethodKind::Unary);
        let announced = if ends_all { earlier(own, asked.min()) } else { asked.whole };
        // If requests are streamed too, the limit is not an instant: see `Upload`.
        let left = asked.first.filter(|_| !kind.is_some_and(MethodKind::streams_requests));
        let first = match (own, left) {
            (Some(own), Some(left)) if own < left => Some(End::new(own, What::Attempt)),
            (own, None) => own.map(|own| End::new(own, What::Attempt)),
            (_, left) => left.map(|left| End::new(left, What::Left)),
        };
        let whole = asked.whole.map(|whole| End::new(whole, What::Left));
        let is_usual = announced.is_some() && announced == own && limit == self.limits.all;
        let says = if is_usual { Says::So(self.encoded.clone()) } else { Says::Anything };
        Terms { kind, first, whole, silence, announced, says }
    }
}
