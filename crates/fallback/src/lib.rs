//! Second answers for tonic clients: an alternative where a call would have failed.
//!
//! # Why
//!
//! A service that is down takes down its callers, unless they have an alternative: its answer of a
//! minute ago, a replica's, or a default. For reads that is often better than a failure, as long as
//! the caller can see it.
//!
//! # Rule
//!
//! * The layer belongs between the call's deadline and the retries: it sees the failure after the
//!   last retry.
//! * Only unary methods that the .proto marks `NO_SIDE_EFFECTS` are given second answers, and those
//!   named by [`with_forced`](FallbackSettings::with_forced). All other calls pass through unread,
//!   and nothing of them is kept.
//! * A call has failed when its [`Verdict`](cinchona_core::Verdict), including its trailers, is
//!   neither ok nor a refusal: `NOT_FOUND` is an answer. `CANCELLED` is passed on, too: no caller
//!   waits.
//! * Errors of this client itself, such as a failure to encode the request, are passed on as well,
//!   with the error of the request's body.
//! * An HTTP answer without `grpc-status` is a proxy's: its 401 and 403 are refusals, all others
//!   failures.
//! * The second answer is the first available one: that of the [alternate], if the call's deadline
//!   has not passed; the last good answer to the same request, from the [cache]; the [default] of
//!   the method. If there is none, the failure is passed on unchanged.
//! * **An answer is only for a caller that may have it.** It is given only to requests that the
//!   server could not distinguish from the original one: byte by byte the same method, scheme,
//!   authority, path, query and message; the same metadata, each with the same values in the same
//!   order; made to the same service of those that the layer was applied to, or a clone of it. That
//!   includes metadata that is not usually seen as a credential, such as `baggage` and
//!   `x-forwarded-for`.
//! * Metadata of the single call is ignored: `grpc-timeout`, `grpc-previous-rpc-attempts`,
//!   `x-request-id`, `user-agent`, the trace context of W3C (`traceparent`, `tracestate`), B3 and
//!   OpenCensus (`grpc-trace-bin`); for methods without side effects `idempotency-key`; and that
//!   named by [`with_ignored`](FallbackSettings::with_ignored). Any other metadata that differs in
//!   each call makes the cache useless.
//! * **A revoked answer is not given.** The answer to a later call replaces the kept one, even if
//!   it cannot be kept itself: because it is too large, came without trailers, or the request or
//!   the answer has `no-store`, `no-cache` or `must-revalidate` in `cache-control` ([RFC 9111],
//!   5.2). A refusal removes the kept answer, and answers of calls in flight are not kept any more.
//!   A failure changes nothing, nor does an answer that is marked as degraded.
//!
//!   | answer to the same request | the call | what is kept |
//!   |---|---|---|
//!   | `OK` | is answered | is replaced, or removed |
//!   | `OK`, marked `degraded` | is answered | stays |
//!   | a refusal: `INVALID_ARGUMENT`, `NOT_FOUND`, `ALREADY_EXISTS` | is refused | is removed |
//!   | `PERMISSION_DENIED`, `UNAUTHENTICATED`, HTTP 401 or 403 | is refused | is removed |
//!   | `FAILED_PRECONDITION`, `OUT_OF_RANGE`, `UNIMPLEMENTED` | is refused | is removed |
//!   | `DATA_LOSS`: the kept answer may be the lost data | is refused | is removed |
//!   | `CANCELLED` | is cancelled | stays |
//!   | none, as the request failed in this client | fails | stays |
//!   | a failure: `UNAVAILABLE`, `INTERNAL`, `UNKNOWN`, `ABORTED` | gets a second answer | stays |
//!   | `RESOURCE_EXHAUSTED`, `DEADLINE_EXCEEDED` | gets a second answer | stays |
//!   | none, or another HTTP answer | gets a second answer | stays |
//!   | of the alternate: one that refuses the caller | gets the default | is removed |
//!
//! * Calls are ordered by when they begin: of two answers that of the later call is kept, in
//!   whichever order they arrive.
//! * An answer older than 5 minutes, or another [`Cache::max_age`], is never given
//!   (`stale-if-error`, [RFC 5861]). Age counts from when it had been read.
//! * In shadow ([`Switch`](cinchona_core::Switch)) the cache works as usual. When off, the layer
//!   passes all calls through and sees no revocations: so no earlier answer is given again, nor are
//!   answers of calls in flight kept. Its memory is freed with the first call after that.
//! * A second answer is marked in its header `degraded`: `alternate`, `cached` with its `age` in
//!   seconds ([RFC 9111], 5.1), or `default`. Live answers are passed on with their own headers.
//!   The failure that a second answer replaces is in its extensions, a `tonic::Status`.
//! * The answer of such a method is read to its end before it is passed on, up to 64 KiB, or
//!   another [`Cache::max_answer`]; a larger one is passed on as it arrives.
//! * If the service below fails to get ready, the next call fails, and is given a second answer.
//!
//! [alternate]: FallbackSettings::with_alternate
//! [cache]: FallbackSettings::with_cache
//! [default]: FallbackSettings::with_default
//! [RFC 5861]: https://www.rfc-editor.org/rfc/rfc5861#section-4
//! [RFC 9111]: https://www.rfc-editor.org/rfc/rfc9111#section-5.1
//!
//! # Example
//!
//! ```
//! use cinchona_core::Methods;
//! use cinchona_fallback::{Cache, FallbackSettings};
//! # use cinchona_testkit::{Answer, ScriptedServer, encode};
//! # use prost::Message as _;
//! # use prost_types::{
//! #     FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, MethodOptions,
//! #     ServiceDescriptorProto, method_options::IdempotencyLevel,
//! # };
//! use std::time::Duration;
//! use tonic::{Status, body::Body};
//! use tower::{Layer, ServiceExt};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), cinchona_core::BoxError> {
//! # let get = MethodDescriptorProto {
//! #     name: Some("Get".into()),
//! #     options: Some(MethodOptions {
//! #         idempotency_level: Some(IdempotencyLevel::NoSideEffects.into()),
//! #         ..Default::default()
//! #     }),
//! #     ..Default::default()
//! # };
//! # let rates = ServiceDescriptorProto {
//! #     name: Some("Rates".into()),
//! #     method: vec![get],
//! #     ..Default::default()
//! # };
//! # let file = FileDescriptorProto { service: vec![rates], ..Default::default() };
//! # let descriptors = FileDescriptorSet { file: vec![file] }.encode_to_vec();
//! # let server = ScriptedServer::new([
//! #     Answer::Ok(encode(&7_u32)),
//! #     Answer::Status(Status::unavailable("down")),
//! # ]);
//! // `rpc Get(..) returns (..) { option idempotency_level = NO_SIDE_EFFECTS; }`
//! let methods = Methods::from_file_descriptor_set(&descriptors)?;
//! let fallback = FallbackSettings::new(methods).with_cache(Cache::default())?.layer();
//! let client = fallback.layer(server); // which answers once, and is down after that
//! let request = || http::Request::post("/Rates/Get").body(Body::empty()).unwrap();
//!
//! let live = client.clone().oneshot(request()).await?;
//! assert!(!live.headers().contains_key("degraded"));
//!
//! tokio::time::advance(Duration::from_secs(42)).await;
//! let second = client.oneshot(request()).await?;
//! assert_eq!(second.headers()["degraded"], "cached");
//! assert_eq!(second.headers()["age"], "42");
//! assert_eq!(second.extensions().get::<Status>().unwrap().message(), "down");
//! assert_eq!(fallback.counters().served_cached, 1);
//! # Ok(())
//! # }
//! ```
//!
//! # What it does not do
//!
//! It does not answer from the cache while the service answers, and it does not race a slow service
//! against a second answer: a call whose own deadline has passed is over, so attempts need a
//! shorter limit than the call.
//!
//! It does not see credentials that a layer below it adds, and compares no extensions of a request:
//! put that layer above it, or identify the caller by
//! [`with_caller`](FallbackSettings::with_caller). A TLS client certificate belongs to a channel,
//! and each channel that the layer is applied to has its own answers; so apply it once, and clone
//! its service.
//!
//! A refusal removes the answer to its own request, not those to others of the same caller: a
//! caller whose token was revoked is given earlier answers for as long as [`Cache::max_age`] and an
//! outage last. Nor does the answer to a request remove any if the request is not complete
//! immediately or has more than 256 KiB, as such a request is not compared.
//!
//! A second answer is not kept, and the cache is in memory: it ends with the process.

