//! Prometheus's text format, version 0.0.4.

use crate::{
    histogram::{Histogram, Snapshot},
    metrics::{Registry, Samples},
    names::{self, Instrument},
    series::{CODES, Method, Table},
};
use cinchona_core::code;
use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt::{self, Write},
};
use tonic::Code;

/// What is written so far, by metric: all samples of one stand together, whoever they come from.
#[derive(Default)]
struct Page(BTreeMap<String, Family>);

struct Family {
    help: &'static str,
    kind: &'static str,
    lines: String,
}

/// Names and values of one sample's labels.
#[derive(Clone, Copy)]
struct Labels<'a> {
    method: &'a str,
    target: Option<&'a str>,
    status: Option<Code>,
}

/// By which names transfers are known.
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

pub(crate) fn render(registry: &Registry) -> String {
    let mut page = Page::default();
    for client in registry.clients() {
        for method in client.methods.all() {
            let target = Some(&*client.target);
            let labels = Labels { method: method.label(), target, status: None };
            page.calls(labels, &method);
            page.transfers(&ATTEMPT, labels, &method);
        }
    }
    for method in registry.served().map(Table::all).unwrap_or_default() {
        let labels = Labels { method: method.label(), target: None, status: None };
        page.transfers(&SERVER, labels, &method);
    }
    for source in registry.others() {
        let mut samples = Samples::default();
        (source.ask)(&mut samples);
        page.others(source.prometheus(), source.is_counter, &samples);
    }
    page.text()
}

/// What all threads have recorded.
fn sum<'a, const N: usize>(all: impl Iterator<Item = &'a Histogram<N>>) -> Snapshot {
    let mut sum = Snapshot::default();
    all.for_each(|histogram| sum.add(histogram));
    sum
}

// === impl Page ===

impl Page {
    fn family(&mut self, instrument: &Instrument) -> (String, &mut String) {
        let name = instrument.prometheus();
        let kind = if instrument.bounds.is_empty() { "counter" } else { "histogram" };
        let new = || Family { help: instrument.help, kind, lines: String::new() };
        let family = self.0.entry(name.clone()).or_insert_with(new);
        (name, &mut family.lines)
    }

    fn calls(&mut self, labels: Labels<'_>, of: &Method) {
        for code in CODES {
            let ended = of.threads().filter_map(|counted| counted.calls.find(code));
            self.histogram(&names::CALL_DURATION, labels.ended(code), &sum(ended));
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

    fn transfers(&mut self, names: &TransferNames, labels: Labels<'_>, of: &Method) {
        let transfers = || of.threads().map(|counted| &counted.transfers);
        let started: u64 = transfers().map(|of| of.started.get()).sum();
        let (name, lines) = self.family(&names.started);
        line(lines, format_args!("{name}{{{labels}}} {started}"));
        for code in CODES {
            let ended = || transfers().filter_map(|of| of.ended.find(code));
            let labels = labels.ended(code);
            self.histogram(&names.duration, labels, &sum(ended().map(|of| &of.duration)));
            self.histogram(&names.sent, labels, &sum(ended().map(|of| &of.sent)));
            self.histogram(&names.received, labels, &sum(ended().map(|of| &of.received)));
        }
    }

    /// A histogram in which nothing was recorded is left out.
    fn histogram(&mut self, of: &Instrument, labels: Labels<'_>, found: &Snapshot) {
        if found.count() == 0 {
            return;
        }
        let (name, lines) = self.family(of);
        for (bound, below) in of.bounds.iter().zip(found.cumulative()) {
            let bound = of.unit.of(*bound);
            line(lines, format_args!("{name}_bucket{{{labels},le=\"{bound}\"}} {below}"));
        }
        let count = found.count();
        line(lines, format_args!("{name}_bucket{{{labels},le=\"+Inf\"}} {count}"));
        line(lines, format_args!("{name}_sum{{{labels}}} {}", of.unit.of(found.sum)));
        line(lines, format_args!("{name}_count{{{labels}}} {count}"));
    }

    fn others(&mut self, name: String, is_counter: bool, samples: &Samples) {
        let kind = if is_counter { "counter" } else { "gauge" };
        let new = || Family { help: "", kind, lines: String::new() };
        let lines = &mut self.0.entry(name.clone()).or_insert_with(new).lines;
        for (labels, value) in &samples.0 {
            let labels: Vec<_> = labels
                .iter()
                .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
                .collect();
            let value = match *value {
                value if value.is_nan() => "NaN".to_owned(),
                value if value.is_infinite() && value > 0.0 => "+Inf".to_owned(),
                value if value.is_infinite() => "-Inf".to_owned(),
                value => value.to_string(),
            };
            if labels.is_empty() {
                line(lines, format_args!("{name} {value}"));
            } else {
                line(lines, format_args!("{name}{{{}}} {value}", labels.join(",")));
            }
        }
    }

    fn text(self) -> String {
        let mut text = String::new();
        for (name, Family { help, kind, lines }) in self.0 {
            if lines.is_empty() {
                continue;
            }
            if !help.is_empty() {
                line(&mut text, format_args!("# HELP {name} {help}"));
            }
            line(&mut text, format_args!("# TYPE {name} {kind}"));
            text.push_str(&lines);
        }
        text
    }
}

fn line(text: &mut String, line: fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    _ = writeln!(text, "{line}");
}

/// A label's value as it stands between quotes.
fn escaped(value: &str) -> Cow<'_, str> {
    if !value.contains(['\\', '"', '\n']) {
        return value.into();
    }
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n").into()
}

// === impl Labels ===

impl Labels<'_> {
    fn ended(self, code: Code) -> Self {
        Self { status: Some(code), ..self }
    }
}

impl fmt::Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "grpc_method=\"{}\"", escaped(self.method))?;
        if let Some(target) = self.target {
            write!(f, ",grpc_target=\"{}\"", escaped(target))?;
        }
        match self.status {
            Some(status) => write!(f, ",grpc_status=\"{}\"", code::name(status)),
            None => Ok(()),
        }
    }
}
