//! Deadlines for tonic calls: nothing hangs, and what runs out of time says `DEADLINE_EXCEEDED`.
//!
//! # Why
//!
//! tonic's own timers start when the request has left the channel's queue and a connection
//! stands, and end at the response's headers.
//! A connection that is never made, an empty balancer, a response that stalls after its headers:
//! none of them ever times out, and what does is reported as `CANCELLED`.
//!
//! # Rule
//!
//! * [`CallDeadlineLayer`] is the outermost layer. It bounds the whole call, from the moment it is
//!   called: readiness, queue, connecting, every attempt, every backoff, the response's body to
//!   its trailers. The bound is `Request::set_timeout` (`grpc-timeout`) or a configured limit, the
//!   earlier of the two.
//! * [`AttemptTimeoutLayer`] stands inside the retries. It bounds each attempt by 2 s, or another
//!   limit, in the same way, and never beyond the call's deadline.
//! * [`ServerDeadlineLayer`] ends the work of a server at the caller's deadline, and hands the
//!   deadline to the calls that the handler makes.
//! * Each client layer writes what remains to `grpc-timeout`, rounded down, at the moment it sends.
//! * A timer that fires ends the call with [`Elapsed`](cinchona_core::Elapsed), whose source is a
//!   `DEADLINE_EXCEEDED` status, resets the HTTP/2 stream, and is logged once, with method,
//!   attempt, limit and elapsed time.
//! * Other errors leave as a status that tells the truth: a connection lost mid-call is
//!   `UNAVAILABLE` (tonic: `UNKNOWN`), and a tonic server's `CANCELLED "Timeout expired"` is
//!   `DEADLINE_EXCEEDED`.
//!
//! # Example
//!
//! ```
//! use cinchona_deadline::{AttemptTimeoutLayer, CallDeadlineLayer};
//! use std::{future::pending, time::Duration};
//! use tonic::{Code, Status, body::Body};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! let hanging = service_fn(|_: http::Request<Body>| {
//!     pending::<Result<http::Response<Body>, Status>>()
//! });
//! let client = ServiceBuilder::new()
//!     .layer(CallDeadlineLayer::new().with_limit(Duration::from_secs(10)))
//!     .layer(AttemptTimeoutLayer::new(Duration::from_secs(2)))
//!     .service(hanging);
//! let error = client.oneshot(http::Request::new(Body::empty())).await.err().unwrap();
//! assert_eq!(Status::from_error(error).code(), Code::DeadlineExceeded);
//! # }
//! ```
//!
//! # What it does not do
//!
//! It does not bound a call that has neither `grpc-timeout` nor a configured limit, and it cannot
//! stop the server: it tells it how long there is (`grpc-timeout`) and resets the stream.
//! A server stream longer than the attempt's limit needs its own: see [`AttemptLimit`].

mod attempt;
mod bound;
mod call;
mod server;

pub use attempt::{AttemptLimit, AttemptTimeout, AttemptTimeoutLayer};
pub use bound::{BoundBody, ResponseFuture};
pub use call::{CallDeadline, CallDeadlineLayer};
pub use server::{ServerBody, ServerDeadline, ServerDeadlineLayer, ServerFuture};

#[cfg(test)]
mod tests;
