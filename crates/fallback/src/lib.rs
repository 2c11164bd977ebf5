//! A second answer for tonic clients: what a call gets where it would have got a failure.
//!
//! # Why
//!
//! A service that is down takes down whoever asks it, unless they have something else to say: what
//! it said a minute ago, what another replica says, or a default.
//! Where reading is concerned that is often better than nothing, as long as the caller can tell.
//!
//! # Rule
//!
//! * The layer stands between the call's deadline and the retries: it sees what is left when these
//!   have given up.
//! * Only unary methods that the .proto marks `NO_SIDE_EFFECTS` are given second answers, and those
//!   that [`with_forced`](FallbackLayer::with_forced) names. All other calls pass through as they
//!   are, with nothing read or kept of them.
//! * A call has failed when its [`Verdict`](cinchona_core::Verdict), with that of the trailers, is
//!   neither ok nor a refusal: `NOT_FOUND` is an answer. `CANCELLED` is passed on, too: nobody
//!   waits.
//! * The second answer is the first there is of: that of the [alternate], if the call's deadline
//!   has not passed; the last good answer to the same request, from the [cache]; the [default] of
//!   the method. Where there is none, the failure is passed on as it came.
//! * The same request is: the same authority, path and message, byte by byte, and the same
//!   `authorization`, `cookie`, `grpc-encoding`, `grpc-accept-encoding` and whatever else
//!   [`with_vary`](FallbackLayer::with_vary) names. So no caller is given the answer of another.
//! * An answer older than 5 minutes, or another [`Cache::max_age`], is never given
//!   (`stale-if-error`, [RFC 5861]).
//! * A second answer says so in its header `degraded`: `alternate`, `cached` with its `age` in
//!   seconds ([RFC 9111], 5.1), or `default`. Live answers are passed on with the headers they
//!   have; those that say of themselves that they are degraded are not kept. The failure that a
//!   second answer stands in for is in its extensions, a `tonic::Status`.
//! * To know how it ends, the answer of such a method is read before it is handed on, up to 64 KiB,
//!   or another [`Cache::max_answer`]; a larger one is handed on as it comes.
//! * A service below that fails to get ready fails the next call, which is given a second answer.
//!
//! [alternate]: FallbackLayer::with_alternate
//! [cache]: FallbackLayer::with_cache
//! [default]: FallbackLayer::with_default
//! [RFC 5861]: https://www.rfc-editor.org/rfc/rfc5861#section-4
//! [RFC 9111]: https://www.rfc-editor.org/rfc/rfc9111#section-5.1
//!
//! # Example
//!
//! ```
//! use cinchona_core::Methods;
//! use cinchona_fallback::{Cache, FallbackLayer};
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
//! let fallback = FallbackLayer::new(methods).with_cache(Cache::default())?;
//! let counters = fallback.counters();
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
//! assert_eq!(counters.snapshot().served_cached, 1);
//! # Ok(())
//! # }
//! ```
//!
//! # What it does not do
//!
//! It does not answer from the cache while the service answers, and it does not race a slow service
//! against a second answer: a call whose own deadline runs out is over, so attempts need a shorter
//! limit than the call.
//! It does not see credentials that are added below it, nor know which other metadata tells callers
//! apart: name that with [`with_vary`](FallbackLayer::with_vary).
//! A second answer is not kept, and the cache is in memory: it ends with the process.

mod answer;
mod body;
mod cache;
mod call;
mod counters;
mod degraded;
mod future;
mod shared;

pub use body::FallbackBody;
pub use cache::Cache;
pub use counters::{Counters, Snapshot};
pub use future::ResponseFuture;

use answer::Answer;
use bytes::Bytes;
use call::Call;
use cinchona_core::{BoxError, Invalid, Methods, Switch};
use http::{HeaderName, Request, Response};
use shared::Shared;
use std::{
    sync::Arc,
    task::{Context, Poll, ready},
};
use tonic::body::Body;
use tower::{ServiceExt, util::BoxCloneSyncService};
use tower_layer::Layer;
use tower_service::Service;

/// Applies [`Fallback`] to a client's service.
///
/// The services that it is applied to share cache, counters and switch; without cache, alternate or
/// default there are no second answers.
#[derive(Clone, Debug)]
pub struct FallbackLayer {
    shared: Arc<Shared>,
}

