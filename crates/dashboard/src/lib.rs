//! A live page of the resilience layers of a tonic client or server, and a console for its faults.
//!
//! # Why
//!
//! A breaker that opens, a retry budget that runs dry and a node that is lost are seen best while
//! it happens, side by side, with no tool but a browser.
//!
//! # Rule
//!
//! * [`Dashboard`] knows no policy: each 500 ms per connected page it asks the application for its
//!   [`Tile`]s and its [`Map`]. While no page is connected, it asks for nothing, and costs nothing.
//! * Events go into the [`Feed`], which keeps the last 200 lines.
//! * Every client that reaches the address can read. Faults ([`Console`]) can be changed from
//!   loopback only, and not through a proxy; with a token configured, from any address, but only
//!   with the token ([`Trust`](cinchona_plumbing::Trust)).
//! * A change is a `POST` of JSON, of at most 64 KiB, from the same origin. The `Host` of every
//!   request, for `/metrics` as well, must be a name of loopback, the address at which it arrived,
//!   or a name that the dashboard was given ([`Dashboard::with_hosts`]); else the answer is 421. So
//!   no page whose DNS name leads here (DNS rebinding) reads it.
//! * A connection must send its request's head within 10 s, of at most 100 headers and 32 KiB, and
//!   is closed after 10 s idle. There are at most 256 connections and 32 streams of events, and 64
//!   and 16 of one address (of IPv6, of one /64). The newest connection always gets a place: the
//!   oldest one of the address with the most connections is closed. So other clients cannot lock
//!   the operator out.
//! * Everything that it serves is compiled in: it opens no file.
//!
//! | path | content |
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
//! A change is answered by 204, or by an error as plain text: 400 when it is not JSON or lacks a
//! field, 401 without the token, 403 from a disallowed address, 404 without a console, 413 over 64
//! KiB, 415 when its content type is not JSON, 422 when the console refuses it.
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
//! It speaks neither TLS nor the PROXY protocol, and keeps no history but what the page draws (the
//! last 60 values, 30 s). It is for operators, not for the internet: a client with many addresses
//! can still repeatedly displace others.

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
