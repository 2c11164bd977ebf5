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
//! use cinchona_fault::{FaultLayer, Rules};
//! use std::convert::Infallible;
//! use tonic::{Code, Status, body::Body};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let service = service_fn(|_: http::Request<Body>| async {
//!     Ok::<_, Infallible>(http::Response::new(Body::empty()))
//! });
//! let rules = Rules::new(7);
//! let layer = FaultLayer::from(rules.clone());
//! let service = layer.layer(service);
//! let call = || service.clone().oneshot(http::Request::new(Body::empty()));
//!
//! rules.set("flaky", "first=1 status=UNAVAILABLE ttl=60s".parse().unwrap()).unwrap();
//! let status = Status::from_header_map(call().await.unwrap().headers()).unwrap();
//! assert_eq!((status.code(), status.message()), (Code::Unavailable, "simulated failure"));
//! assert!(Status::from_header_map(call().await.unwrap().headers()).is_none(), "first=1");
//! assert_eq!(layer.counters().failed_before, 1);
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
mod layer;
mod malformed;
mod metrics;
mod plan;
mod rule;
mod rules;
mod running;
mod wire;

pub use client::{ClientFault, ClientFaultLayer, ClientFuture};
pub use counters::FaultCounters;
pub use future::ResponseFuture;
pub use layer::{FaultLayer, FaultSettings};
pub use malformed::Malformed;
pub use plan::{Faults, When};
pub use rule::Rule;
pub use rules::{Listed, Rules};
pub use wire::FaultIo;

use bytes::Bytes;
use cinchona_core::{BoxError, Mode};
use future::Answer;
use running::Running;
use std::{
    mem,
    sync::Arc,
    task::{Context, Poll},
};
use tonic::{body::Body, server::NamedService};
use tower_service::Service;

/// Fails and delays requests before they reach a service, and replies after they leave it.
#[derive(Clone, Debug)]
pub struct Fault<S> {
    inner: S,
    running: Arc<Running>,
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
        let mode = self.running.switch.mode();
        if mode == Mode::Off {
            return ResponseFuture::executing(self.inner.call(request), None);
        }
        if self.running.is_idle() {
            let answer = Some(Answer::passing(&self.running, request.uri().path()));
            return ResponseFuture::executing(self.inner.call(request), answer);
        }
        let fate = self.running.fate(&request, mode);
        self.running.report(&request, &fate);
        let delay = fate.delay();
        let answer = Answer::new(&self.running, fate);
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
