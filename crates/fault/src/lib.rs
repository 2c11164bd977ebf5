//! Failures and delays for any tonic server, injected by a seed.
//!
//! # Why
//!
//! What a client does about faults can only be seen where there are faults, and it can only be
//! tested where they are the same every time.
//!
//! # Rule
//!
//! * Of the requests that may be hit, a share fails with a status, and a share is delayed and then
//!   goes on; the two do not depend on each other, and a request that both hit is delayed first
//!   (gRFC A33).
//! * Which requests are hit is a hash of the seed, the kind of fault, the path and the request's
//!   `x-request-id` or `idempotency-key` with `grpc-previous-rpc-attempts`: the same seed gives the
//!   same faults in whatever order requests come, and each attempt is drawn anew. A request without
//!   an id goes by its number.
//! * [`When::Before`] answers without executing, [`When::After`] executes and throws the reply
//!   away.
//! * Health checks and reflection are not hit unless [`Faults::health_too`] says so.
//! * Where nothing is injected, requests and responses pass through as they are.
//! * A client that goes away ends the delay, and its request is not executed.
//!
//! # Example
//!
//! ```
//! use cinchona_fault::{FaultLayer, Faults};
//! use std::convert::Infallible;
//! use tonic::{Code, Status, body::Body};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let service = service_fn(|_: http::Request<Body>| async {
//!     Ok::<_, Infallible>(http::Response::new(Body::empty()))
//! });
//! let faults = FaultLayer::new(Faults { failure_rate: 1.0, ..Faults::default() }).unwrap();
//! let counters = faults.counters();
//!
//! let response = faults.layer(service).oneshot(http::Request::new(Body::empty())).await.unwrap();
//! let status = Status::from_header_map(response.headers()).unwrap();
//! assert_eq!((status.code(), status.message()), (Code::Unavailable, "simulated failure"));
//! assert_eq!(counters.snapshot().failed_before, 1);
//! # }
//! ```
//!
//! # What it does not do
//!
//! It cannot be changed while it runs, and it does not break what is below gRPC: no resets, no
//! lost connections, no broken trailers.

mod counters;
mod plan;

pub use counters::{Counters, Snapshot};
pub use plan::{Faults, When};

use cinchona_core::{Invalid, Mode, Switch, code};
use counters::Cells;
use pin_project_lite::pin_project;
use plan::Plan;
use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::time::{Sleep, sleep};
use tonic::{Status, body::Body, server::NamedService};
use tower_layer::Layer;
use tower_service::Service;

/// Applies [`Fault`] to a server, or to a single service.
#[derive(Clone, Debug)]
pub struct FaultLayer {
    faults: Arc<Faults>,
    counters: Counters,
    switch: Switch,
}

/// Fails and delays requests before they reach a service, and replies after they leave it.
#[derive(Clone, Debug)]
pub struct Fault<S> {
    inner: S,
    faults: Arc<Faults>,
    counters: Counters,
    switch: Switch,
}

pin_project! {
    /// The future of a [`Fault`] call.
    #[derive(Debug)]
    pub struct ResponseFuture<S, F, B> {
        #[pin]
        stage: Stage<S, F, B>,
        fail: Option<When>,
        answer: Answer,
    }

    impl<S, F, B> PinnedDrop for ResponseFuture<S, F, B> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if this.answer.counted && !this.answer.given {
                this.answer.counters.cells().abandoned.count();
            }
        }
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = StageProj]
    enum Stage<S, F, B> {
        Delayed { #[pin] delay: Sleep, held: Option<(S, http::Request<B>)> },
        Refused,
        Executing { #[pin] inner: F },
    }
}

/// How the request is answered, and whether it was.
#[derive(Debug)]
struct Answer {
    faults: Arc<Faults>,
    counters: Counters,
    counted: bool,
    given: bool,
}

// === impl FaultLayer ===

impl FaultLayer {
    /// Injects `faults`.
    ///
    /// # Errors
    /// When a rate is not in 0 to 1, or the code is `OK`.
    pub fn new(faults: Faults) -> Result<Self, Invalid> {
        let faults = Arc::new(faults.checked()?);
        Ok(Self { faults, counters: Counters::default(), switch: Switch::default() })
    }

    /// Lets `switch` decide whether faults are injected, only counted, or not drawn.
    pub fn with_switch(self, switch: Switch) -> Self {
        Self { switch, ..self }
    }

    /// What it has injected so far, into all the services it was applied to.
    pub fn counters(&self) -> Counters {
        self.counters.clone()
    }
}

impl<S> Layer<S> for FaultLayer {
    type Service = Fault<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Fault {
            inner,
            faults: self.faults.clone(),
            counters: self.counters.clone(),
            switch: self.switch.clone(),
        }
    }
}

