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
//! `methods` is `Methods::from_file_descriptor_set(DESCRIPTORS)?`, from the .proto; without it
//! (`Methods::unknown()`) only requests that provably were not processed are retried.
//!
//! # What is there
//!
//! | type | what it is |
//! |---|---|
//! | [`Settings`] | plain data: the settings of each layer, and which are on |
//! | [`Channel`] | what a generated client takes: `OrdersClient<cinchona::Channel>` |
//! | [`Layers`] | the running layers: their counters, and how to change them while calls run |
//! | [`Part`] | the name of a layer: [`Settings::with_mode`], [`Layers::switch`] |
//! | [`CallOptions`] | options of one call, as an extension of its request |
//!
//! # The order, outermost first
//!
//! * [`Call`](Part::Call) counts what the application sees.
//! * [`Key`](Part::Key): one key for all attempts. Off by default, as the server must recognise
//!   keys ([`Settings::with_keys`]).
//! * [`Limits`](Part::Limits): a message that is too large is so on each attempt. No limit until
//!   one is set.
//! * [`Deadline`](Part::Deadline): the caller gets an answer in time whatever the layers below do,
//!   30 s by default.
//! * [`Fallback`](Part::Fallback): the second answer is for calls that have failed after all
//!   retries. None until it is set.
//! * [`Bulkhead`](Part::Bulkhead): a call that waits between attempts holds its caller's resources,
//!   too. 1,000 calls and 10,000 streams by default.
//! * [`Retry`](Part::Retry), around the attempt's limit: an attempt that takes too long has failed.
//!   3 retries by default.
//! * [`Attempt`](Part::Attempt) counts each attempt.
//! * [`Throttle`](Part::Throttle): each attempt is a request to the server. Off by default.
//! * [`Timeout`](Part::Timeout) of an attempt: waiting for a connection counts. 10 s by default.
//! * The balancer picks an endpoint for each attempt.
//! * [`Breaker`](Part::Breaker), one for each endpoint; it opens only in an outage of the endpoint.
//!
//! # Around your own channel
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
//! `OrdersClient::with_interceptor(channel, f)` calls `f` once for each call, around the retries;
//! so do tower's layers around a [`Channel`]. An interceptor for each attempt, such as for a token
//! that expires, belongs below: put [`Layers::around`] a service that adds it.

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
