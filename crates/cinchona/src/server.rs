//! A whole server: every layer, in the right order, as one.
//!
//! ```
//! use cinchona::{core::Methods, server::Settings};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), cinchona::core::Invalid> {
//! # let methods = Methods::unknown();
//! let layers = Settings::new(methods).layers()?;
//! // let server = tonic::transport::Server::builder()
//! //     .layer(layers.clone())
//! //     .add_service(OrdersServer::new(orders))
//! //     .serve_with_incoming_shutdown(layers.drain.incoming(incoming), layers.drain.begun());
//! // layers.drain.serve(ctrl_c(), server).await
//! # drop(layers);
//! # Ok(())
//! # }
//! ```
//!
//! Around an axum router it is `routes.into_axum_router().layer(layers)`, with the routes that axum
//! serves beside gRPC. What a layer refuses of these, and what panics, is answered in the words of
//! HTTP: 429, 500, 503 or 504, with the reason as text, and `retry-after` where there is one. Once
//! an answer has begun, it is broken off.
//!
//! # What is there
//!
//! | type | what it is |
//! |---|---|
//! | [`Settings`] | plain data: the settings of each layer, and which are on |
//! | [`Layers`] | the running layers, and a tower `Layer` that puts them around a server |
//! | [`Part`] | the name of a layer: [`Settings::with_mode`], [`Layers::switch`] |
//!
//! # The order, outermost first
//!
//! | [`Part`] | why there | by default |
//! |---|---|---|
//! | [`Call`](Part::Call) | counts what callers see | on |
//! | [`Status`](Part::Status) | an oversized status would cost its connection | on |
//! | the drain | nothing outlives the server | always |
//! | [`Panics`](Part::Panics) | a panic answers `INTERNAL`, and costs one call | on |
//! | [`Quota`](Part::Quota) | a caller over its quota is refused before it costs others anything |
//!   off |
//! | [`Shed`](Part::Shed) | calls beyond the capacity must not slow down the rest | on |
//! | [`Deadline`](Part::Deadline) | work for callers that have given up is dropped | on |
//! | [`Faults`](Part::Faults) | an injected fault looks as if the service had it | off |
//! | [`Dedup`](Part::Dedup) | a call that failed above it can be answered again | off |
//!
//! # Authorization
//!
//! A layer that authorizes callers belongs **outside** of these layers, or at least of dedup: a
//! replayed answer does not reach the service, so a check in a service's interceptor does not apply
//! to it. Put it around them (`Server::builder().layer(auth).layer(layers)`), or let dedup check:
//! `DedupSettings::with_authorize`.

mod boxed;
mod layers;
mod others;
mod panics;
mod part;
mod serve;
mod settings;

pub use layers::Layers;
pub use others::ServeFuture;
pub use part::Part;
pub use serve::Serve;
pub use settings::Settings;
