//! Load shedding for tonic: what is more than a service can do is turned away at once.
//!
//! # Why
//!
//! A server that takes in more calls than it can answer answers none in time: they all wait, their
//! callers give up and try again, and it works on for nobody. One that turns away what is too much
//! goes on doing as much as it ever could.
//!
//! # Rule
//!
//! * [`ShedLayer`] (server) limits the calls in progress, by a number or by one that finds itself
//!   ([`Adaptive`]). A call is in progress from when its request is complete until its response
//!   begins; streams count apart, so that none of them keeps a short call from its place.
//! * A call that finds no place waits in a short [`Queue`]: at most 100 ms, and 5 ms where it has
//!   not been empty for 100 ms and each place was given five times; then the newest first. The more
//!   critical go before the less ([`Criticality`]).
//! * A call that is refused gets `UNAVAILABLE` and a pushback: it was not processed, and another
//!   server may have room. Health checks and reflection are let in always.
//! * [`RateLimitLayer`] (server) gives each caller a quota. Over it, the answer is
//!   `RESOURCE_EXHAUSTED` and not to retry: it would be the same everywhere.
//! * [`StatusLimitLayer`] (server) cuts statuses that are too large for HTTP/2 headers.
//! * [`BulkheadLayer`] (client) limits the calls that this client has under way.
//! * [`AdaptiveThrottleLayer`] (client) turns calls away by itself, with a probability that grows
//!   with the share of those that the server turns away (Site Reliability Engineering, chapter 21).
//!
//! # Example
//!
//! ```
//! use cinchona_shed::{Limit, Queue, ShedLayer};
//! use std::{convert::Infallible, future::pending};
//! use tonic::{Code, Status, body::Body};
//! use tower::{Layer, Service, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let busy = service_fn(|_: http::Request<Body>| {
//!     pending::<Result<http::Response<Body>, Infallible>>()
//! });
//! let shed = ShedLayer::new(Limit::Fixed(1)).unwrap().with_queue(Queue::none());
//! let mut service = shed.layer(busy);
//! let _first = service.ready().await.unwrap().call(http::Request::new(Body::empty()));
//! let second = service.ready().await.unwrap().call(http::Request::new(Body::empty())).await;
//! let status = Status::from_header_map(second.unwrap().headers()).unwrap();
//! assert_eq!(status.code(), Code::Unavailable);
//! assert_eq!((shed.in_progress(), shed.shed()), (1, 1));
//! # }
//! ```
//!
//! # What it does not do
//!
//! It does not know the other servers: where all of them turn calls away, clients must send less.

mod adaptive;
mod arrival;
mod body;
mod bound;
mod bulkhead;
mod criticality;
mod entry;
mod gradient;
mod layer;
mod limit;
mod limiter;
mod measured;
mod metrics;
mod places;
mod rate;
mod service;
mod shared;
mod sync;
mod throttle;
mod waiting;

pub use adaptive::Adaptive;
pub use bound::{StatusLimit, StatusLimitFuture, StatusLimitLayer};
pub use bulkhead::{Bulkhead, BulkheadFuture, BulkheadLayer};
pub use cinchona_plumbing::ResponseBody;
pub use criticality::{CRITICALITY, Criticality};
pub use layer::ShedLayer;
pub use limit::{Limit, Queue};
pub use rate::{RateLimit, RateLimitFuture, RateLimitLayer};
pub use service::{ResponseFuture, Shed};
pub use throttle::{AdaptiveThrottle, AdaptiveThrottleLayer, ThrottleFuture};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests;
