//! Prometheus's text format, version 0.0.4.

use crate::{
    metric::{Metric, Value},
    names,
    samples::Labels,
};
use std::{
    borrow::Cow,
    fmt::{self, Write},
};

/// Names and values within braces; empty without labels.
struct Braced<'a>(&'a Labels, Option<&'a str>);

pub(crate) fn render(metrics: &[Metric]) -> String {
    let mut text = String::new();
    for metric in metrics {
        let kind = match metric.series.first() {
            Some((_, Value::Counter(_))) => "counter",
            Some((_, Value::Histogram { .. })) => "histogram",
            _ => "gauge",
        };
        let name = names::prometheus(&metric.name, metric.unit, kind == "counter");
        if !metric.help.is_empty() {
            // Quotes are not escaped here, unlike in labels.
            let help = metric.help.replace('\\', r"\\").replace('\n', r"\n");
            line(&mut text, format_args!("# HELP {name} {help}"));
        }
        line(&mut text, format_args!("# TYPE {name} {kind}"));
        for (labels, value) in &metric.series {
            series(&mut text, &name, labels, value);
        }
    }
    text
}

fn series(text: &mut String, name: &str, labels: &Labels, value: &Value) {
    let (bounds, counts, sum) = match value {
        Value::Gauge(value) | Value::Counter(value) => {
            let value = number(*value);
            return line(text, format_args!("{name}{} {value}", Braced(labels, None)));
        }
        Value::Histogram { bounds, counts, sum } => (bounds, counts, sum),
    };
    let mut below = 0;
    for (bound, count) in bounds.iter().zip(counts) {
        below += count;
        let bound = bound.to_string();
        line(text, format_args!("{name}_bucket{} {below}", Braced(labels, Some(&bound))));
    }
    // The count of the buckets, so that the two agree during concurrent records.
    let count: u64 = counts.iter().sum();
    line(text, format_args!("{name}_bucket{} {count}", Braced(labels, Some("+Inf"))));
    line(text, format_args!("{name}_sum{} {sum}", Braced(labels, None)));
    line(text, format_args!("{name}_count{} {count}", Braced(labels, None)));
}

fn line(text: &mut String, line: fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    _ = writeln!(text, "{line}");
}

fn number(value: f64) -> String {
    match value {
        value if value.is_nan() => "NaN".to_owned(),
        value if value.is_infinite() && value > 0.0 => "+Inf".to_owned(),
        value if value.is_infinite() => "-Inf".to_owned(),
        value => value.to_string(),
    }
}

/// A label's value within quotes.
fn escaped(value: &str) -> Cow<'_, str> {
    if !value.contains(['\\', '"', '\n']) {
        return value.into();
    }
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n").into()
}

// === impl Braced ===

impl fmt::Display for Braced<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(labels, le) = *self;
        let named = labels.iter().map(|(name, value)| (name.replace('.', "_"), value.as_str()));
        let all = named.chain(le.map(|bound| ("le".to_owned(), bound)));
        for (n, (name, value)) in all.enumerate() {
            let before = if n == 0 { '{' } else { ',' };
            write!(f, "{before}{name}=\"{}\"", escaped(value))?;
        }
        if labels.is_empty() && le.is_none() { Ok(()) } else { f.write_str("}") }
    }
}
