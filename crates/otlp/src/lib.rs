//! Sends the spans and metrics of a tonic client and server, and the application's spans around
//! them, to an [OpenTelemetry] collector by OTLP over gRPC.
//!
//! # Why
//!
//! A call that was retried is understood when its attempts are seen beside the servers' work on
//! them, from many processes on one time line. `cinchona-observe` makes the spans, and propagates
//! the trace between processes; this crate sends them to the collector, and the metrics too
//! ([`export_metrics`]), where no scraper can reach the process.
//!
//! # Rule
//!
//! * The spans of `cinchona-observe` are exported under their own ids, those in `traceparent`: so a
//!   server's span has the attempt's as its parent, whichever process exports it.
//! * All other spans are exported too, each under its parent; calls made within them belong to
//!   their trace.
//! * A trace whose `traceparent` has the sampled flag unset is not sent (OpenTelemetry's sampler
//!   `ParentBased(AlwaysOn)`).
//! * A log event in a span is an event of it, up to the first 128.
//! * No call waits for the collector: up to 2,048 spans are queued. A batch is 512 spans, or those
//!   of one second; it is sent up to three times, where OTLP has a client retry the answer, and not
//!   before the time that the collector asks for (`RetryInfo`, or `grpc-retry-pushback-ms`; at most
//!   60 s). Spans beyond that, or refused, are lost and counted ([`Exporter::lost`]).
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
//! No TLS of its own: use a collector as a sidecar, or a given channel ([`export_over`]). No
//! sampling of its own: that is the collector's task. Spans of `h2` and `hyper`, which carry the
//! export, are not sent. Metrics have no exemplars.
//!
//! [OpenTelemetry]: https://opentelemetry.io/docs/specs/otlp/

mod attributes;
mod clock;
mod export;
mod layer;
mod metrics;
mod queue;

pub use export::{CollectorChannel, Exporter, export, export_over};
pub use layer::OtlpLayer;
pub use metrics::{MetricsExporter, export_metrics, export_metrics_over};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests;