mod answer;
mod body;
mod cache;
mod call;
mod counters;
mod degraded;
mod fences;
mod future;
mod key;
mod metrics;
mod settings;
mod shared;

pub use cache::Cache;
pub use cinchona_plumbing::ResponseBody;
pub use counters::FallbackCounters;
pub use future::ResponseFuture;
pub use settings::FallbackSettings;

use answer::Answer;
use bytes::Bytes;
use cache::Store;
use call::Call;
use cinchona_core::{BoxError, Methods, Mode};
use counters::Counters;
use degraded::Degraded;
use http::{Request, Response};
use shared::Shared;
use std::{
    sync::{Arc, atomic::AtomicU64},
    task::{Context, Poll, ready},
};
use tonic::body::Body;
use tower_layer::Layer;
use tower_service::Service;

/// Applies [`Fallback`] to a client's service.
///
/// The services that it is applied to share counters, switch and the room for answers, but no
/// answers: apply it once, and clone its service. Without cache, alternate or default there are no
/// second answers.
#[derive(Clone, Debug)]
pub struct FallbackLayer {
    shared: Arc<Shared>,
}

/// Gives calls that failed a second answer.
#[derive(Debug)]
pub struct Fallback<S> {
    inner: S,
    /// The number of the service among those that the layer was applied to; the same for its
    /// clones.
    service: u64,
    shared: Arc<Shared>,
    /// The error with which the service below did not get ready, for the next call.
    unready: Option<BoxError>,
}

