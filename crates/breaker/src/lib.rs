//! A circuit breaker for tonic clients: a service that fails is left alone for a while.
//!
//! # Why
//!
//! A service that is down is not helped by more calls, and callers are not helped by waiting for
//! what will fail: 1,000 calls that each wait 5 s for a service that is gone wait 5,000 s in all.
//!
//! # Rule
//!
//! * Closed, it lets calls through and counts how they end. It opens after 3 failures in a row, or
//!   when the failure rate or the rate of slow calls in a sliding window is too high
//!   ([`BreakerPolicy`]).
//! * Open, it rejects calls at once with `UNAVAILABLE` and the time until the next probe: 5 s at
//!   first, twice as long each time it opens again, at most 120 s, each ±20 %.
//! * Half-open, it lets one call through as a probe. What becomes of it closes or opens it; a probe
//!   that is given up gives its place to the next call.
//! * What is a failure is the verdict's affair: `NOT_FOUND` is an answer. A call that its caller
//!   gives up says nothing, unless its `grpc-timeout` had passed: then it is `DEADLINE_EXCEEDED`.
//! * An answer that says when to come again (`grpc-retry-pushback-ms`, gRFC A6) says nothing
//!   either: that server sheds what is too much, and to leave it alone for seconds would put its
//!   whole share on the others.
//! * A call that began before the state changed changes nothing any more.
//! * A rejection was not processed: a retry layer above may send the call elsewhere.
//!
//! # Example
//!
//! ```
//! use cinchona_breaker::{BreakerLayer, BreakerPolicy};
//! use std::convert::Infallible;
//! use tonic::{Code, Status, body::Body};
//! use tower::{Layer, Service, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let down = service_fn(|_: http::Request<Body>| async {
//!     Ok::<_, Infallible>(Status::unavailable("down").into_http::<Body>())
//! });
//! let mut client = BreakerLayer::new(BreakerPolicy::default()).layer(down);
//! for _ in 0..3 {
//!     client.ready().await.unwrap().call(http::Request::new(Body::empty())).await.unwrap();
//! }
//! let rejected = client.ready().await.unwrap().call(http::Request::new(Body::empty())).await;
//! let status = Status::from_error(rejected.err().unwrap());
//! assert_eq!(status.code(), Code::Unavailable);
//! assert!(status.message().starts_with("circuit breaker is open; worth trying again in "));
//! # }
//! ```
//!
//! # What it does not do
//!
//! It sets no time limit: put an attempt timeout around it.

mod circuit;
mod circuits;
mod layer;
mod policy;
mod shard;
mod state;
mod window;

/// The atomics of `state`, which a test replaces by those of a model checker.
mod atomic {
    pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
}

pub use circuit::{Circuit, State};
pub use layer::{Breaker, BreakerLayer, ResponseBody, ResponseFuture};
pub use policy::{BreakerPolicy, Window};

#[cfg(test)]
mod tests;
