//! A quota for each caller.

mod settings;

pub use settings::RateLimitSettings;

use bytes::Bytes;
use cinchona_core::{BoxError, Invalid, Mode, Switch};
use cinchona_plumbing::{
    Count, ResponseBody, clock, is_of_the_server, polled_again,
    status::{Pushback, push_back},
};
use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{
        StateStore,
        keyed::{DashMapStateStore, ShrinkableKeyedStateStore},
    },
};
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use settings::{Caller, Callers, peer};
use std::{
    any::Any,
    fmt,
    future::Future,
    num::NonZeroU32,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::Instant;
use tonic::{Status, server::NamedService};
use tower_layer::Layer;
use tower_service::Service;

/// Applies [`RateLimit`] to a server.
#[derive(Clone)]
pub struct RateLimitLayer {
    shared: Arc<Shared>,
}

/// What a [`RateLimitLayer`] has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimitCounters {
    /// Calls that were refused.
    pub limited: u64,
}

/// Answers `RESOURCE_EXHAUSTED` to callers beyond their quota, with a pushback that forbids
/// retries.
#[derive(Clone, Debug)]
pub struct RateLimit<S> {
    inner: S,
    shared: Arc<Shared>,
}

type Limiters =
    RateLimiter<String, Known, TokioClock, NoOpMiddleware<<TokioClock as Clock>::Instant>>;

/// The state of each caller, by its key.
#[derive(Clone, Default)]
struct Known(Arc<DashMapStateStore<String>>);

struct Shared {
    limiters: Limiters,
    known: Known,
    /// By address, for callers with a name that is not known yet.
    unknown: Option<Limiters>,
    quota: (NonZeroU32, NonZeroU32),
    caller: Arc<Caller>,
    switch: Switch,
    checks: Count,
    limited: Count,
}

/// Why a call is refused.
enum Over {
    /// The quota of its caller is used up until this much time has passed.
    Quota(Duration),
    /// The caller is unknown: the user's function has panicked.
    Unnamed,
}

/// tokio's clock, which tests can pause.
#[derive(Clone, Debug)]
struct TokioClock(Instant);

pin_project! {
    /// The future of a [`RateLimit`] call.
    pub struct RateLimitFuture<F> {
        #[pin]
        state: Limited<F>,
    }
}

pin_project! {
    #[project = LimitedProj]
    enum Limited<F> {
        Called { #[pin] future: F },
        Over { status: Option<Status> },
    }
}

/// With more callers than this, those with a full quota are removed.
const MOST_CALLERS: usize = 100_000;
/// How often that is checked, in calls.
const SWEEP: u64 = 1024;

// === impl RateLimitSettings ===

impl RateLimitSettings {
    /// A layer with these settings, and its own quotas and counters.
    #[must_use]
    pub fn layer(&self) -> RateLimitLayer {
        let (quota, known) = (self.quota, Known::default());
        let by_header = matches!(self.callers, Callers::ByHeader(_));
        let shared = Shared {
            limiters: limiters(quota, known.clone()),
            known,
            unknown: by_header.then(|| limiters(quota, Known::default())),
            quota,
            caller: self.callers.caller(),
            switch: self.switch.clone().unwrap_or_default(),
            checks: Count::default(),
            limited: Count::default(),
        };
        RateLimitLayer { shared: Arc::new(shared) }
    }
}

fn limiters(quota: (NonZeroU32, NonZeroU32), known: Known) -> Limiters {
    let rate = Quota::per_second(quota.0).allow_burst(quota.1);
    RateLimiter::new(rate, known, TokioClock(Instant::now()))
}

// === impl RateLimitLayer ===

impl RateLimitLayer {
    #[cfg(test)]
    pub(crate) fn references(&self) -> usize {
        Arc::strong_count(&self.shared)
    }

    /// The layer of [`RateLimitSettings::new`].
    ///
    /// # Errors
    /// As there.
    pub fn new(per_second: u32, burst: u32) -> Result<Self, Invalid> {
        Ok(RateLimitSettings::new(per_second, burst)?.layer())
    }

    /// What it counts with, as an address.
    pub(crate) fn counted(&self) -> Weak<dyn Any + Send + Sync> {
        let counted: Weak<Shared> = Arc::downgrade(&self.shared);
        counted
    }

    /// What it has counted.
    pub fn counters(&self) -> RateLimitCounters {
        RateLimitCounters { limited: self.shared.limited.read() }
    }
}

impl Default for RateLimitLayer {
    /// 100 calls a second, and bursts of as many.
    fn default() -> Self {
        RateLimitSettings::default().layer()
    }
}

impl fmt::Debug for RateLimitLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimit<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimit { inner, shared: self.shared.clone() }
    }
}

