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
//! Around an axum router it is `routes.into_axum_router().layer(layers)`, with what axum serves
//! beside gRPC.
//!
//! # What is there
//!
//! | type | what it is |
//! |---|---|
//! | [`Settings`] | plain data: what each layer does, and which of them are on |
//! | [`Layers`] | the running layers, and a tower `Layer` that puts them around a server |
//! | [`Part`] | the name of a layer: [`Settings::with_mode`], [`Layers::switch`] |
//!
//! # The order, outermost first
//!
//! | [`Part`] | why there | by default |
//! |---|---|---|
//! | [`Call`](Part::Call) | counts what callers see | on |
//! | [`Status`](Part::Status) | a status that does not fit costs its connection | on |
//! | the drain | nothing outlives the server | always |
//! | [`Panics`](Part::Panics) | a panic answers `INTERNAL`, and costs one call | on |
//! | [`Quota`](Part::Quota) | a caller over its quota is refused, and costs nobody else | off |
//! | [`Shed`](Part::Shed) | what is too much must not slow down the rest | on |
//! | [`Deadline`](Part::Deadline) | work that nobody waits for is dropped | on |
//! | [`Faults`](Part::Faults) | what is injected looks as if the service had done it | off |
//! | [`Dedup`](Part::Dedup) | what fails above it is answered again | off |
//!
//! # Authorization
//!
//! Whatever authorizes callers stands **outside** of these layers, or at least of dedup: an answer
//! that is given again does not reach the service, so a check in a service's interceptor is not
//! made for it. Put it around them (`Server::builder().layer(auth).layer(layers)`), or let dedup
//! ask: `DedupLayer::with_authorize`.

mod layers;
mod panics;
mod part;
mod serve;
mod settings;

pub use layers::Layers;
pub use part::Part;
pub use serve::Serve;
pub use settings::Settings;
