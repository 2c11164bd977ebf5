//! The layer and its circuits: one of its own, or one for each method or endpoint.

use crate::{
    BreakerPolicy, Circuit, State,
    circuits::{Circuits, Common},
    permit::Permit,
};
use bytes::Bytes;
use cinchona_core::{BoxError, Gate, Mode, Rejected, Rng, Switch};
use cinchona_plumbing::{ResponseBody, clock, polled_again};
use http_body::Body;
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll, ready},
};
use tower_layer::Layer;
use tower_service::Service;

/// Applies [`Breaker`] to a service, or gives a balancer one for each of its endpoints.
#[derive(Clone, Debug)]
pub struct BreakerLayer {
    common: Arc<Common>,
    own: Arc<Circuits>,
}

/// The settings of a [`BreakerLayer`].
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerSettings {
    name: String,
    policy: BreakerPolicy,
    per_method: bool,
    rng: Option<Rng>,
    switch: Option<Switch>,
}

/// What a [`BreakerLayer`] has counted, over all its [circuits](BreakerLayer::circuits) in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BreakerCounters {
    /// Circuits in use.
    pub circuits: usize,
    /// Those that let no call through: open, or isolated; in shadow, that would let none through.
    pub open: usize,
    /// Calls that they have rejected.
    pub rejected: u64,
}

/// Rejects calls to a service that fails.
#[derive(Clone, Debug)]
pub struct Breaker<S> {
    inner: S,
    circuits: Arc<Circuits>,
}

pin_project! {
    /// The future of a [`Breaker`] call.
    pub struct ResponseFuture<F> {
        #[pin]
        state: Calling<F>,
        // Boxed: it is kept until the end of the response's body.
        permit: Option<Box<Permit>>,
    }
}

pin_project! {
    #[project = CallingProj]
    enum Calling<F> {
        Rejected { unsent: Option<Rejected> },
        Called { #[pin] future: F },
    }
}

// === impl BreakerSettings ===

impl BreakerSettings {
    /// A circuit that opens and closes by `policy`.
    pub fn new(policy: BreakerPolicy) -> Self {
        let name = "breaker".to_owned();
        Self { name, policy, per_method: false, rng: None, switch: None }
    }

    /// Sets its name in logs and metrics, before the name of the service. Default `breaker`.
    #[must_use]
    pub fn with_name(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Uses a circuit for each method, so that a failing one is rejected while others work; in an
    /// outage each must detect it separately. Default: one for all.
    #[must_use]
    pub fn per_method(self) -> Self {
        Self { per_method: true, ..self }
    }

    /// Sets the switch that decides whether calls are rejected, only counted, or not observed. When
    /// it is on again after it was off, its circuits are closed, except those opened by hand.
    #[must_use]
    pub fn with_switch(self, switch: Switch) -> Self {
        Self { switch: Some(switch), ..self }
    }

    /// Draws the jitter from `rng`.
    #[must_use]
    pub fn with_rng(self, rng: Rng) -> Self {
        Self { rng: Some(rng), ..self }
    }

    /// A layer with these settings, and its own circuits.
    #[must_use]
    pub fn layer(&self) -> BreakerLayer {
        let common = Arc::new(Common {
            name: self.name.clone(),
            policy: self.policy,
            per_method: self.per_method,
            rng: self.rng.clone().unwrap_or_default(),
            switch: self.switch.clone().unwrap_or_default(),
            known: Mutex::default(),
        });
        BreakerLayer { own: Circuits::new(&common, common.name.clone()), common }
    }
}

// === impl BreakerLayer ===

impl BreakerLayer {
    /// The layer of [`BreakerSettings::new`].
    pub fn new(policy: BreakerPolicy) -> Self {
        BreakerSettings::new(policy).layer()
    }

    /// A breaker of the same policy for the endpoint of this name, for a balancer: with
    /// `cinchona_balance::Options::gate`.
    pub fn endpoint(&self, name: impl Into<String>) -> Arc<dyn Gate> {
        Circuits::new(&self.common, name.into())
    }

    /// The circuit of the layer itself for the method at `path`.
    pub fn circuit(&self, path: &str) -> Circuit {
        Circuit::clone(&self.own.of(path))
    }

    /// All circuits in use: of the layer itself, and of its endpoints.
    pub fn circuits(&self) -> Vec<Circuit> {
        let known = self.common.known.lock().unwrap_or_else(PoisonError::into_inner);
        let alive = known.iter().filter_map(Weak::upgrade);
        alive.flat_map(|circuits| circuits.all()).collect()
    }

    /// What it has counted.
    pub fn counters(&self) -> BreakerCounters {
        let circuits = self.circuits();
        let is_open = |circuit: &&Circuit| matches!(circuit.state(), State::Open | State::Isolated);
        BreakerCounters {
            circuits: circuits.len(),
            open: circuits.iter().filter(is_open).count(),
            rejected: circuits.iter().map(Circuit::rejected).sum(),
        }
    }
}

impl<S> Layer<S> for BreakerLayer {
    type Service = Breaker<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Breaker { inner, circuits: self.own.clone() }
    }
}

// === impl Breaker ===

impl<S, B, ResBody> Service<http::Request<B>> for Breaker<S>
where
    S: Service<http::Request<B>, Response = http::Response<ResBody>>,
    S::Error: Into<BoxError>,
    ResBody: Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    type Response = http::Response<ResponseBody>;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    /// Ready when the service below is: a rejected call must not wait for others.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let mode = self.circuits.common.switch.mode();
        if mode == Mode::Off {
            return ResponseFuture::called(self.inner.call(request), None);
        }
        self.circuits.look_at_switch();
        let path = request.uri().path();
        let (circuit, method) = (self.circuits.of(path), self.circuits.method(path));
        let permit = match circuit.enter(method, mode, clock::now) {
            Ok(pass) => Some(Box::new(Permit::new(circuit, pass, &request))),
            Err(_) if mode == Mode::Shadow => {
                self.circuits.common.switch.count();
                None
            }
            Err(unsent) => {
                let state = Calling::Rejected { unsent: Some(unsent) };
                return ResponseFuture { state, permit: None };
            }
        };
        ResponseFuture::called(self.inner.call(request), permit)
    }
}

// === impl ResponseFuture ===

impl<F> ResponseFuture<F> {
    const fn called(future: F, permit: Option<Box<Permit>>) -> Self {
        Self { state: Calling::Called { future }, permit }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<http::Response<B>, E>>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    E: Into<BoxError>,
{
    type Output = Result<http::Response<ResponseBody>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let future = match this.state.project() {
            CallingProj::Called { future } => future,
            CallingProj::Rejected { unsent } => {
                return Poll::Ready(Err(unsent.take().map_or_else(polled_again, Into::into)));
            }
        };
        match ready!(future.poll(cx)) {
            Ok(response) => {
                let mut response = response.map(ResponseBody::of);
                let permit = this.permit.take().and_then(|permit| permit.answered(&response));
                if let Some(permit) = permit {
                    response.body_mut().watch_boxed(Box::into_pin(permit));
                }
                Poll::Ready(Ok(response))
            }
            Err(error) => {
                let error = error.into();
                if let Some(permit) = this.permit.take() {
                    permit.failed(&*error);
                }
                Poll::Ready(Err(error))
            }
        }
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
