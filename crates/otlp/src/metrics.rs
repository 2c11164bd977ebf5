//! Sends the metrics to the collector, all of them each time.

use crate::{
    attributes::text,
    clock::Clock,
    export::{self, CollectorChannel, LONGEST},
    queue::Asked,
};
use cinchona_core::Invalid;
use cinchona_observe::{Metric, Metrics, Value};
use cinchona_plumbing::{
    clock::period,
    status::{self, Pushback},
};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::{
        ExportMetricsServiceRequest, metrics_service_client::MetricsServiceClient,
    },
    common::v1::{InstrumentationScope, KeyValue},
    metrics::v1::{
        self as otlp, AggregationTemporality, Gauge, Histogram, HistogramDataPoint,
        NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point,
    },
    resource::v1::Resource,
};
use std::time::Duration;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};
use tonic::Status;
use tracing::{Dispatch, instrument::WithSubscriber};

/// Sends metrics until dropped.
#[derive(Clone, Debug)]
#[must_use = "nothing is sent once it is dropped"]
pub struct MetricsExporter(mpsc::Sender<Asked>);

/// The metrics, and the collector.
struct Sent<T> {
    metrics: Metrics,
    client: MetricsServiceClient<T>,
    resource: Resource,
    clock: Clock,
}

/// Sends all of `metrics` to the collector at `endpoint`, such as `http://127.0.0.1:4317`, under
/// the name of this `service`, in this interval (OpenTelemetry's default: 60 s), but at most once a
/// millisecond.
///
/// The numbers are cumulative: the next report includes what the collector missed, so no report is
/// kept or sent again.
///
/// ```
/// use cinchona_core::Methods;
/// use cinchona_observe::Metrics;
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), cinchona_core::Invalid> {
/// let metrics = Metrics::new(Methods::unknown());
/// let (to, each) = ("http://127.0.0.1:4317", Duration::from_secs(60));
/// let exporter = cinchona_otlp::export_metrics(&metrics, to, "calculator", each)?;
/// // Before the program ends.
/// if let Err(status) = exporter.flush(Duration::from_secs(3)).await {
///     eprintln!("{status}");
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When `endpoint` is not a URI of the scheme `http`, or `each` is zero.
///
/// # Panics
/// Outside a tokio runtime.
pub fn export_metrics(
    metrics: &Metrics,
    endpoint: &str,
    service: &str,
    each: Duration,
) -> Result<MetricsExporter, Invalid> {
    export_metrics_over(metrics, export::endpoint(endpoint)?.connect_lazy(), service, each)
}

/// As [`export_metrics`], through an existing `channel`, as in [`export_over`](crate::export_over).
///
/// # Errors
/// When `each` is zero.
///
/// # Panics
/// Outside a tokio runtime.
pub fn export_metrics_over(
    metrics: &Metrics,
    channel: impl CollectorChannel,
    service: &str,
    each: Duration,
) -> Result<MetricsExporter, Invalid> {
    if each.is_zero() {
        return Err(Invalid::new("each", "0s", "more than zero"));
    }
    let (ask, asked) = mpsc::channel(1);
    let sent = Sent {
        metrics: metrics.clone(),
        client: MetricsServiceClient::new(channel),
        resource: export::resource(service),
        clock: Clock::new(),
    };
    tokio::spawn(sent.run(each, asked).with_subscriber(Dispatch::none()));
    Ok(MetricsExporter(ask))
}

// === impl MetricsExporter ===

impl MetricsExporter {
    /// Sends the current values and waits for the answer, for at most `within`.
    ///
    /// # Errors
    /// The collector's error, or `DEADLINE_EXCEEDED`; `UNIMPLEMENTED` from a collector for traces
    /// alone.
    pub async fn flush(&self, within: Duration) -> Result<(), Status> {
        export::flush(async |asked| drop(self.0.send(asked).await), within).await
    }
}

// === impl Sent ===

impl<T: CollectorChannel> Sent<T> {
    /// Sends in each interval until the exporter is dropped.
    async fn run(self, each: Duration, mut asked: mpsc::Receiver<Asked>) {
        let mut due = interval(period(each));
        // After a delay the next report is sent once, not once per interval missed.
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is immediate, when there are no values yet.
        due.tick().await;
        loop {
            let asked = tokio::select! {
                asked = asked.recv() => match asked {
                    Some(asked) => Some(asked),
                    None => return,
                },
                _ = due.tick() => None,
            };
            let taken = self.send().await;
            if let Err(status) = &taken
                && let Some(Pushback::After(wait)) = status::pushback_of(status)
                && wait > each
            {
                // The next report includes the values of this one.
                due.reset_after(wait.min(LONGEST));
            }
            if let Some(asked) = asked {
                // The caller of flush may have given up.
                _ = asked.send(taken);
            }
        }
    }

    /// Sends the current values.
    async fn send(&self) -> Result<(), Status> {
        let (since, now) = (self.clock.began(), self.clock.now());
        let metrics = self.metrics.collect().into_iter().map(|found| metric(found, since, now));
        let scope = InstrumentationScope { name: "cinchona".to_owned(), ..Default::default() };
        let metrics =
            ScopeMetrics { scope: Some(scope), metrics: metrics.collect(), ..Default::default() };
        let of = ResourceMetrics {
            resource: Some(self.resource.clone()),
            scope_metrics: vec![metrics],
            ..Default::default()
        };
        let request = ExportMetricsServiceRequest { resource_metrics: vec![of] };
        let export = async { self.client.clone().export(request).await };
        let answer = export::in_time(export).await?.into_inner();
        let partial = answer.partial_success.unwrap_or_default();
        if partial.rejected_data_points > 0 {
            return Err(Status::invalid_argument(partial.error_message));
        }
        Ok(())
    }
}

/// The values in OTLP's form, for the time from `since` to `now`.
fn metric(found: Metric, since: u64, now: u64) -> otlp::Metric {
    let (name, description) = (found.name, found.help.to_owned());
    let (mut gauges, mut sums, mut histograms) = (Vec::new(), Vec::new(), Vec::new());
    for (labels, value) in found.series {
        let attributes = labels.iter().map(|(name, value)| text(name, value)).collect();
        match value {
            Value::Gauge(value) => gauges.push(number(value, attributes, 0, now)),
            Value::Counter(value) => sums.push(number(value, attributes, since, now)),
            Value::Histogram { bounds, counts, sum } => histograms.push(HistogramDataPoint {
                attributes,
                start_time_unix_nano: since,
                time_unix_nano: now,
                count: counts.iter().sum(),
                sum: Some(sum),
                bucket_counts: counts,
                explicit_bounds: bounds,
                ..Default::default()
            }),
            // A new kind of instrument in the protocol is added here.
            _ => {}
        }
    }
    let aggregation_temporality = AggregationTemporality::Cumulative.into();
    let data = if !histograms.is_empty() {
        Data::Histogram(Histogram { data_points: histograms, aggregation_temporality })
    } else if !sums.is_empty() {
        Data::Sum(Sum { data_points: sums, aggregation_temporality, is_monotonic: true })
    } else {
        Data::Gauge(Gauge { data_points: gauges })
    };
    let unit = found.unit.to_owned();
    otlp::Metric { name, description, unit, data: Some(data), ..Default::default() }
}

fn number(value: f64, attributes: Vec<KeyValue>, since: u64, now: u64) -> NumberDataPoint {
    NumberDataPoint {
        attributes,
        start_time_unix_nano: since,
        time_unix_nano: now,
        value: Some(number_data_point::Value::AsDouble(value)),
        ..Default::default()
    }
}
