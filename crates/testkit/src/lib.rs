//! An in-memory network in virtual time, servers that answer by a script, the logs of a test, and a
//! Redis; and whether a [`history`] of calls can be explained.
//!
//! # Why
//!
//! What a resilience layer does is seen only when a peer is slow, silent or gone. Sockets can show
//! that only in real time and never twice alike; here the real tonic client and server talk through
//! memory, on tokio's clock, so that a minute takes a millisecond and two runs are the same.
//!
//! # Rule
//!
//! Run on a current-thread runtime with paused time: `#[tokio::test(start_paused = true)]`.
//! Nothing here draws a random number, reads a wall clock or opens a socket, but [`Redis`].
//!
//! # Example
//!
//! ```
//! use cinchona_testkit::{Answer, Network, ScriptedServer, encode};
//! use std::time::Duration;
//! use tokio::time::Instant;
//! use tonic::{Status, body::Body};
//! use tower::ServiceExt as _;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let net = Network::new();
//! net.set_latency(Duration::from_millis(5));
//! let server = ScriptedServer::new([
//!     Answer::After(Duration::from_millis(30), Box::new(Answer::Status(Status::aborted("once")))),
//!     Answer::Ok(encode(&7_u32)),
//! ]);
//! let _serving = net.serve_service(server.clone());
//!
//! let request = http::Request::post("/calculator.Calculator/Add").body(Body::empty()).unwrap();
//! let begun = Instant::now();
//! let response = net.channel().oneshot(request).await.unwrap();
//!
//! // One round trip to connect, one to call, and the server's own delay.
//! assert_eq!(Instant::now() - begun, Duration::from_millis(10 + 10 + 30));
//! assert_eq!(response.headers()["grpc-status"], "10");
//! assert_eq!(server.received()[0].path, "/calculator.Calculator/Add");
//! # }
//! ```
//!
//! # What it does not do
//!
//! It loses no bytes, reorders none and has no bandwidth: a write never waits, and what is held
//! comes out again, as with TCP. Sub-millisecond latencies are rounded up by tokio's timer.

pub mod history;
mod logs;
mod net;
mod redis;
mod script;
mod wire;

pub use logs::{Event, Logs, subscribe};
pub use net::{Connector, Incoming, Network, Serving};
pub use redis::Redis;
pub use script::{Answer, Received, ScriptedServer, encode};
pub use wire::Connection;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
