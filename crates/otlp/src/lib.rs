//! The spans and metrics of a tonic client and server, and the spans of the application around
//! them, sent to an [OpenTelemetry] collector by OTLP over gRPC.
//!
//! # Why
//!
//! A call that was retried is understood when its attempts are seen beside what the servers did
//! with them, from many processes on one line of time. `cinchona-observe` has the spans, and
//! carries the trace from one process to the next; this sends them to where they are put together,
//! and the metrics too ([`export_metrics`]), where nobody comes to scrape them.
//!
//! # Rule
//!
//! * The spans of `cinchona-observe` are exported under their own ids, those in `traceparent`: so
//!   the span of a server has the attempt's as its parent, wherever each was exported from.
//! * All other spans are exported too, each under the one it is in; calls that are made in them
//!   belong to their trace.
//! * A trace whose `traceparent` says that its caller does not record it is not sent
//!   (OpenTelemetry's sampler `ParentBased(AlwaysOn)`).
//! * What is logged in a span is an event of it, the first 128.
//! * Nobody waits for the collector: up to 2,048 spans are kept for it. A batch is 512 spans, or
//!   what there is after a second; it is sent up to three times, where the answer is one that OTLP
//!   has a client repeat, and not before the time that the collector asks for (`RetryInfo`, or
//!   `grpc-retry-pushback-ms`; at most 60 s). What is beyond that, or was refused, is lost and
//!   counted ([`Exporter::lost`]).
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//! use tracing_subscriber::layer::SubscriberExt;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), cinchona_core::Invalid> {
//! let (layer, exporter) = cinchona_otlp::export("http://127.0.0.1:4317", "calculator")?;
//! let subscriber = tracing_subscriber::registry().with(layer);
//! tracing::subscriber::with_default(subscriber, || {
//!     tracing::info_span!("checkout").in_scope(|| tracing::info!("paid"));
//! });
//! assert_eq!(exporter.lost(), 0, "it is kept for the collector");
//! // Before the program ends.
//! if let Err(status) = exporter.flush(Duration::from_secs(3)).await {
//!     eprintln!("{status}: {} spans are lost", exporter.lost());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What it does not do
//!
//! No TLS of its own: a collector is a sidecar, or is reached through a channel that is given
//! ([`export_over`]). No sampling of its own: that is for the collector. Spans of `h2` and `hyper`,
//! which carry the others, are not sent. Metrics have no exemplars.
//!
//! [OpenTelemetry]: https://opentelemetry.io/docs/specs/otlp/

mod clock;
mod export;
mod layer;
mod metrics;
mod queue;
mod told;

pub use export::{CollectorChannel, Exporter, export, export_over};
pub use layer::OtlpLayer;
pub use metrics::{MetricsExporter, export_metrics, export_metrics_over};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests;