// === impl Fault ===

impl<S, B> Service<http::Request<B>> for Fault<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>> + Clone,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = ResponseFuture<S, S::Future, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let path = request.uri().path();
        let cells = self.counters.cells();
        let mode = self.switch.mode();
        let counted = mode != Mode::Off && self.faults.concern(path);
        let mut plan = if counted {
            cells.matched.count();
            self.faults.plan(path, request.headers(), cells.requests.count())
        } else {
            cells.exempt.count();
            Plan::default()
        };
        if mode == Mode::Shadow && plan != Plan::default() {
            self.switch.count();
            plan = Plan::default();
        }
        let Plan { delay, fail } = plan;
        report(&self.faults, &request, delay.is_some(), fail);
        let stage = match (delay, fail) {
            (Some(delay), _) => {
                cells.delayed.count();
                // The service that is ready waits with the request; its place takes a clone.
                let clone = self.inner.clone();
                let readied = mem::replace(&mut self.inner, clone);
                Stage::Delayed { delay: sleep(delay), held: Some((readied, request)) }
            }
            (None, Some(When::Before)) => Stage::Refused,
            (None, _) => {
                if counted {
                    cells.executed.count();
                }
                Stage::Executing { inner: self.inner.call(request) }
            }
        };
        let (faults, counters) = (self.faults.clone(), self.counters.clone());
        ResponseFuture { stage, fail, answer: Answer { faults, counters, counted, given: false } }
    }
}

impl<S: NamedService> NamedService for Fault<S> {
    const NAME: &'static str = S::NAME;
}

fn report<B>(faults: &Faults, request: &http::Request<B>, delayed: bool, fail: Option<When>) {
    if delayed || fail.is_some() {
        tracing::debug!(
            rpc.method = request.uri().path(),
            request_id = plan::id(request.headers()).and_then(|id| id.to_str().ok()),
            delay = delayed.then_some(faults.slow_delay).map(tracing::field::debug),
            code = fail.map(|_| code::name(faults.code)),
            when = fail.map(tracing::field::debug),
            "injecting a fault"
        );
    }
}

// === impl ResponseFuture ===

impl<S, B> Future for ResponseFuture<S, S::Future, B>
where
    S: Service<http::Request<B>, Response = http::Response<Body>>,
{
    type Output = Result<http::Response<Body>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.stage.as_mut().project() {
                StageProj::Delayed { delay, held } => {
                    ready!(delay.poll(cx));
                    match (&this.fail, held.take()) {
                        (Some(When::Before), _) | (_, None) => Stage::Refused,
                        (_, Some((mut readied, request))) => {
                            this.answer.cells().executed.count();
                            Stage::Executing { inner: readied.call(request) }
                        }
                    }
                }
                StageProj::Refused => {
                    this.answer.cells().failed_before.count();
                    return Poll::Ready(Ok(this.answer.failure()));
                }
                StageProj::Executing { inner } => {
                    let reply = ready!(inner.poll(cx));
                    this.answer.given = true;
                    // An error of the service is more of a failure than this one.
                    if this.fail.is_some() && reply.is_ok() {
                        this.answer.cells().failed_after.count();
                        return Poll::Ready(Ok(this.answer.failure()));
                    }
                    return Poll::Ready(reply);
                }
            };
            this.stage.set(next);
        }
    }
}

// === impl Answer ===

impl Answer {
    fn cells(&self) -> &Cells {
        self.counters.cells()
    }

    /// The injected status, as a trailers-only response.
    fn failure(&mut self) -> http::Response<Body> {
        self.given = true;
        Status::new(self.faults.code, &*self.faults.message).into_http()
    }
}

#[cfg(test)]
mod tests;
