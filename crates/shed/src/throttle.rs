//! A client that fails calls locally while its server refuses them.

use cinchona_core::{BoxError, Invalid, Mode, Rejected, Rng, Switch, Verdict};
use cinchona_plumbing::{Count, clock};
use cinchona_policy::client_throttle::ClientThrottle;
use http::{Request, Response};
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::time::Instant;
use tonic::Code;
use tower_layer::Layer;
use tower_service::Service;

/// Applies [`AdaptiveThrottle`] to a client.
///
/// # Why
///
/// Refusing a call costs the server resources. While it refuses most of them, its clients can do
/// that instead.
///
/// # Rule
///
/// A call fails with `UNAVAILABLE`, unsent, with the probability `max(0, (requests - K · accepts) /
/// (requests + 1))`, where requests are all calls, sent or not, and accepts those that the server
/// did not refuse with `UNAVAILABLE` or `RESOURCE_EXHAUSTED` (Site Reliability Engineering, chapter
/// 21, "Client-Side Throttling").
///
/// The last 30 s are counted, and the probability is at most 0.8, as in Envoy's admission control:
/// with the book's values (two minutes, no bound) a client would need many minutes after an outage
/// to notice the recovery. Fewer than ten requests are ignored.
#[derive(Clone, Debug)]
pub struct AdaptiveThrottleLayer {
    shared: Arc<Shared>,
}

/// The settings of an [`AdaptiveThrottleLayer`]. By default K is 2.
#[derive(Clone, Debug, PartialEq)]
pub struct AdaptiveThrottleSettings {
    k: f64,
    switch: Option<Switch>,
    rng: Option<Rng>,
}

/// What an [`AdaptiveThrottleLayer`] has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdaptiveThrottleCounters {
    /// Calls that it has failed.
    pub throttled: u64,
}

/// Fails a share of the calls to a server that refuses calls.
#[derive(Clone, Debug)]
pub struct AdaptiveThrottle<S> {
    inner: S,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    throttle: ClientThrottle,
    switch: Switch,
    throttled: Count,
}

pin_project! {
    /// The future of a [`AdaptiveThrottle`] call.
    pub struct ThrottleFuture<F> {
        #[pin]
        future: Option<F>,
        // The counter of its outcome; `None` while the throttle is off, and once it is counted.
        shared: Option<Arc<Shared>>,
    }

    impl<F> PinnedDrop for ThrottleFuture<F> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            // Given up, such as by the winner of a hedge: the server has not refused it.
            if this.future.is_some() && let Some(shared) = this.shared {
                shared.throttle.accepted(Instant::now());
            }
        }
    }
}

// === impl AdaptiveThrottleSettings ===

impl AdaptiveThrottleSettings {
    /// Lets through `k` times as many calls as are accepted, 1 to 100. The book's value is 2;
    /// nearer to 1 fewer calls are wasted, and a recovery is noticed later.
    ///
    /// # Errors
    /// When `k` is outside that range.
    pub fn new(k: f64) -> Result<Self, Invalid> {
        if !(1.0..=100.0).contains(&k) {
            return Err(Invalid::new("k", k, "1 to 100"));
        }
        Ok(Self { k, ..Self::default() })
    }

    /// Sets the switch that decides whether calls are failed, only counted, or passed through.
    #[must_use]
    pub fn with_switch(self, switch: Switch) -> Self {
        Self { switch: Some(switch), ..self }
    }

    /// Draws from `rng`.
    #[must_use]
    pub fn with_rng(self, rng: Rng) -> Self {
        Self { rng: Some(rng), ..self }
    }

    /// A layer with these settings, and its own counters.
    #[must_use]
    pub fn layer(&self) -> AdaptiveThrottleLayer {
        let rng = self.rng.clone().unwrap_or_default();
        let shared = Shared {
            throttle: ClientThrottle::new(self.k, rng, Instant::now()),
            switch: self.switch.clone().unwrap_or_default(),
            throttled: Count::default(),
        };
        AdaptiveThrottleLayer { shared: Arc::new(shared) }
    }
}

impl Default for AdaptiveThrottleSettings {
    fn default() -> Self {
        Self { k: 2.0, switch: None, rng: None }
    }
}

// === impl AdaptiveThrottleLayer ===

impl AdaptiveThrottleLayer {
    #[cfg(test)]
    pub(crate) fn references(&self) -> usize {
        Arc::strong_count(&self.shared)
    }

    /// The layer of [`AdaptiveThrottleSettings::new`].
    ///
    /// # Errors
    /// As there.
    pub fn new(k: f64) -> Result<Self, Invalid> {
        Ok(AdaptiveThrottleSettings::new(k)?.layer())
    }

    /// What it has counted.
    pub fn counters(&self) -> AdaptiveThrottleCounters {
        AdaptiveThrottleCounters { throttled: self.shared.throttled.read() }
    }
}

impl Default for AdaptiveThrottleLayer {
    /// K is 2.
    fn default() -> Self {
        AdaptiveThrottleSettings::default().layer()
    }
}

impl<S> Layer<S> for AdaptiveThrottleLayer {
    type Service = AdaptiveThrottle<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AdaptiveThrottle { inner, shared: self.shared.clone() }
    }
}

// === impl AdaptiveThrottle ===

impl<S, B, ResBody> Service<Request<B>> for AdaptiveThrottle<S>
where
    S: Service<Request<B>, Response = Response<ResBody>>,
    S::Error: Into<BoxError>,
    ResBody: http_body::Body,
{
    type Response = Response<ResBody>;
    type Error = BoxError;
    type Future = ThrottleFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mode = self.shared.switch.mode();
        if mode == Mode::Off {
            return ThrottleFuture { future: Some(self.inner.call(request)), shared: None };
        }
        let is_throttled = self.shared.throttle.throttles(clock::now());
        if is_throttled && mode == Mode::Shadow {
            self.shared.switch.count();
        }
        let is_sent = !is_throttled || mode == Mode::Shadow;
        let shared = Some(self.shared.clone());
        ThrottleFuture { future: is_sent.then(|| self.inner.call(request)), shared }
    }
}

// === impl ThrottleFuture ===

impl<F, B, E> Future for ThrottleFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<BoxError>,
    B: http_body::Body,
{
    type Output = Result<Response<B>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(future) = this.future.as_pin_mut() else {
            this.shared.iter().for_each(|shared| _ = shared.throttled.count());
            let unsent = Rejected::new("client throttled: the server turns calls away", None);
            return Poll::Ready(Err(unsent.into()));
        };
        let outcome = ready!(future.poll(cx)).map_err(Into::into);
        if let Some(shared) = this.shared.take() {
            let code = Verdict::of(&outcome).code();
            if !matches!(code, Code::Unavailable | Code::ResourceExhausted) {
                shared.throttle.accepted(Instant::now());
            }
        }
        Poll::Ready(outcome)
    }
}

impl<F> fmt::Debug for ThrottleFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThrottleFuture").finish_non_exhaustive()
    }
}
