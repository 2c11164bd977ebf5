//! All metrics, as data.

use crate::{
    histogram::{Histogram, Snapshot},
    merged::Merged,
    metric::{Metric, Value},
    names::{self, Instrument},
    registry::Registry,
    samples::Labels,
    series::{CODES, Method, Table},
};
use cinchona_plumbing::code;
use std::collections::BTreeMap;

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
    all.others(registry);
    all.0.into_values().filter(|metric| !metric.series.is_empty()).collect()
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
    fn others(&mut self, registry: &Registry) {
        // No owner has this number.
        const PAST: u64 = u64::MAX;
        let (sources, past) = registry.others();
        let mut all: BTreeMap<String, Merged> = BTreeMap::new();
        for source in sources {
            let Some(samples) = registry.ask(&source) else { continue };
            let help = registry.help(&source.name, source.help);
            let new = || Merged::new(help, source.unit, source.is_counter);
            let merged = all.entry(source.name.clone()).or_insert_with(new);
            merged.add(source.owners.first(), samples);
        }
        for (name, past) in past {
            let help = registry.help(&name, past.help);
            let merged = all.entry(name).or_insert_with(|| Merged::new(help, past.unit, true));
            merged.add(PAST, past.counts.samples());
        }
        self.0.extend(all.into_iter().map(|(name, merged)| (name.clone(), merged.metric(name))));
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
