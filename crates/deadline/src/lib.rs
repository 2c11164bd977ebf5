//! Deadlines for tonic calls: no call hangs, and a call out of time fails with `DEADLINE_EXCEEDED`.
//!
//! # Why
//!
//! tonic's own timers start when the request has left the channel's queue and there is a
//! connection, and end at the response's headers. A connection that is never established, an empty
//! balancer, a response that stalls after its headers: none of them times out, and a timeout is
//! reported as `CANCELLED`.
//!
//! # Rule
//!
//! * [`CallDeadlineLayer`] is the outermost layer. It bounds the whole call, from the moment it is
//!   called: readiness, queue, connecting, every attempt, every backoff, the response's body to
//!   its trailers. The bound is `Request::set_timeout` (`grpc-timeout`), a method's timeout or a
//!   configured limit, the earliest of them.
//! * [`AttemptTimeoutLayer`] belongs inside the retries. It bounds each attempt by 2 s, or another
//!   limit, in the same way, and never beyond the call's deadline.
//! * [`ServerDeadlineLayer`] ends the work of a server at the caller's deadline, and propagates the
//!   deadline to the calls that the handler makes.
//! * Each client layer writes the remaining time to `grpc-timeout`, rounded down, at the moment it
//!   sends.
//! * A timer that fires ends the call with [`Elapsed`], whose source is a `DEADLINE_EXCEEDED`
//!   status, resets the HTTP/2 stream, and is logged once, with method, attempt, limit, elapsed
//!   time and stage.
//! * Other errors get the correct code: a connection lost mid-call is `UNAVAILABLE` (tonic:
//!   `UNKNOWN`), and a tonic server's `CANCELLED "Timeout expired"` is `DEADLINE_EXCEEDED` if the
//!   time sent in `grpc-timeout` is over. At any other time that is the server's own status, and is
//!   kept.
//!
//! # What a limit bounds
//!
//! A requested deadline (`Request::set_timeout`, the inherited deadline of a call that is being
//! served, the `timeout` of gRPC's service config) ends the whole call, streams included, as
//! everywhere in gRPC. A limit configured on a layer, [`CallDeadlineSettings::with_limit`] or
//! [`AttemptTimeoutLayer::new`], is a default for calls of all kinds, and ends calls that hang:
//!
//! | method | the limit is for | `grpc-timeout` |
//! |---|---|---|
//! | unary | the whole answer, to its trailers | limit or deadline, the earlier |
//! | server streaming | the first message | the deadline, if there is one |
//! | client streaming | the server's turns, and the trailers | the deadline |
//! | bidirectional | the server's turns, until the first message | the deadline |
//! | unknown | the first message, and the silence after it | the deadline, if there is one |
//!
//! It is the server's turn until it takes the next message, and from the end of the request to the
//! first message of the response. So neither the length of a stream nor a caller that is slow to
//! send counts. A limit that does not bound the stream is not sent in `grpc-timeout`, by which a
//! server would end the stream. If it is unknown whether a response has a second message, it may be
//! silent for a minute after the first, or the limit, whichever is longer.
//!
//! After the first message, [`with_silence`](AttemptTimeoutSettings::with_silence) ends a stream
//! without a frame for so long; by default there is no such limit. Limits and silences can be set
//! by method and by kind. Ten years or more, such as `Duration::MAX`, are unlimited, and not sent.
//!
//! The kind of a method is known from the descriptor sets that were read in this process, by
//! [`Methods`](cinchona_core::Methods), before the layer is applied; or from the call itself, by a
//! [`MethodKind`](cinchona_core::MethodKind) in the request's extensions. An unknown method may be
//! a stream, so its limit is not sent in `grpc-timeout`.
//!
//! # Example
//!
//! ```
//! use cinchona_deadline::{AttemptTimeoutLayer, CallDeadlineSettings};
//! use std::{future::pending, time::Duration};
//! use tonic::{Code, Status, body::Body};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! let hanging = service_fn(|_: http::Request<Body>| {
//!     pending::<Result<http::Response<Body>, Status>>()
//! });
//! let client = ServiceBuilder::new()
//!     .layer(CallDeadlineSettings::new().with_limit(Duration::from_secs(10)).layer())
//!     .layer(AttemptTimeoutLayer::new(Duration::from_secs(2)))
//!     .service(hanging);
//! let error = client.oneshot(http::Request::new(Body::empty())).await.err().unwrap();
//! assert_eq!(Status::from_error(error).code(), Code::DeadlineExceeded);
//! # }
//! ```
//!
//! # What it does not do
//!
//! It does not bound a call with neither `grpc-timeout` nor a configured limit, and it cannot stop
//! the server: it sends the remaining time (`grpc-timeout`) and resets the stream. A caller that
//! has begun a bidirectional stream and waits for an answer before it sends more cannot be
//! distinguished from one that has nothing to send: give such a call a deadline.

mod asked;
mod attempt;
mod body;
mod bound;
mod call;
mod limits;
mod messages;
mod readied;
mod server;
mod stage;
mod timer;
mod upload;

pub use attempt::{AttemptLimit, AttemptTimeout, AttemptTimeoutLayer, AttemptTimeoutSettings};
pub use call::{CallDeadline, CallDeadlineLayer, CallDeadlineSettings};
pub use cinchona_plumbing::{Elapsed, ResponseBody};
pub use readied::ResponseFuture;
pub use server::{ServerDeadline, ServerDeadlineLayer, ServerDeadlineSettings, ServerFuture};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests;