// === impl RateLimit ===

impl<S, B, ResBody> Service<Request<B>> for RateLimit<S>
where
    S: Service<Request<B>, Response = Response<ResBody>>,
    ResBody: Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = S::Error;
    type Future = RateLimitFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mode = self.shared.switch.mode();
        if mode == Mode::Off {
            return RateLimitFuture { state: Limited::Called { future: self.inner.call(request) } };
        }
        let exempt = is_of_the_server(request.uri().path());
        let over = if exempt { None } else { self.shared.over(&request) };
        let state = match over {
            Some(why) if mode == Mode::Enforce => {
                let status = Some(self.shared.refusal(why));
                Limited::Over { status }
            }
            over => {
                if over.is_some() {
                    self.shared.switch.count();
                }
                Limited::Called { future: self.inner.call(request) }
            }
        };
        RateLimitFuture { state }
    }
}

impl<S: NamedService> NamedService for RateLimit<S> {
    const NAME: &'static str = S::NAME;
}

// === impl Shared ===

impl Shared {
    /// Why the caller may not call now, if so.
    fn over<B>(&self, request: &Request<B>) -> Option<Over> {
        let checks = self.checks.count();
        if checks % SWEEP == SWEEP - 1 {
            self.sweep();
        }
        let (headers, extensions) = (request.headers(), request.extensions());
        let name = || (self.caller)(headers, extensions);
        // A panic here would end the connection, with the calls of all others.
        let Ok(caller) = catch_unwind(AssertUnwindSafe(name)) else { return Some(Over::Unnamed) };
        if let Some(unknown) = &self.unknown
            && !self.known.0.contains_key(&caller)
        {
            let peer = peer(headers, extensions);
            if let Some(wait) = wait(unknown, &peer) {
                return Some(Over::Quota(wait));
            }
        }
        wait(&self.limiters, &caller).map(Over::Quota)
    }

    /// Removes callers with a full quota, if there are many.
    fn sweep(&self) {
        for limiters in std::iter::once(&self.limiters).chain(&self.unknown) {
            if limiters.len() > MOST_CALLERS {
                limiters.retain_recent();
            }
        }
    }

    fn refusal(&self, why: Over) -> Status {
        self.limited.count();
        let Over::Quota(wait) = why else {
            tracing::error!("the function that names callers panicked");
            return Status::internal("the caller is not known");
        };
        let (per_second, burst) = self.quota;
        Status::resource_exhausted(format!(
            "over the quota of {per_second} calls a second, {burst} at once; one more in {wait:.1?}"
        ))
    }
}

/// How long until this caller may call again, if not now.
fn wait(limiters: &Limiters, caller: &String) -> Option<Duration> {
    let denied = limiters.check_key(caller).err()?;
    Some(denied.wait_time_from(limiters.clock().now()))
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit").field("quota", &self.quota).finish_non_exhaustive()
    }
}

// === impl Known ===

impl StateStore for Known {
    type Key = String;

    fn measure_and_replace<T, F, E>(&self, key: &String, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0.measure_and_replace(key, f)
    }
}

impl ShrinkableKeyedStateStore<String> for Known {
    fn retain_recent(&self, drop_below: Nanos) {
        self.0.retain_recent(drop_below);
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

// === impl TokioClock ===

impl Clock for TokioClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        clock::now().saturating_duration_since(self.0).into()
    }
}

// === impl RateLimitFuture ===

impl<F, B, E> Future for RateLimitFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Output = Result<Response<ResponseBody>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            LimitedProj::Called { future } => {
                let outcome = ready!(future.poll(cx));
                Poll::Ready(outcome.map(|response| response.map(ResponseBody::of)))
            }
            LimitedProj::Over { status } => {
                let again = || Status::internal(polled_again().to_string());
                let status = status.take().unwrap_or_else(again);
                let mut response = status.into_http::<()>();
                // Any other server would refuse it as well.
                push_back(response.headers_mut(), Pushback::Stop);
                Poll::Ready(Ok(response.map(|()| ResponseBody::default())))
            }
        }
    }
}

impl<F> fmt::Debug for RateLimitFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitFuture").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
