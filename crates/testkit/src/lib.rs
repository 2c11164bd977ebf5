//! Tests of tonic clients in virtual time: an in-memory network, scripted servers, faults by rules,
//! and the client's logs and attempts.
//!
//! # My client survives two UNAVAILABLE and a stall
//!
//! The real client, the real server and HTTP/2 between them; tokio's clock is paused, so idle
//! seconds take no time:
//!
//! ```
//! use cinchona::client::Settings;
//! use cinchona_testkit::{ClientFaultLayer, Ledgers, Network, Rules};
//! # use cinchona::core::Methods;
//! # use example_proto::greeter::{
//! #     HelloReply, HelloRequest, greeter_client::GreeterClient,
//! #     greeter_server::{Greeter, GreeterServer},
//! # };
//! # use tonic::{Request, Response, Status};
//! # struct MyGreeter;
//! # #[tonic::async_trait]
//! # impl Greeter for MyGreeter {
//! #     async fn say_hello(
//! #         &self,
//! #         _: Request<HelloRequest>,
//! #     ) -> Result<Response<HelloReply>, Status> {
//! #         Ok(Response::new(HelloReply::default()))
//! #     }
//! # }
//! #
//! # /*
//! #[tokio::test(start_paused = true)]
//! # */
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() { survives().await.unwrap() }
//! async fn survives() -> Result<(), Box<dyn std::error::Error>> {
//!     # let methods = Methods::from_file_descriptor_set(example_proto::DESCRIPTORS)?;
//!     let (network, ledgers) = (Network::new(), Ledgers::new());
//!     let _serving = network.serve_service(GreeterServer::new(MyGreeter));
//!     let faults = Rules::default()
//!         .with("fails twice", "first=2 status=UNAVAILABLE".parse()?)
//!         .with("then stalls", "first=1 hang".parse()?);
//!     let faulty = ClientFaultLayer::from(faults).around(network.channel());
//!     let channel = ledgers.around(Settings::new(methods).layers()?.around(faulty));
//!     GreeterClient::new(channel).say_hello(HelloRequest::default()).await?;
//!     assert_eq!(ledgers.last().unwrap().attempts().len(), 4);
//!     Ok(())
//! }
//! ```
//!
//! # What is there
//!
//! | type | what it is for |
//! |---|---|
//! | [`Network`] | a client and a server in memory; latency, connections that end or fall silent |
//! | [`ScriptedServer`] | the nth request gets the nth [`Answer`]; what it [`Received`] is kept |
//! | [`ClientFaultLayer`], [`Rules`] | faults in front of a channel, by [`Rule`]s (gRFC A33) |
//! | [`Ledgers`] | each attempt of each call, and why there was not another |
//! | [`Logs`] | the `tracing` events of the test |
//! | [`history`] | whether the answers of concurrent calls can be explained by one order of them |
//! | [`Redis`] | the test's own `redis-server`, if installed |
//!
//! None of them requires cinchona in the client under test: a generated client over
//! [`Network::channel`], or over your own tower layers, is tested alike.
//!
//! # Rule
//!
//! * A test runs on one thread, with tokio's clock paused: `#[tokio::test(start_paused = true)]`,
//!   which needs tokio's feature `test-util` among the dev-dependencies. The clock then jumps to
//!   the next timer whenever all tasks wait.
//! * Nothing here draws a random number, reads a wall clock or opens a socket, except [`Redis`]:
//!   with a seed for the client's random numbers (`Settings::with_rng`), two runs are the same.
//! * Guards keep things running: dropping [`Serving`] ends its server, and dropping [`Logs`] ends
//!   the capture.
//!
//! # A script, and when it was played
//!
//! ```
//! use cinchona_testkit::{Answer, Network, ScriptedServer};
//! use example_proto::greeter::{HelloReply, HelloRequest, greeter_client::GreeterClient};
//! use std::time::Duration;
//! use tokio::time::Instant;
//! use tonic::{Code, Status};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let network = Network::new();
//! network.set_latency(Duration::from_millis(5));
//! let server = ScriptedServer::new([
//!     Answer::from(Status::aborted("once")).after(Duration::from_millis(30)),
//!     Answer::message(&HelloReply { message: "hello".into() }),
//! ]);
//! let _serving = network.serve_service(server.clone());
//! let mut client = GreeterClient::new(network.channel());
//!
//! let begun = Instant::now();
//! let request = HelloRequest { name: "world".into() };
//! let failed = client.say_hello(request.clone()).await.unwrap_err();
//! assert_eq!(failed.code(), Code::Aborted);
//! // One round trip to connect, one to call, and the server's own delay.
//! assert_eq!(Instant::now() - begun, Duration::from_millis(10 + 10 + 30));
//!
//! let reply = client.say_hello(request.clone()).await.unwrap();
//! assert_eq!(reply.into_inner().message, "hello");
//! let received = server.received();
//! assert_eq!(received[1].path, "/greeter.Greeter/SayHello");
//! assert_eq!(received[1].message::<HelloRequest>(), Some(request));
//! # }
//! ```
//!
//! # What it does not do
//!
//! * The network loses no bytes, reorders none and has no bandwidth limit: a write never waits, and
//!   held bytes arrive later, as with TCP. tokio's timer rounds a latency below a millisecond up.
//! * It has one server, and `cinchona::client::Settings::connect` uses sockets. The balancer can
//!   use it by `Balance::with_connector(targets, network.connector(), options)`; your own connector
//!   can choose among several networks by the URI.
//! * It has no TLS.

pub mod history;
mod ledgers;
mod logs;
mod net;
mod redis;
mod script;
mod wire;

pub use cinchona_fault::{ClientFault, ClientFaultLayer, Malformed, Rule, Rules};
pub use cinchona_retry::Ledger;
pub use ledgers::{Captured, Ledgers};
pub use logs::{Event, Logs, subscribe};
pub use net::{Connector, Incoming, Network, Serving};
pub use redis::Redis;
pub use script::{Answer, Received, ScriptedServer, encode};
pub use wire::Connection;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
