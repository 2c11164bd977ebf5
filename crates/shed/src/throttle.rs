//! A client that fails calls locally while its server refuses them.

use cinchona_core::{BoxError, Invalid, Mode, Rejected, Rng, Switch, Verdict};
use http::{Request, Response};
use pin_project_lite::pin_project;
use rand::RngExt;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
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

/// Fails a share of the calls to a server that refuses calls.
#[derive(Clone, Debug)]
pub struct AdaptiveThrottle<S> {
    inner: S,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    k: f64,
    switch: Switch,
    rng: Rng,
    began: Instant,
    slices: [Slice; SLICES as usize],
    throttled: AtomicU64,
}

/// The requests (from bit 32 on) and accepts of a second.
#[derive(Debug, Default)]
struct Slice {
    /// The number of the second.
    number: AtomicU64,
    counts: AtomicU64,
}

pin_project! {
    /// The future of a [`AdaptiveThrottle`] call.
    pub struct ThrottleFuture<F> {
        #[pin]
        future: Option<F>,
        // The counter of its outcome; `None` while the throttle is off.
        shared: Option<Arc<Shared>>,
    }
}

const SLICES: u64 = 30;
const ONE_REQUEST: u64 = 1 << 32;
const LEAST: u64 = 10;
const MOST: f64 = 0.8;

// === impl AdaptiveThrottleLayer ===

impl AdaptiveThrottleLayer {
    #[cfg(test)]
    pub(crate) fn references(&self) -> usize {
        Arc::strong_count(&self.shared)
    }

    /// Lets through `k` times as many calls as are accepted, 1 to 100. The book's value is 2;
    /// nearer to 1 fewer calls are wasted, and a recovery is noticed later.
    ///
    /// # Errors
    /// When `k` is outside that range.
    pub fn new(k: f64) -> Result<Self, Invalid> {
        if !(1.0..=100.0).contains(&k) {
            return Err(Invalid::new("k", k, "1 to 100"));
        }
        Ok(Self { shared: Shared::new(k, Switch::default(), Rng::from_os()) })
    }

    /// Sets the switch that decides whether calls are failed, only counted, or passed through.
    #[must_use]
    pub fn with_switch(self, switch: Switch) -> Self {
        Self { shared: Shared::new(self.shared.k, switch, self.shared.rng.clone()) }
    }

    /// Draws from `rng`.
    #[must_use]
    pub fn with_rng(self, rng: Rng) -> Self {
        Self { shared: Shared::new(self.shared.k, self.shared.switch.clone(), rng) }
    }

    /// How many calls it has failed.
    pub fn throttled(&self) -> u64 {
        self.shared.throttled.load(Ordering::Relaxed)
    }
}

impl Default for AdaptiveThrottleLayer {
    /// K is 2.
    fn default() -> Self {
        Self { shared: Shared::new(2.0, Switch::default(), Rng::from_os()) }
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
        let is_throttled = self.shared.throttles(Instant::now());
        if is_throttled && mode == Mode::Shadow {
            self.shared.switch.count();
        }
        let is_sent = !is_throttled || mode == Mode::Shadow;
        let shared = Some(self.shared.clone());
        ThrottleFuture { future: is_sent.then(|| self.inner.call(request)), shared }
    }
}

// === impl Shared ===

impl Shared {
    fn new(k: f64, switch: Switch, rng: Rng) -> Arc<Self> {
        Arc::new(Self {
            k,
            switch,
            rng,
            began: Instant::now(),
            slices: Default::default(),
            throttled: AtomicU64::new(0),
        })
    }

    /// Counts a request, and decides whether it fails.
    fn throttles(&self, now: Instant) -> bool {
        let (requests, accepts) = self.sums(now);
        self.count(ONE_REQUEST, now);
        if requests < LEAST {
            return false;
        }
        let excess = requests as f64 - self.k * accepts as f64;
        let share = (excess / (requests + 1) as f64).min(MOST);
        share > 0.0 && self.rng.draw().random::<f64>() < share
    }

    fn sums(&self, now: Instant) -> (u64, u64) {
        let current = self.number(now);
        let recent = self.slices.iter().filter(|slice| {
            let number = slice.number.load(Ordering::Acquire);
            current.saturating_sub(number) < SLICES
        });
        recent.fold((0, 0), |(requests, accepts), slice| {
            let counts = slice.counts.load(Ordering::Relaxed);
            (requests + (counts >> 32), accepts + (counts & (ONE_REQUEST - 1)))
        })
    }

    fn count(&self, what: u64, now: Instant) {
        let current = self.number(now);
        let slice = &self.slices[(current % SLICES) as usize];
        let number = slice.number.load(Ordering::Acquire);
        if number < current {
            let order = (Ordering::AcqRel, Ordering::Relaxed);
            let renewed = slice.number.compare_exchange(number, current, order.0, order.1);
            if renewed.is_ok() {
                slice.counts.store(0, Ordering::Release);
            }
        }
        slice.counts.fetch_add(what, Ordering::Relaxed);
    }

    /// From 1 on: a slice of number 0 has never been used.
    fn number(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_secs() + 1
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
            this.shared
                .iter()
                .for_each(|shared| _ = shared.throttled.fetch_add(1, Ordering::Relaxed));
            let unsent = Rejected::new("client throttled: the server turns calls away", None);
            return Poll::Ready(Err(unsent.into()));
        };
        let outcome = ready!(future.poll(cx)).map_err(Into::into);
        if let Some(shared) = this.shared {
            let code = Verdict::of(&outcome).code();
            if !matches!(code, Code::Unavailable | Code::ResourceExhausted) {
                shared.count(1, Instant::now());
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