/// Gives calls that failed a second answer.
#[derive(Debug)]
pub struct Fallback<S> {
    inner: S,
    shared: Arc<Shared>,
    /// Why the service below did not get ready, for the next call.
    unready: Option<BoxError>,
}

// === impl FallbackLayer ===

impl FallbackLayer {
    /// Gives second answers to the methods that `methods` knows to be unary and without side
    /// effects.
    pub fn new(methods: Methods) -> Self {
        Self { shared: Arc::new(Shared::new(methods)) }
    }

    /// Keeps the last good answers, and gives them when a call fails.
    ///
    /// # Errors
    /// When one of the bounds is out of its range.
    pub fn with_cache(mut self, cache: Cache) -> Result<Self, Invalid> {
        self.shared().keep(cache.checked()?);
        Ok(self)
    }

    /// Tells the requests of different callers apart by this metadata as well, such as `x-user`:
    /// the answer to one is not given to another. By `authorization` and `cookie` in any case.
    pub fn with_vary(mut self, name: HeaderName) -> Self {
        self.shared().vary.push(name);
        self
    }

    /// Answers `method` of `service` with `message`, encoded but without its gRPC frame, when there
    /// is nothing better; all its methods where `method` is empty.
    ///
    /// # Errors
    /// When the method has a default already or is not known to be unary, or the message has 4 GiB.
    pub fn with_default(
        mut self,
        service: &str,
        method: &str,
        message: impl Into<Bytes>,
    ) -> Result<Self, Invalid> {
        self.shared.is_unary(service, method)?;
        let answer = shared::framed(message.into()).map(Answer::of)?;
        self.shared().defaults.insert(service, method, answer)?;
        Ok(self)
    }

    /// Asks another service when a call fails: a channel to another place, or a whole client stack.
    /// Only its good answers count, not what it refuses.
    ///
    /// The request is sent as it came from above, with what is left of its deadline. A request that
    /// is not complete at once or has more than 256 KiB is not sent to it.
    pub fn with_alternate<A, B>(mut self, alternate: A) -> Self
    where
        A: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        A::Error: Into<BoxError>,
        A::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let alternate = alternate
            .map_response(|response: Response<B>| response.map(Body::new))
            .map_err(Into::into);
        self.shared().alternate = Some(BoxCloneSyncService::new(alternate));
        self
    }

    /// Gives second answers to `method` of `service` too, or to all its unary methods where
    /// `method` is empty, though they have side effects: they may have happened or not, or have
    /// happened at the alternate, and the caller is told of an answer.
    ///
    /// # Errors
    /// When the method was named before, or is not known to be unary.
    pub fn with_forced(mut self, service: &str, method: &str) -> Result<Self, Invalid> {
        self.shared.is_unary(service, method)?;
        self.shared().forced.insert(service, method, ())?;
        Ok(self)
    }

    /// Lets `switch` decide whether second answers are given, only counted, or not looked for. The
    /// alternate is not asked for a count; the cache is filled.
    pub fn with_switch(mut self, switch: Switch) -> Self {
        self.shared().switch = switch;
        self
    }

    /// How often there was a second answer so far, for all the services it was applied to.
    pub fn counters(&self) -> Counters {
        self.shared.counters.clone()
    }

    fn shared(&mut self) -> &mut Shared {
        Arc::make_mut(&mut self.shared)
    }
}

impl<S> Layer<S> for FallbackLayer {
    type Service = Fallback<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Fallback { inner, shared: Arc::clone(&self.shared), unready: None }
    }
}

// === impl Fallback ===

impl<S: Clone> Clone for Fallback<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: Arc::clone(&self.shared), unready: None }
    }
}

impl<S, ResBody> Service<Request<Body>> for Fallback<S>
where
    S: Service<Request<Body>, Response = Response<ResBody>>,
    S::Error: Into<BoxError>,
    ResBody: http_body::Body<Data = Bytes>,
    ResBody::Error: Into<BoxError>,
{
    type Response = Response<FallbackBody<ResBody>>;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future, ResBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.unready.is_none() {
            self.unready = ready!(self.inner.poll_ready(cx)).err().map(Into::into);
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (call, request) = Call::begin(request, &self.shared);
        match self.unready.take() {
            Some(error) => ResponseFuture::failed(error, call),
            None => ResponseFuture::calling(self.inner.call(request), call),
        }
    }
}

#[cfg(test)]
mod tests;
