//! Retries and hedging for any tonic channel: gRPC's rules, and a ledger of the attempts.
//!
//! # Why
//!
//! tonic has no retries, and tower's cannot wrap a `Channel`, whose request bodies are not
//! `Clone`.
//! Its codes mislead as well: a request that never left the client is `CANCELLED`, a connection
//! lost while the service was executing is `UNKNOWN`.
//!
//! # Rule
//!
//! * Each attempt is rebuilt from the request's parts and bytes. A request that is streamed is
//!   recorded while it is sent; once more than 256 KiB of it have been, the attempt in flight is
//!   the last.
//! * What is retried is decided by the [`Verdict`](cinchona_core::Verdict) on the attempt, the
//!   policy's codes and the method: a request that *may* have been executed is repeated only where
//!   [`Methods`](cinchona_core::Methods) says that this is harmless, or where the call carries an
//!   `idempotency-key`. A request that provably was not processed may be repeated for any method.
//! * A response that has begun is final (gRFC A6: commit on the first head that is not a
//!   trailers-only error).
//! * A request that never left the client, or that the server's HTTP/2 library refused once, is
//!   repeated immediately and does not count (gRFC A6: transparent retries).
//! * `grpc-retry-pushback-ms` sets or forbids the next retry; `grpc-previous-rpc-attempts` carries
//!   the number of the attempt to the server.
//! * A method is retried or hedged, never both ([`Policy`]). Hedging ([`HedgePolicy`]) is for
//!   methods that may be executed twice; a policy that hedges another is refused when it is set.
//! * For all calls together, gRPC's throttle ([`RetrySettings::with_throttle`]) and a [`Budget`]
//!   limit the added load; a call that serves a retry is not retried itself.
//! * No wait is begun that would end after the call's deadline.
//! * The returned failure is the last one, with its code, message, details and metadata, and the
//!   [`Ledger`] as its source.
//!
//! # Example
//!
//! ```
//! use cinchona_core::Methods;
//! use cinchona_retry::{Ledger, RetryLayer, RetryPolicy, Stop};
//! use tonic::{Code, Status, body::Body};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! let down = service_fn(|_: http::Request<Body>| async {
//!     Ok::<_, tonic::transport::Error>(Status::unavailable("draining").into_http::<Body>())
//! });
//! let policy = RetryPolicy::default().with_codes([Code::Unavailable]).unwrap();
//! let client = RetryLayer::new(policy, Methods::all_idempotent()).layer(down);
//!
//! let error = client.oneshot(http::Request::new(Body::empty())).await.unwrap_err();
//! let status = Status::from_error(error);
//! assert_eq!(status.message(), "draining");
//! let ledger = Ledger::of(&status).unwrap();
//! assert_eq!((ledger.attempts().len(), ledger.stopped()), (4, Stop::Exhausted));
//! # }
//! ```
//!
//! # What it costs
//!
//! See crates/COSTS.md: without TLS, this layer, both deadline layers and a balancer of one
//! endpoint take fewer instructions than tonic's client alone.
//!
//! # What it does not do
//!
//! It sets no time limit: put `AttemptTimeoutLayer` inside and `CallDeadlineLayer` outside. It does
//! not resume a response stream that breaks after it has begun. For users of tower's retry there is
//! [`TowerPolicy`], with its limits.

// A call goes through `layer`, which sends its first attempt, `future`, which polls that, `plan`,
// which judges it, `executor`, which makes the further attempts, and `answer`, by which it ends.
mod answer;
mod call;
mod details;
mod executor;
mod future;
mod layer;
mod ledger;
mod metrics;
mod plan;
mod policies;
mod shared;
mod stamp;
mod tower_policy;
mod warnings;

pub use cinchona_plumbing::{Elapsed, ReplayBuffer, ResponseBody};
#[doc(inline)]
pub use cinchona_policy::{
    Backoff, Jitter,
    retry::{AttemptKind, Budget, HedgePolicy, Policy, RetryPolicy, Stop},
};
pub use future::ResponseFuture;
pub use layer::{Retry, RetryCounters, RetryLayer, RetrySettings};
pub use ledger::{Attempt, Ledger};
pub use tower_policy::{TowerBody, TowerPolicy};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests;
