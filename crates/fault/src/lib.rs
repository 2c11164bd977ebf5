//! Injects failures and delays into any tonic server or client by a seed, and broken replies,
//! streams and connections by rules that can be changed while it runs.
//!
//! # Why
//!
//! A client's reaction to faults can only be observed when there are faults, and only be tested
//! when they are reproducible.
//!
//! # Rule
//!
//! * Of the eligible requests a share fails with a status, and a share is delayed and then goes on;
//!   the two are independent, and a request hit by both is delayed first (gRFC A33).
//! * Which requests are hit is a hash of the seed, the kind of fault, the path and the request's
//!   `x-request-id` or `idempotency-key` with `grpc-previous-rpc-attempts`: the same seed gives the
//!   same faults in whatever order requests arrive, and each attempt is drawn anew. A request
//!   without an id is identified by its number.
//! * [`When::Before`] answers without executing, [`When::After`] executes and discards the reply.
//! * [`Faults`] are permanent settings; [`Rules`] change, and each [`Rule`] defines in one line
//!   which calls it hits, how often and with what. A layer may have both: their delays add up, and
//!   a failure of the settings takes precedence over that of a rule.
//! * Health checks and reflection are exempt unless [`Faults::health_too`] or the rule includes
//!   them; [the control service](Rules::control) always is.
//! * If nothing is injected, requests and responses pass through unchanged.
//! * When the client cancels, the delay ends, and the request is not executed.
//! * The effect of each kind of fault on a plain tonic client is in `FAULTS.md`, which a test
//!   writes.
//! * [`ClientFaultLayer`] injects the same into the calls of a client, below its retries.
//!
//! # Example
//!
//! ```
//! use cinchona_fault::{FaultLayer, Faults, Rules};
//! use std::convert::Infallible;
//! use tonic::{Code, Status, body::Body};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let service = service_fn(|_: http::Request<Body>| async {
//!     Ok::<_, Infallible>(http::Response::new(Body::empty()))
//! });
//! let rules = Rules::new(7);
//! let faults = FaultLayer::new(Faults::default()).unwrap().with_rules(rules.clone());
//! let counters = faults.counters();
//! let service = faults.layer(service);
//! let call = || service.clone().oneshot(http::Request::new(Body::empty()));
//!
//! rules.set("flaky", "first=1 status=UNAVAILABLE ttl=60s".parse().unwrap()).unwrap();
//! let status = Status::from_header_map(call().await.unwrap().headers()).unwrap();
//! assert_eq!((status.code(), status.message()), (Code::Unavailable, "simulated failure"));
//! assert!(Status::from_header_map(call().await.unwrap().headers()).is_none(), "first=1");
//! assert_eq!(counters.snapshot().failed_before, 1);
//! # }
//! ```
//!
//! # What it does not do
//!
//! It changes neither the content of requests nor complete messages. A hang ends at the caller's
//! `grpc-timeout`, if it has one, since tonic's server answers then; only `hang=headers` outlasts
//! it. Faults of a connection need [`FaultIo`], which cannot read TLS. On a multi-threaded runtime,
//! a reset before any headers may arrive after them. It has no page and no port of its own.

mod body;
mod client;
mod control;
mod counters;
mod future;
mod malformed;
mod metrics;
mod plan;
mod rule;
mod rules;
mod settings;
mod wire;

pub use client::{ClientFault, ClientFaultLayer, ClientFuture};
pub use counters::{Counters, Snapshot};
pub use future::ResponseFuture;
pub use malformed::Malformed;
pub use plan::{Faults, When};
pub use rule::Rule;
pub use rules::{Listed, Rules};
pub use wire::FaultIo;

use bytes::Bytes;
use cinchona_core::{BoxError, Invalid, Mode, Switch};
use future::Answer;
use settings::Settings;
use std::{
    mem,
    sync::Arc,
    task::{Context, Poll},
};
use tonic::{body::Body, server::NamedService};
use tower_layer::Layer;
use tower_service::Service;

/// Applies [`Fault`] to a server, or to a single service.
#[derive(Clone, Debug)]
pub struct FaultLayer(Arc<Settings>);

/// Fails and delays requests before they reach a service, and replies after they leave it.
#[derive(Clone, Debug)]
pub struct Fault<S> {
    inner: S,
    settings: Arc<Settings>,
}

// === impl FaultLayer ===

impl FaultLayer {
    /// Injects `faults`.
    ///
    /// # Errors
    /// When a rate is not in 0 to 1, or the code is `OK`.
    pub fn new(faults: Faults) -> Result<Self, Invalid> {
        Ok(Self(Arc::new(Settings::of(faults.checked()?))))
    }

    /// Also injects the faults of `rules`, now and after each change of them.
    #[must_use]
    pub fn with_rules(self, rules: Rules) -> Self {
        self.with(|settings| settings.rules = Some(rules))
    }

    /// Sets the switch that decides whether faults are injected, only counted, or not drawn; also
    /// for those of rules, whatever their own switch allows. When off, requests are not even
    /// counted.
    #[must_use]
    pub fn with_switch(self, switch: Switch) -> Self {
        self.with(|settings| settings.switch = switch)
    }

    /// Names the rules that hit a request in its reply, if there is a reply: a header
    /// `fault-injected: <rule id>` for each. By default replies do not name them.
    #[must_use]
    pub fn with_marks(self) -> Self {
        self.with(|settings| settings.is_marking = true)
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// What it has injected so far, into all the services it was applied to.
    pub fn counters(&self) -> Counters {
        self.0.counters.clone()
    }
}

impl From<Rules> for FaultLayer {
    /// Injects the faults of `rules`, and nothing else.
    fn from(rules: Rules) -> Self {
        Self(Arc::new(Settings { rules: Some(rules), ..Settings::of(Faults::default()) }))
    }
}

impl<S> Layer<S> for FaultLayer {
    type Service = Fault<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Fault { inner, settings: self.0.clone() }
    }
}

// === impl Fault ===

impl<S, B, R> Service<http::Request<B>> for Fault<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>> + Clone,
    R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = ResponseFuture<S, S::Future, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let mode = self.settings.switch.mode();
        if mode == Mode::Off {
            return ResponseFuture::executing(self.inner.call(request), None);
        }
        if self.settings.is_idle() {
            let answer = Answer::passing(&self.settings, request.uri().path());
            return ResponseFuture::executing(self.inner.call(request), Some(answer));
        }
        let fate = self.settings.fate(&request, mode);
        self.settings.report(&request, &fate);
        let delay = fate.delay();
        let answer = Answer::new(&self.settings, fate);
        match delay {
            Some(delay) => {
                // The ready service waits with the request; a clone takes its place.
                let clone = self.inner.clone();
                let readied = mem::replace(&mut self.inner, clone);
                ResponseFuture::delayed(delay, readied, request, answer)
            }
            None if answer.refuses() => ResponseFuture::refused(answer),
            None => {
                let mut answer = answer;
                answer.executes();
                ResponseFuture::executing(self.inner.call(request), Some(answer))
            }
        }
    }
}

impl<S: NamedService> NamedService for Fault<S> {
    const NAME: &'static str = S::NAME;
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests;
