//! Load shedding for tonic: calls beyond a service's capacity are refused immediately.
//!
//! # Why
//!
//! A server that admits more calls than it can answer answers none in time: they all queue, their
//! callers give up and retry, and it works on abandoned calls. One that refuses the excess keeps
//! its throughput.
//!
//! # Rule
//!
//! * [`ShedLayer`] (server) limits the calls in flight, by a fixed number or adaptively
//!   ([`Adaptive`]). A call is in flight from when its request is complete until its response
//!   begins; streams count separately, so that none of them takes the place of a short call.
//! * A call without a place waits in a short [`Queue`]: at most 100 ms, and 5 ms while the queue
//!   has not been empty for 100 ms and each place was given five times; then the newest goes first.
//!   More critical calls go before less critical ones ([`Criticality`]).
//! * A refused call gets `UNAVAILABLE` and a pushback: it was not processed, and another server may
//!   have room. Health checks and reflection are always admitted.
//! * [`RateLimitLayer`] (server) gives each caller a quota. A call beyond it gets
//!   `RESOURCE_EXHAUSTED` and a pushback that forbids retries: every server would refuse it.
//! * [`StatusLimitLayer`] (server) cuts statuses that are too large for HTTP/2 headers.
//! * [`BulkheadLayer`] (client) limits the calls that this client has in flight.
//! * [`AdaptiveThrottleLayer`] (client) fails calls locally, with a probability that grows with the
//!   share that the server refuses (Site Reliability Engineering, chapter 21).
//!
//! # Example
//!
//! ```
//! use cinchona_shed::{Limit, Queue, ShedSettings};
//! use std::{convert::Infallible, future::pending};
//! use tonic::{Code, Status, body::Body};
//! use tower::{Layer, Service, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let busy = service_fn(|_: http::Request<Body>| {
//!     pending::<Result<http::Response<Body>, Infallible>>()
//! });
//! let shed = ShedSettings::new(Limit::Fixed(1)).unwrap().with_queue(Queue::none()).layer();
//! let mut service = shed.layer(busy);
//! let _first = service.ready().await.unwrap().call(http::Request::new(Body::empty()));
//! let second = service.ready().await.unwrap().call(http::Request::new(Body::empty())).await;
//! let status = Status::from_header_map(second.unwrap().headers()).unwrap();
//! assert_eq!(status.code(), Code::Unavailable);
//! let seen = shed.counters();
//! assert_eq!((seen.in_progress, seen.shed), (1, 1));
//! # }
//! ```
//!
//! # What it does not do
//!
//! It does not know the other servers: where all of them refuse calls, clients must send less.

mod arrival;
mod body;
mod bound;
mod bulkhead;
mod criticality;
mod entry;
mod layer;
mod metrics;
mod places;
mod rate;
mod service;
mod shared;
mod throttle;

pub use bound::{
    StatusLimit, StatusLimitCounters, StatusLimitFuture, StatusLimitLayer, StatusLimitSettings,
};
pub use bulkhead::{Bulkhead, BulkheadCounters, BulkheadFuture, BulkheadLayer, BulkheadSettings};
pub use cinchona_plumbing::ResponseBody;
#[doc(inline)]
pub use cinchona_policy::concurrency::{Adaptive, Limit, Queue};
pub use criticality::{CRITICALITY, Criticality};
pub use layer::{ShedCounters, ShedLayer, ShedSettings};
pub use rate::{RateLimit, RateLimitCounters, RateLimitFuture, RateLimitLayer, RateLimitSettings};
pub use service::{ResponseFuture, Shed};
pub use throttle::{
    AdaptiveThrottle, AdaptiveThrottleCounters, AdaptiveThrottleLayer, AdaptiveThrottleSettings,
    ThrottleFuture,
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests;
