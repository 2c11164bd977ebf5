//! A metric, as data.

/// A metric at one moment: see [`Metrics::collect`](crate::Metrics::collect).
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Metric {
    /// With dots, such as `grpc.client.call.duration`.
    pub name: String,
    /// Its description, in a sentence; empty without one
    /// ([`Metrics::describe`](crate::Metrics::describe)).
    pub help: &'static str,
    /// In UCUM's code, as in OpenTelemetry: `s`, `By`, `{call}`; empty without one.
    pub unit: &'static str,
    /// Names and values of labels, the names with dots; and the value of the series.
    pub series: Vec<(Vec<(String, String)>, Value)>,
}

/// The value of a series.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// The current value.
    Gauge(f64),
    /// The total so far.
    Counter(f64),
    /// How often values were recorded, since the beginning.
    Histogram {
        /// The bounds of the buckets, upwards; each is the highest value of its bucket.
        bounds: Vec<f64>,
        /// How many were in each bucket; the last is for those above all bounds.
        counts: Vec<u64>,
        /// The sum of all values.
        sum: f64,
    },
}
