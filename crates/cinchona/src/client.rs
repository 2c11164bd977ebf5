//! A whole client: every layer, in the right order, behind one type.
//!
//! ```
//! use cinchona::core::Methods;
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), cinchona::core::Invalid> {
//! # let methods = Methods::unknown();
//! let channel = cinchona::client::Settings::new(methods) // which methods may run twice
//!     .with_deadline(Duration::from_secs(10))
//!     .connect("http://orders.internal:50051")?;
//! // let mut orders = OrdersClient::new(channel);
//! # drop(channel);
//! # Ok(())
//! # }
//! ```
//!
//! `methods` is `Methods::from_file_descriptor_set(DESCRIPTORS)?`, what the .proto says; without it
//! (`Methods::unknown()`) only what provably was not processed is retried.
//!
//! # What is there
//!
//! | type | what it is |
//! |---|---|
//! | [`Settings`] | plain data: what each layer does, and which of them are on |
//! | [`Channel`] | what a generated client takes: `OrdersClient<cinchona::Channel>` |
//! | [`Layers`] | the running layers: what they count, and what changes them while calls run |
//! | [`Part`] | the name of a layer: [`Settings::with_mode`], [`Layers::switch`] |
//! | [`CallOptions`] | what one call does otherwise, as an extension of its request |
//!
//! # The order, outermost first
//!
//! * [`Call`](Part::Call) counts what the application sees.
//! * [`Key`](Part::Key): one key for all attempts. Off by default, as the server must recognise
//!   keys ([`Settings::with_keys`]).
//! * [`Limits`](Part::Limits): what is too large is so each time. No limit until one is set.
//! * [`Deadline`](Part::Deadline): whatever goes on below, the caller gets an answer in time, 30 s
//!   by default.
//! * [`Fallback`](Part::Fallback): the second answer is for when the retries have given up. None
//!   until it is set.
//! * [`Bulkhead`](Part::Bulkhead): waits between attempts hold what the caller has, too. 1,000
//!   calls and 10,000 streams by default.
//! * [`Retry`](Part::Retry), around the attempt's limit: an attempt that takes too long has failed.
//!   3 retries by default.
//! * [`Attempt`](Part::Attempt) counts each attempt.
//! * [`Throttle`](Part::Throttle): each attempt is a request to the server. Off by default.
//! * [`Timeout`](Part::Timeout) of an attempt: waiting for a connection counts. 10 s by default.
//! * The balancer picks an endpoint for each attempt.
//! * [`Breaker`](Part::Breaker), one for each endpoint; it opens only where nothing succeeds.
//!
//! # Around a channel of one's own
//!
//! [`Layers`] is a tower `Layer`, for a `tonic::transport::Channel` or any other client: without
//! the balancer, and so without a breaker for each endpoint.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use cinchona::{Channel, client::Settings, core::Methods};
//!
//! let own = tonic::transport::Endpoint::from_static("http://orders.internal:50051");
//! let layers = Settings::new(Methods::unknown()).layers()?;
//! let channel: Channel<tonic::transport::Channel> = layers.around(own.connect_lazy());
//! # drop(channel);
//! # Ok(())
//! # }
//! ```
//!
//! # Interceptors
//!
//! `OrdersClient::with_interceptor(channel, f)` asks `f` once for each call, around the retries;
//! so do tower's layers around a [`Channel`]. What is to be asked for each attempt, such as a token
//! that expires, belongs below: [`Layers::around`] a service that adds it.

mod call_options;
mod channel;
mod checks;
mod config;
mod endpoints;
mod layers;
mod part;
mod settings;

pub use call_options::CallOptions;
pub use channel::{Channel, ResponseFuture};
pub use endpoints::Endpoints;
pub use layers::Layers;
pub use part::Part;
pub use settings::Settings;

#[doc(hidden)]
pub use endpoints::kind;
