//! A circuit breaker for tonic clients: calls to a service in an outage fail immediately.
//!
//! # Why
//!
//! More calls do not help a service that is down, and waiting for their failure does not help the
//! callers: 1,000 calls that each wait 5 s for a dead service wait 5,000 s in all. But a rejected
//! call has failed, too. So the default obeys a law: **except in an outage, no call fails that
//! would not fail without a breaker**.
//!
//! # Rule
//!
//! * Closed, the breaker admits calls. It opens after an outage: 20 failures without a success
//!   between them, over at least 1.5 s. A failure rate, a slow-call rate, and a number of failures
//!   in a row are options ([`BreakerPolicy`]), off by default. Each of them rejects calls that
//!   would have succeeded: at a failure rate of 50 %, one call in 16 with four attempts fails; with
//!   a breaker that opens at 50 %, all do.
//! * Open, it rejects calls immediately with `UNAVAILABLE` and the time until the next probe: 1 s
//!   at first, twice as long each time it opens again, at most 5 s, each ±20 %.
//! * Half-open, it admits one call as a probe. The head of its response settles a probe, so that
//!   streams do not block other calls. A good head closes the breaker on probation: the first call
//!   that ends then decides whether it stays closed. A bad one opens it again. A probe that is
//!   dropped gives its place to the next call.
//! * A stream counts by its end, as any call does: by its trailers, or as a failure if its body
//!   breaks off. A stream that its caller drops does not count.
//! * A call that began before the breaker last opened changes nothing.
//! * A rejection was not processed: a retry layer above may send the call elsewhere.
//!
//! # Methods
//!
//! All methods of a service, or of an endpoint, share a circuit, and a success of one proves that
//! the server is up. Only methods that have failed since the last success are rejected: a working
//! method is never rejected because of a failing one, however rare its calls are, and its success
//! closes the circuit. In an outage this costs one call for each method. With a circuit for each
//! method it would cost 20: a server with 20 methods, each called once a second, would be detected
//! as dead after 20 s instead of 1.5 s, and each method would send its own probes.
//!
//! One circuit does not reject a failing method while others work. If that is wanted, as for a
//! method that hangs because its database is gone, use a circuit for each
//! ([`BreakerSettings::per_method`]).
//!
//! # What counts
//!
#![doc = include_str!("counts.md")]
//!
//! [`BreakerPolicy::with_counted`] counts other codes. The deadline is that of `grpc-timeout` or of
//! [`Deadline`](cinchona_core::Deadline), whichever ends first; a header that ends at least 2 ms
//! before the latter is the configured limit of an attempt. The usual response time is learned from
//! calls with a deadline; until then 100 ms are assumed. A server's own `DEADLINE_EXCEEDED` is
//! judged alike after that time; before, it is a failure.
//!
//! # Few calls
//!
//! An outage is 10 failures, not 20, if no call has succeeded for 6 s. So a server with one attempt
//! a second is detected as dead within 10 s, and one with an attempt each 10 s within 100 s (with
//! four attempts for each call, after 3 calls). Fewer failures are not distinguishable from chance:
//! where 3 in 10 fail, one call in 123 is the fourth failure in a row. And there is little load to
//! save.
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
//! * It does not open while some of the calls succeed. Outlier ejection compares endpoints, and is
//!   the better judge of one that fails half of its calls.
//! * The next probe detects that a server has recovered: up to 6 s late.

mod circuit;
mod circuits;
mod layer;
mod metrics;
mod permit;

pub use cinchona_plumbing::{ResponseBody, Ticket};
#[doc(inline)]
pub use cinchona_policy::{
    Backoff, Jitter,
    breaker::{BreakerPolicy, Window},
};
pub use circuit::{Circuit, State};
pub use layer::{Breaker, BreakerCounters, BreakerLayer, BreakerSettings, ResponseFuture};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests;
