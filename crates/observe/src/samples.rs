//! Samples with labels, as in both OpenTelemetry and Prometheus.

use std::collections::BTreeSet;

/// Receives the samples of a closure: see [`Metrics::gauges`](crate::Metrics::gauges).
#[derive(Debug, Default)]
pub struct Samples(pub(crate) Vec<(Labels, f64)>);

/// Names and values.
pub(crate) type Labels = Vec<(String, String)>;

/// The identity of a series.
pub(crate) type Key = BTreeSet<(String, String)>;

// === impl Samples ===

impl Samples {
    /// Adds a sample. Names of labels are OpenTelemetry's, with dots, which become `_` in
    /// Prometheus. A label with an invalid or repeated name is left out, and a sample replaces an
    /// earlier one with the same labels.
    pub fn add(&mut self, labels: &[(&str, &str)], value: f64) {
        self.0.push((distinct(labels), value));
    }
}

/// The labels that are valid together.
pub(crate) fn distinct(labels: &[(&str, &str)]) -> Labels {
    let mut all = Labels::new();
    for (name, value) in labels {
        if is_label(name) && !all.iter().any(|(other, _)| is_same_name(other, name)) {
            all.push(((*name).to_owned(), (*value).to_owned()));
        }
    }
    all
}

/// The identity of a series, whatever the order of its labels.
pub(crate) fn key(labels: &Labels) -> Key {
    labels.iter().map(|(name, value)| (name.replace('.', "_"), value.clone())).collect()
}

/// Whether both are the same in Prometheus.
pub(crate) fn is_same_name(one: &str, other: &str) -> bool {
    let flat = |name: &str| name.replace('.', "_");
    flat(one) == flat(other)
}

pub(crate) fn is_label(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(legal)
}
