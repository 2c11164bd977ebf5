//! A live page of what the resilience of a tonic client or server is doing, and a console for its
//! faults.
//!
//! # Why
//!
//! A breaker that opens, a retry budget that runs dry and a node that is lost are seen best while
//! it happens, side by side, with nothing installed but a browser.
//!
//! # Rule
//!
//! * [`Dashboard`] knows no policy: it asks the application, each 500 ms that somebody looks, for
//!   its [`Tile`]s and its [`Map`]. When nobody looks, it asks for nothing, and costs nothing.
//! * What happened goes into the [`Feed`], which keeps the last 200 lines.
//! * Everybody that can reach it can read it. Faults ([`Console`]) are changed from loopback only,
//!   and not through a proxy; with a token, from anywhere with the token, and from nowhere without
//!   it ([`Trust`](cinchona_plumbing::Trust)).
//! * A change is a `POST` of JSON, of at most 64 KiB, from no other origin. The `Host` of every
//!   request is a name of loopback or the address it came in at, so that no name that somebody
//!   else resolves leads here (DNS rebinding).
//! * A connection sends its request's head within 10 s, of at most 100 headers and 32 KiB, and is
//!   closed when it has been idle for 10 s. There are at most 256 connections and 32 streams of
//!   events, and 64 and 16 of one address (of IPv6, of one /64). The newest always gets its place:
//!   from the oldest of the address that has the most. So strangers do not lock the operator out.
//! * All that it serves is compiled in: it opens no file.
//!
//! | path | what it is |
//! |---|---|
//! | `GET /` | the page; `/app.js` and `/app.css` with it |
//! | `GET /events` | server-sent events: the state each 500 ms |
//! | `GET /api/state` | the state once, as JSON |
//! | `GET /metrics` | the application's metrics, in Prometheus' text format |
//! | `POST /api/faults` | `{"id": "slow", "rule": "delay=1s ttl=60s"}` sets a rule |
//! | `POST /api/faults/remove` | `{"id": "slow"}` removes it |
//! | `POST /api/faults/clear` | `{}` removes all |
//! | `POST /api/faults/switch` | `{"mode": "enforce"}`, or `shadow`, or `off` |
//!
//! A change is answered by 204, or by what is wrong with it as plain text: 400 when it is no JSON
//! or lacks a field, 401 without the token, 403 from elsewhere, 404 without a console, 413 over 64
//! KiB, 415 when it does not say that it is JSON, 422 when the console refuses it.
//!
//! # Example
//!
//! ```
//! use cinchona_dashboard::{Dashboard, Feed, Health, Tile};
//! use tokio::{io::{AsyncReadExt, AsyncWriteExt}, net::{TcpListener, TcpStream}};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! let feed = Feed::new();
//! let dashboard = Dashboard::new().events(feed.clone()).tiles(|| {
//!     vec![Tile {
//!         state: "open".into(),
//!         health: Health::Bad,
//!         numbers: vec![("failures".into(), 61.0, "%")],
//!         ..Tile::new("breaker", "eu-1")
//!     }]
//! });
//! feed.push("breaker eu-1 opened");
//!
//! let listener = TcpListener::bind("127.0.0.1:0").await?;
//! let address = listener.local_addr()?;
//! tokio::spawn(dashboard.serve(listener, std::future::pending()));
//!
//! let mut stream = TcpStream::connect(address).await?;
//! let request = "GET /api/state HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
//! stream.write_all(request.as_bytes()).await?;
//! let mut response = String::new();
//! stream.read_to_string(&mut response).await?;
//! assert!(response.contains(r#""name":"eu-1","state":"open","health":"bad""#));
//! assert!(response.contains("breaker eu-1 opened"));
//! # Ok(())
//! # }
//! ```
//!
//! # What it does not do
//!
//! It speaks no TLS, and not the PROXY protocol, and keeps no history but what the page draws (the
//! last 60 values, 30 s). It is for operators, not for the internet: a client with many addresses
//! can still take the place of others, again and again.

mod console;
mod dashboard;
mod feed;
mod guard;
mod http;
mod map;
mod metrics;
mod places;
mod serve;
mod tile;

pub use console::{Console, FaultRule};
pub use dashboard::Dashboard;
pub use feed::Feed;
pub use map::{Link, Map, Spot};
pub use tile::{Health, Tile};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests;
