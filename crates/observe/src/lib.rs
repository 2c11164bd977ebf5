//! The calls of a tonic client and server, as gRPC's own metrics and as spans.
//!
//! # Why
//!
//! A stack that retries hides failures: the application sees one call where the servers saw four.
//! So calls and attempts are counted separately, under gRPC's names for all languages ([gRFC A66],
//! [gRFC A96]), and each call is a span with a child for each attempt.
//!
//! # Rule
//!
//! ```text
//! client: CallLayer → deadline → retry → AttemptLayer → attempt timeout → Channel
//! server: ServerLayer → all else → the service
//! ```
//!
//! * The measurement of a call is in a box that its thread reuses, with the handles of the method
//!   that was called last; each thread counts for itself.
//! * The status of a call is that of its trailers; dropped before them, it is `CANCELLED`.
//! * Other layers are registered ([`Metrics::register`]), and the application's numbers as closures
//!   ([`Metrics::gauge`], [`Metrics::gauges`]); both are read on demand. This crate knows none of
//!   them.
//! * W3C trace context is propagated in `traceparent` and `tracestate` ([`TraceContext`]).
//!
//! # Example
//!
//! ```
//! use cinchona_core::Methods;
//! use cinchona_observe::{AttemptLayer, CallLayer, Metrics};
//! use tonic::{Status, body::Body};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! let down = service_fn(|_: http::Request<Body>| async {
//!     Ok::<_, tonic::transport::Error>(Status::unavailable("draining").into_http::<Body>())
//! });
//! let metrics = Metrics::new(Methods::unknown());
//! // Between the two there would be retries.
//! let attempts = AttemptLayer::new(&metrics, "dns:///calculator").layer(down);
//! let client = CallLayer::new(&metrics, "dns:///calculator").layer(attempts);
//!
//! let mut request = http::Request::new(Body::empty());
//! *request.uri_mut() = http::Uri::from_static("http://server/calculator.Calculator/Add");
//! // Generated clients do this.
//! request.extensions_mut().insert(tonic::GrpcMethod::new("calculator.Calculator", "Add"));
//! client.oneshot(request).await.unwrap();
//!
//! let labels = "grpc_method=\"calculator.Calculator/Add\",grpc_target=\"dns:///calculator\"";
//! let text = metrics.render();
//! let attempts = format!("grpc_client_attempt_started_total{{{labels}}} 1\n");
//! assert!(text.contains(&attempts));
//! let status = "grpc_status=\"UNAVAILABLE\"";
//! let calls = format!("grpc_client_call_duration_seconds_count{{{labels},{status}}} 1\n");
//! assert!(text.contains(&calls));
//! # }
//! ```
//!
//! # What it costs
//!
//! On the happy path, spans included that no subscriber wants: some 0.3 µs for [`CallLayer`] and
//! [`AttemptLayer`] together, 0.2 µs for [`ServerLayer`], and for either one allocation, the place
//! of the call's record in the request's extensions; 46 ns of each are two looks at the clock. A
//! request whose length is not known in advance is counted while it is read, for one allocation
//! and 40 ns more (`cargo xtask bench observe`, `src/tests/cost.rs`).
//!
//! # What it does not do
//!
//! It serves no page and exports nothing by itself: [`Metrics::render`] is Prometheus's text, and
//! the spans are `tracing`'s, with the fields by which `tracing-opentelemetry` names them.
//! The ids in `traceparent` are this crate's own, in the fields `trace_id` and `span_id`.
//! `grafana.json` beside this crate's manifest is a dashboard of it.
//!
//! [gRFC A66]: https://github.com/grpc/proposal/blob/master/A66-otel-stats.md
//! [gRFC A96]: https://github.com/grpc/proposal/blob/master/A96-retry-otel-stats.md

mod callback;
mod collect;
mod counts;
mod ending;
mod histogram;
mod known;
mod layers;
mod measurement;
mod merged;
mod metric;
mod metrics;
mod names;
mod observation;
mod observed;
mod owner;
mod place;
mod registry;
mod render;
mod samples;
mod series;
mod shard;
mod size;
mod source;
mod sources;
mod spans;
mod sync;
mod trace;

pub use cinchona_plumbing::ResponseBody;
pub use layers::{
    AttemptLayer, AttemptSettings, CallLayer, CallSettings, ServerLayer, ServerSettings,
};
pub use metric::{Metric, Value};
pub use metrics::Metrics;
pub use observed::{Observed, ResponseFuture};
pub use owner::Owner;
pub use samples::Samples;
pub use trace::{Serving, TraceContext};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests;
