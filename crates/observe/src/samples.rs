//! Samples with labels, as OpenTelemetry and Prometheus have both.

use std::collections::BTreeSet;

/// Where a closure puts what it counts when somebody looks: see
/// [`Metrics::gauges`](crate::Metrics::gauges).
#[derive(Debug, Default)]
pub struct Samples(pub(crate) Vec<(Labels, f64)>);

/// Names and values.
pub(crate) type Labels = Vec<(String, String)>;

// === impl Samples ===

impl Samples {
    /// Adds a sample. Names of labels are as OpenTelemetry's, with dots, for which Prometheus has
    /// `_`. A label whose name is none or that of one before is left out, and a sample whose labels
    /// were added before replaces that.
    pub fn add(&mut self, labels: &[(&str, &str)], value: f64) {
        self.0.push((distinct(labels), value));
    }
}

/// Those labels that may stand together.
pub(crate) fn distinct(labels: &[(&str, &str)]) -> Labels {
    let mut all = Labels::new();
    for (name, value) in labels {
        if is_label(name) && !all.iter().any(|(other, _)| is_same_name(other, name)) {
            all.push(((*name).to_owned(), (*value).to_owned()));
        }
    }
    all
}

/// By what a series is known, however its labels are ordered.
pub(crate) fn key(labels: &Labels) -> BTreeSet<(String, String)> {
    labels.iter().map(|(name, value)| (name.replace('.', "_"), value.clone())).collect()
}

/// Whether both are one in Prometheus.
pub(crate) fn is_same_name(one: &str, other: &str) -> bool {
    let flat = |name: &str| name.replace('.', "_");
    flat(one) == flat(other)
}

pub(crate) fn is_label(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(legal)
}
