//! A limit on a client's calls in flight.

use crate::{
    Criticality, Limit, Queue,
    entry::{Entered, Entering},
    places::{Limits, Place, Places, Until},
};
use bytes::Bytes;
use cinchona_core::{BoxError, Deadline, Invalid, MethodKind, Methods, Mode, Rejected, Switch};
use cinchona_plumbing::{Paths, ResponseBody};
use cinchona_policy::concurrency::Limiter;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tower_layer::Layer;
use tower_service::Service;

/// Applies [`Bulkhead`] to a client.
///
/// # Why
///
/// A service that hangs must not take all of its caller's resources: a bulkhead around its client
/// limits the calls that it holds, and the rest of the caller goes on.
///
/// # Rule
///
/// * A unary call is in flight until its response has ended.
/// * A stream is admitted like any call, and gives its place back immediately: it counts in a
///   separate limit ([`with_streams`]) until its response has ended. Otherwise
///   a few long streams would leave no place for short calls.
/// * A call of an unknown method (no descriptor set was read, see [`Methods::known_kinds`]) gives
///   its place back when its response begins, as it may be a stream.
/// * A method can have its own limit by name, or none.
///
/// [`with_streams`]: BulkheadSettings::with_streams
#[derive(Clone, Debug)]
pub struct BulkheadLayer {
    shared: Arc<Shared>,
}

/// The settings of a [`BulkheadLayer`]. By default 1,000 calls, without waiting.
#[derive(Clone, Debug, PartialEq)]
pub struct BulkheadSettings {
    limits: Limits,
    patience: Duration,
    methods: Option<Methods>,
    switch: Option<Switch>,
}

/// What a [`BulkheadLayer`] has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BulkheadCounters {
    /// Calls that were refused.
    pub shed: u64,
    /// Calls in flight, without streams; in shadow, without those beyond the limit.
    pub in_progress: u32,
    /// Calls that wait for a place.
    pub waiting: u32,
    /// Streams in flight.
    pub streams: u32,
}

/// Fails calls beyond a limit with `UNAVAILABLE`; placed around retries, it counts them and their
/// waits as one call.
#[derive(Clone, Debug)]
pub struct Bulkhead<S> {
    inner: S,
    shared: Arc<Shared>,
    kinds: Paths<MethodKind>,
}

#[derive(Debug)]
struct Shared {
    places: Places,
    methods: Option<Methods>,
    switch: Switch,
}

pin_project! {
    /// The future of a [`Bulkhead`] call.
    pub struct BulkheadFuture<S, B, F> {
        #[pin]
        entering: Entering<S, B, F>,
        // The counter of its refusal; `None` for a method without a limit.
        refusing: Option<Box<(Arc<Shared>, Arc<Limiter>)>>,
    }
}

// === impl BulkheadSettings ===

impl BulkheadSettings {
    /// Limits the calls in flight to `limit`. Calls beyond it wait for up to `patience`, at most
    /// `limit` of them; zero for no wait, and `Duration::MAX` for as long as their callers do.
    ///
    /// # Errors
    /// When `limit` is 0.
    pub fn new(limit: u32, patience: Duration) -> Result<Self, Invalid> {
        let limits = Limits::new(Limit::Fixed(limit).checked()?);
        Ok(Self { limits, patience, ..Self::default() })
    }

    /// Limits the streams in flight: calls of methods that are known to stream either way. Default
    /// 10,000; at least 1.
    ///
    /// # Errors
    /// When `limit` is 0.
    pub fn with_streams(mut self, limit: u32) -> Result<Self, Invalid> {
        self.limits.set_streams(limit)?;
        Ok(self)
    }

    /// Gives `method` of `service`, or all its methods if `method` is empty, its own limit, with
    /// the same patience. Its calls hold it until their responses have ended.
    ///
    /// # Errors
    /// When the name was given before, `service` is empty, or `limit` is 0.
    pub fn with_limit_of(
        mut self,
        service: &str,
        method: &str,
        limit: u32,
    ) -> Result<Self, Invalid> {
        self.limits.name(service, method, Some(Limit::Fixed(limit).checked()?))?;
        Ok(self)
    }

    /// Exempts the calls of `method` of `service`, or of all its methods, from limits and counts.
    ///
    /// # Errors
    /// When the name was given before, or `service` is empty.
    pub fn with_exempt(mut self, service: &str, method: &str) -> Result<Self, Invalid> {
        self.limits.name(service, method, None)?;
        Ok(self)
    }

    /// Reads from `methods` what each method streams. Default: all descriptor sets that this
    /// process has read before the layer is applied ([`Methods::known_kinds`]).
    #[must_use]
    pub fn with_methods(self, methods: Methods) -> Self {
        Self { methods: Some(methods), ..self }
    }

    /// Sets the switch that decides whether calls are refused, only counted, or passed through.
    #[must_use]
    pub fn with_switch(self, switch: Switch) -> Self {
        Self { switch: Some(switch), ..self }
    }

    /// Checks the names against the methods that were read from descriptor sets, if any.
    ///
    /// # Errors
    /// With the first name that is in none of them; the field is `bulkhead`.
    pub fn check(&self, methods: &Methods) -> Result<(), Invalid> {
        self.limits.check("bulkhead", methods)
    }