// === impl FallbackSettings ===

impl FallbackSettings {
    /// A layer with these settings, and its own cache and counters.
    #[must_use]
    pub fn layer(&self) -> FallbackLayer {
        let counters = Counters::default();
        let store = self.cache.map(|cache| Store::new(cache, counters.clone()));
        let shared = Shared {
            methods: self.methods.clone(),
            forced: self.forced.clone(),
            compared: self.compared.clone(),
            store,
            max_answer: self.cache.unwrap_or_default().max_answer,
            defaults: self.defaults.map(|message| Answer::of(message.clone())),
            alternate: self.alternate.as_ref().map(|alternate| (**alternate).clone()),
            switch: self.switch.clone().unwrap_or_default(),
            counters,
            degraded: Degraded::default(),
            services: AtomicU64::new(0),
        };
        FallbackLayer { shared: Arc::new(shared) }
    }
}

// === impl FallbackLayer ===

impl FallbackLayer {
    /// The layer of [`FallbackSettings::new`], without second answers.
    pub fn new(methods: Methods) -> Self {
        FallbackSettings::new(methods).layer()
    }

    /// What it has counted, in all the services that it was applied to.
    pub fn counters(&self) -> FallbackCounters {
        self.shared.counters.read()
    }
}

impl<S> Layer<S> for FallbackLayer {
    type Service = Fallback<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let (service, shared) = (self.shared.next_service(), Arc::clone(&self.shared));
        Fallback { inner, service, shared, unready: None }
    }
}

// === impl Fallback ===

impl<S: Clone> Clone for Fallback<S> {
    fn clone(&self) -> Self {
        let Self { inner, service, shared, .. } = self;
        Self { inner: inner.clone(), service: *service, shared: Arc::clone(shared), unready: None }
    }
}

impl<S, ResBody> Service<Request<Body>> for Fallback<S>
where
    S: Service<Request<Body>, Response = Response<ResBody>>,
    S::Error: Into<BoxError>,
    ResBody: http_body::Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.shared.switch.mode() == Mode::Off {
            return match self.unready.take() {
                Some(error) => Poll::Ready(Err(error)),
                None => self.inner.poll_ready(cx).map_err(Into::into),
            };
        }
        if self.unready.is_none() {
            self.unready = ready!(self.inner.poll_ready(cx)).err().map(Into::into);
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (call, request) = Call::begin(request, &self.shared, self.service);
        match self.unready.take() {
            Some(error) => ResponseFuture::failed(error, call),
            None => ResponseFuture::calling(self.inner.call(request), call),
        }
    }
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests;
