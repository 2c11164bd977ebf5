//! All metrics, as data.

use crate::{
    callback,
    histogram::{Histogram, Snapshot},
    names::{self, Instrument},
    registry::Registry,
    samples::{Labels, Samples, key},
    series::{CODES, Method, Table},
    source::Source,
};
use cinchona_plumbing::code;
use std::collections::{BTreeMap, HashMap};

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

/// All metrics so far, by name: all series of one are adjacent, wherever they come from.
#[derive(Default)]
struct Collected(BTreeMap<String, Metric>);

/// By which names sums are identified.
struct TransferNames {
    started: Instrument,
    duration: Instrument,
    sent: Instrument,
    received: Instrument,
}

const ATTEMPT: TransferNames = TransferNames {
    started: names::ATTEMPT_STARTED,
    duration: names::ATTEMPT_DURATION,
    sent: names::ATTEMPT_SENT,
    received: names::ATTEMPT_RCVD,
};

const SERVER: TransferNames = TransferNames {
    started: names::SERVER_STARTED,
    duration: names::SERVER_DURATION,
    sent: names::SERVER_SENT,
    received: names::SERVER_RCVD,
};

/// All metrics that have a series, by name.
pub(crate) fn collect(registry: &Registry) -> Vec<Metric> {
    let mut all = Collected::default();
    for client in registry.clients() {
        for method in client.methods.all() {
            let labels = [("grpc.method", method.label()), ("grpc.target", &client.target)];
            all.calls(&labels, &method);
            all.transfers(&ATTEMPT, &labels, &method);
        }
    }
    for method in registry.served().map(Table::all).unwrap_or_default() {
        all.transfers(&SERVER, &[("grpc.method", method.label())], &method);
    }
    for source in registry.others() {
        all.others(registry, source);
    }
    let some = all.0.into_values().filter(|metric| !metric.series.is_empty());
    some.map(without_repetition).collect()
}

/// Of the series with the same labels, the last one.
fn without_repetition(mut metric: Metric) -> Metric {
    let keys: Vec<_> = metric.series.iter().map(|(labels, _)| key(labels)).collect();
    let last: HashMap<_, _> = keys.iter().enumerate().map(|(n, key)| (key, n)).collect();
    let mut each = keys.iter().enumerate().map(|(n, key)| last.get(key) == Some(&n));
    metric.series.retain(|_| each.next() == Some(true));
    metric
}

/// What all threads have recorded.
fn sum<'a, const N: usize>(all: impl Iterator<Item = &'a Histogram<N>>) -> Snapshot {
    let mut sum = Snapshot::default();
    all.for_each(|histogram| sum.add(histogram));
    sum
}

fn owned(labels: &[(&str, &str)]) -> Labels {
    labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

// === impl Collected ===

impl Collected {
    fn add(&mut self, of: &Instrument, labels: Labels, value: Value) {
        let Instrument { name, help, unit, .. } = *of;
        let new = || Metric { name: name.to_owned(), help, unit: unit.code(), series: Vec::new() };
        self.0.entry(name.to_owned()).or_insert_with(new).series.push((labels, value));
    }

    /// The metrics of layers and closures.
    fn others(&mut self, registry: &Registry, source: Source) {
        let ask = || {
            let mut samples = Samples::default();
            (source.ask)(&mut samples).then_some(samples)
        };
        let Some(asked) = callback::call("the function of a metric", ask) else { return };
        let Some(samples) = asked else { return registry.forget(&source) };
        let value = if source.is_counter { Value::Counter } else { Value::Gauge };
        let (name, help, unit) = (source.name.clone(), registry.help(&source), source.unit);
        let new = Metric { name, help, unit, series: Vec::new() };
        let metric = self.0.entry(source.name).or_insert(new);
        metric.series.extend(samples.0.into_iter().map(|(labels, found)| (labels, value(found))));
    }

    fn calls(&mut self, labels: &[(&str, &str)], of: &Method) {
        for code in CODES {
            let ended = of.threads().filter_map(|counted| counted.calls.find(code));
            let labels = [labels, &[("grpc.status", code::name(code))]].concat();
            self.histogram(&names::CALL_DURATION, &labels, &sum(ended));
        }
        let repeated = || of.threads().filter_map(|counted| counted.repeated.get());
        for (instrument, found) in [
            (&names::CALL_RETRIES, sum(repeated().map(|of| &of.retries))),
            (&names::CALL_TRANSPARENT_RETRIES, sum(repeated().map(|of| &of.transparent_retries))),
            (&names::CALL_HEDGES, sum(repeated().map(|of| &of.hedges))),
            (&names::CALL_RETRY_DELAY, sum(repeated().map(|of| &of.delay))),
        ] {
            self.histogram(instrument, labels, &found);
        }
    }

    fn transfers(&mut self, names: &TransferNames, labels: &[(&str, &str)], of: &Method) {
        let transfers = || of.threads().map(|counted| &counted.transfers);
        let started: u64 = transfers().map(|of| of.started.get()).sum();
        self.add(&names.started, owned(labels), Value::Counter(started as f64));
        for code in CODES {
            let ended = || transfers().filter_map(|of| of.ended.find(code));
            let labels = [labels, &[("grpc.status", code::name(code))]].concat();
            self.histogram(&names.duration, &labels, &sum(ended().map(|of| &of.duration)));
            self.histogram(&names.sent, &labels, &sum(ended().map(|of| &of.sent)));
            self.histogram(&names.received, &labels, &sum(ended().map(|of| &of.received)));
        }
    }

    /// An empty histogram is left out.
    fn histogram(&mut self, of: &Instrument, labels: &[(&str, &str)], found: &Snapshot) {
        if found.buckets.iter().any(|count| *count > 0) {
            let bounds = of.bounds.iter().map(|bound| of.unit.of(*bound)).collect();
            let (counts, sum) = (found.buckets.clone(), of.unit.of(found.sum));
            self.add(of, owned(labels), Value::Histogram { bounds, counts, sum });
        }
    }
}