    /// A layer with these settings, and its own places and counters.
    #[must_use]
    pub fn layer(&self) -> BulkheadLayer {
        let shared = Shared {
            places: Places::new(&self.limits, |limit| queue(limit, self.patience)),
            methods: self.methods.clone(),
            switch: self.switch.clone().unwrap_or_default(),
        };
        BulkheadLayer { shared: Arc::new(shared) }
    }
}

impl Default for BulkheadSettings {
    fn default() -> Self {
        let limits = Limits::new(Limit::Fixed(1000));
        Self { limits, patience: Duration::ZERO, methods: None, switch: None }
    }
}

// === impl BulkheadLayer ===

impl BulkheadLayer {
    #[cfg(test)]
    pub(crate) fn references(&self) -> usize {
        Arc::strong_count(&self.shared)
    }

    /// The layer of [`BulkheadSettings::new`].
    ///
    /// # Errors
    /// As there.
    pub fn new(limit: u32, patience: Duration) -> Result<Self, Invalid> {
        Ok(BulkheadSettings::new(limit, patience)?.layer())
    }

    /// What it has counted.
    pub fn counters(&self) -> BulkheadCounters {
        let places = &self.shared.places;
        let shed = |class| places.common.shed(class);
        BulkheadCounters {
            shed: Criticality::ALL.into_iter().map(shed).sum(),
            in_progress: places.in_progress(),
            waiting: places.waiting(),
            streams: places.streams.in_progress(),
        }
    }
}

/// A client's patience is fixed, whether or not the queue is ever empty.
fn queue(limit: Limit, patience: Duration) -> Queue {
    let capacity = if patience.is_zero() { 0 } else { limit.initial() };
    Queue { capacity, longest: patience, target: patience, interval: patience }
}

impl Default for BulkheadLayer {
    /// 1,000 calls, without waiting.
    fn default() -> Self {
        BulkheadSettings::default().layer()
    }
}

impl<S> Layer<S> for BulkheadLayer {
    type Service = Bulkhead<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let kinds = Methods::all_kinds(self.shared.methods.as_ref());
        Bulkhead { inner, shared: self.shared.clone(), kinds }
    }
}

// === impl Bulkhead ===

impl<S, B, ResBody> Service<Request<B>> for Bulkhead<S>
where
    S: Service<Request<B>, Response = Response<ResBody>> + Clone,
    S::Error: Into<BoxError>,
    ResBody: Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = BoxError;
    type Future = BulkheadFuture<S, B, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Self { inner, shared, kinds } = self;
        let mode = shared.switch.mode();
        let place = (mode != Mode::Off).then(|| shared.place(&request, kinds)).flatten();
        let Some(Place { limiter, until }) = place else {
            let entering = Entering::unlimited(inner, request);
            return BulkheadFuture { entering, refusing: None };
        };
        let entry = limiter.enter(|| Criticality::of(request.headers()));
        if entry.is_admitted() && until.is_sure() {
            let entering = Entering::new(entry, until, inner, request, None);
            return BulkheadFuture { entering, refusing: None };
        }
        if mode == Mode::Shadow {
            let entering = Entering::shadow(entry, until, inner, request, &shared.switch);
            return BulkheadFuture { entering, refusing: None };
        }
        let deadline = Deadline::handed_on(&request).map(|deadline| deadline.0);
        let refusing = Some(Box::new((shared.clone(), limiter.clone())));
        BulkheadFuture { entering: Entering::new(entry, until, inner, request, deadline), refusing }
    }
}

// === impl Shared ===

impl Shared {
    /// Where a call counts; `None` for an exempt one.
    fn place<B>(&self, request: &Request<B>, kinds: &Paths<MethodKind>) -> Option<Place<'_>> {
        let kind = MethodKind::of(request, kinds);
        // An unknown method may be a stream.
        let short = if kind.is_some() { Until::End } else { Until::Head };
        self.places.of(request.uri().path(), kind, short)
    }
}

// === impl BulkheadFuture ===

impl<S, B, ResBody> Future for BulkheadFuture<S, B, S::Future>
where
    S: Service<Request<B>, Response = Response<ResBody>>,
    S::Error: Into<BoxError>,
    ResBody: Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    type Output = Result<Response<ResponseBody>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        Poll::Ready(match (ready!(this.entering.poll(cx)), this.refusing) {
            (Entered::Answered(outcome), _) => outcome.map_err(Into::into),
            (Entered::TurnedAway(criticality), Some(refusing)) => {
                let (shared, limiter) = &**refusing;
                shared.places.common.count_shed(criticality);
                let limit = limiter.limit();
                let message = format!("bulkhead: {limit} calls are under way already");
                Err(Rejected::new(message, None).into())
            }
            // An admitted call is not refused, and no request of a client is awaited.
            (Entered::TurnedAway(_), None) | (Entered::Late, _) => return Poll::Pending,
        })
    }
}

impl<S, B, F> fmt::Debug for BulkheadFuture<S, B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BulkheadFuture").finish_non_exhaustive()
    }
}
