//! A circuit breaker for tonic clients: a service that fails is left alone for a while.
//!
//! # Why
//!
//! A service that is down is not helped by more calls, and callers are not helped by waiting for
//! what will fail: 1,000 calls that each wait 5 s for a service that is gone wait 5,000 s in all.
//! But a rejected call has failed, too. So the default holds to a law: **but in an outage, no call
//! fails that would not fail without a breaker**.
//!
//! # Rule
//!
//! * Closed, the breaker lets calls through. It opens after an outage: 20 failures that no success
//!   separates, over at least 1.5 s. A failure rate, a rate of slow calls, and so many failures in
//!   a row are options ([`BreakerPolicy`]), off by default. Each of them rejects calls that would
//!   have succeeded: at a failure rate of 50 %, one call in 16 fails that has four attempts; with a
//!   breaker that opens at 50 %, all do.
//! * Open, it rejects calls at once with `UNAVAILABLE` and the time until the next probe: 1 s at
//!   first, twice as long each time it opens again, at most 5 s, each ±20 %.
//! * Half-open, it lets one call through as a probe. A probe is settled by the head of its
//!   response, so that streams do not keep other calls out. A good head closes the breaker on
//!   probation: the first call that ends then decides whether it stays closed. A bad one opens it
//!   again. A probe that is given up gives its place to the next call.
//! * A stream counts by how it ends, as any call does: by its trailers, or as a failure where its
//!   body breaks off. A stream that its caller drops says nothing.
//! * A call that began before the breaker last opened changes nothing.
//! * A rejection was not processed: a retry layer above may send the call elsewhere.
//!
//! # Methods
//!
//! All methods of a service, or of an endpoint, share a circuit, and a success of one proves that
//! the server is there. Only methods that have failed since the last success are rejected: a method
//! that works is never rejected because of one that does not, however rare its calls are, and its
//! success closes the circuit. In an outage this costs one call for each method. With a circuit for
//! each method it would cost 20: a server with 20 methods, each called once a second, would be
//! found dead after 20 s instead of 1.5 s, and each method would send probes of its own.
//!
//! What one circuit does not do is leave a bad method alone while the others work. Where that is
//! wanted, as for a method that hangs since its database is gone, ask for a circuit for each
//! ([`BreakerLayer::per_method`]).
//!
//! # What counts
//!
#![doc = include_str!("counts.md")]
//!
//! [`BreakerPolicy::with_counted`] counts other codes. A deadline is that of `grpc-timeout` or of
//! [`Deadline`](cinchona_core::Deadline), whichever ends first; where the header ends at least 2 ms
//! before the latter, it is the configured limit of an attempt. The usual time is learned from
//! calls that have a deadline; while it is not known, it is taken to be 100 ms. A server's own
//! `DEADLINE_EXCEEDED` is judged alike once that time is over; before, it is a failure.
//!
//! # Few calls
//!
//! An outage is 10 failures, not 20, where no call has succeeded for 6 s. So a server that gets one
//! attempt a second is found dead within 10 s, and one that gets an attempt each 10 s within 100 s
//! (with four attempts for each call, after 3 calls). Fewer failures look the same as chance:
//! where 3 in 10 fail, one call in 123 is the fourth failure in a row. And there is little to save.
//!
//! # Measured
//!
#![doc = include_str!("measured.md")]
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
//! let three = BreakerPolicy::default().with_consecutive_failures(Some(3)).unwrap();
//! let mut client = BreakerLayer::new(three).layer(down);
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
//! * It sets no time limit: put an attempt timeout around it.
//! * It does not open where a part of the calls succeeds. Ejection compares endpoints, which is the
//!   better judge of one that fails half of its calls.
//! * A server that is back is found by the next probe: up to 6 s late.

mod circuit;
mod circuits;
mod layer;
mod limits;
mod metrics;
mod pass;
mod permit;
mod policy;
mod shard;
mod state;
mod suspects;
mod sync;
mod usual;
mod window;

pub use cinchona_plumbing::{Backoff, Jitter, ResponseBody, Ticket};
pub use circuit::{Circuit, State};
pub use layer::{Breaker, BreakerLayer, ResponseFuture};
pub use policy::BreakerPolicy;
pub use window::Window;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests;
