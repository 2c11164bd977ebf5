//! Registered layers: all their metrics are shown, once, and for as long as they exist.

use super::{metrics, samples};
use crate::Metrics;
use cinchona_core::{Instrument, Observable};
use proptest::prelude::*;
use std::{
    collections::BTreeSet,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

/// A layer with a counter, a gauge that may panic, and a sample for each of its names.
#[derive(Clone, Debug, Default)]
struct Layer {
    count: Arc<AtomicU64>,
    names: Vec<&'static str>,
    panics: bool,
}

impl Observable for Layer {
    const INSTRUMENTS: &'static [Instrument<Self>] = &[
        Instrument::counter("a.calls", "{call}", "Calls.", |layer| {
            layer.count.load(Ordering::Relaxed) as f64
        }),
        Instrument::gauge("a.age", "s", "How old it is.", |layer| {
            assert!(!layer.panics, "on purpose");
            7.0
        }),
        Instrument::gauges("a.size", "By", "How large each is.", |layer, add| {
            layer.names.iter().for_each(|name| add(&[("name", name)], name.len() as f64));
        }),
    ];
}

/// A layer that runs until its last clone is dropped.
#[derive(Clone, Debug)]
struct Running(Arc<()>);

impl Observable for Running {
    const INSTRUMENTS: &'static [Instrument<Self>] =
        &[Instrument::gauge("b.runs", "", "1 while it runs.", |_| 1.0)];

    fn finder(&self) -> impl Fn() -> Option<Self> + Send + Sync + use<> + 'static {
        let weak: Weak<()> = Arc::downgrade(&self.0);
        move || weak.upgrade().map(Self)
    }
}

/// The only instrument has the name of `a.calls`.
macro_rules! other {
    ($name:ident, $instrument:expr) => {
        #[derive(Clone, Debug)]
        struct $name;

        impl Observable for $name {
            const INSTRUMENTS: &'static [Instrument<Self>] =
                &[Instrument::gauge("c.new", "", "New.", |_| 1.0), $instrument];
        }
    };
}

other!(Gauge, Instrument::gauge("a.calls", "{call}", "Calls.", |_| 1.0));
other!(Unit, Instrument::counter("a.calls", "{day}", "Days.", |_| 1.0));
other!(Grpcs, Instrument::gauge("grpc.client.call.hedges", "", "Hedges.", |_| 1.0));
other!(Nameless, Instrument::gauge("", "", "Nothing.", |_| 1.0));

fn layer(names: &[&'static str]) -> Layer {
    Layer { names: names.into(), ..Layer::default() }
}

fn shown(metrics: &Metrics) -> Vec<String> {
    metrics.render().lines().filter(|line| !line.starts_with('#')).map(Into::into).collect()
}

#[test]
fn all_metrics_of_a_layer_are_shown_with_their_descriptions() {
    let (metrics, layer) = (metrics(), layer(&["x", "yy"]));
    metrics.register(&layer, &[("grpc.target", "t")]).unwrap();
    layer.count.fetch_add(3, Ordering::Relaxed);
    let text = "# HELP a_age_seconds How old it is.\n# TYPE a_age_seconds gauge\n\
                a_age_seconds{grpc_target=\"t\"} 7\n\
                # HELP a_calls_total Calls.\n# TYPE a_calls_total counter\n\
                a_calls_total{grpc_target=\"t\"} 3\n\
                # HELP a_size_bytes How large each is.\n# TYPE a_size_bytes gauge\n\
                a_size_bytes{grpc_target=\"t\",name=\"x\"} 1\n\
                a_size_bytes{grpc_target=\"t\",name=\"yy\"} 2\n";
    assert_eq!(metrics.render(), text);
    let units: Vec<_> = metrics.collect().into_iter().map(|metric| metric.unit).collect();
    assert_eq!(units, ["s", "{call}", "By"]);
    assert!(Layer::INSTRUMENTS.iter().all(|own| metrics.names().contains(&own.name().to_owned())));
}

#[test]
fn a_repeated_registration_replaces_the_earlier_one() {
    let metrics = metrics();
    for (names, target) in [(&["x"][..], "a"), (&["y"], "a"), (&["z"], "b")] {
        metrics.register(&layer(names), &[("target", target)]).unwrap();
    }
    let sizes =
        ["a_size_bytes{target=\"a\",name=\"y\"} 1", "a_size_bytes{target=\"b\",name=\"z\"} 1"];
    let found: Vec<_> = shown(&metrics).into_iter().filter(|line| line.contains("size")).collect();
    assert_eq!(found, sizes);
}

#[test]
fn a_layers_own_label_takes_precedence() {
    let metrics = metrics();
    metrics.register(&layer(&["x"]), &[("name", "registered")]).unwrap();
    let found = samples(&metrics);
    assert_eq!(found["a_size_bytes{name=\"x\"}"], 1.0);
    assert_eq!(found["a_calls_total{name=\"registered\"}"], 0.0);
}

#[test]
fn registration_keeps_no_layer_running_and_dropped_ones_are_removed() {
    let (metrics, running) = (metrics(), Running(Arc::new(())));
    metrics.register(&running, &[]).unwrap();
    assert_eq!(shown(&metrics), ["b_runs 1"]);
    drop(running);
    assert!(metrics.names().contains(&"b.runs".to_owned()), "it was not collected yet");
    assert!(shown(&metrics).is_empty());
    assert!(!metrics.names().contains(&"b.runs".to_owned()));
}

#[test]
fn a_replacement_stays_when_the_replaced_one_is_removed() {
    let (metrics, [old, new]) = (metrics(), [(); 2].map(|()| Running(Arc::new(()))));
    metrics.register(&old, &[]).unwrap();
    drop(old);
    metrics.register(&new, &[]).unwrap();
    assert_eq!(shown(&metrics), ["b_runs 1"]);
}

#[test]
fn a_layer_that_cannot_be_registered_as_a_whole_is_not_registered_at_all() {
    let metrics = metrics();
    metrics.register(&layer(&["x"]), &[]).unwrap();
    let before = metrics.render();
    for (refused, rule) in [
        (metrics.register(&Gauge, &[("other", "")]), "a counter or a gauge, not both"),
        (metrics.register(&Unit, &[("other", "")]), "one unit"),
        (metrics.register(&Grpcs, &[]), "not taken"),
        (metrics.register(&Nameless, &[]), "a letter"),
        (metrics.register(&Running(Arc::default()), &[("a-b", "")]), "a letter"),
        (metrics.register(&Running(Arc::default()), &[("a.b", ""), ("a_b", "")]), "no other"),
    ] {
        let refused = refused.unwrap_err();
        assert!(refused.to_string().contains(rule), "{refused}");
        assert_eq!(metrics.render(), before);
    }
}

#[test]
fn an_instrument_that_panics_loses_only_its_own_series() {
    let metrics = metrics();
    metrics.register(&Layer { panics: true, ..layer(&["x"]) }, &[]).unwrap();
    assert_eq!(shown(&metrics), ["a_calls_total 0", "a_size_bytes{name=\"x\"} 1"]);
}

/// A name of Prometheus's and OpenTelemetry's that is one in both, few enough to meet.
fn label() -> impl Strategy<Value = (String, String)> {
    ("[ab][._]?[cd]?", "[xy]")
}

/// Samples by their labels.
fn any_samples() -> impl Strategy<Value = Vec<Vec<(String, String)>>> {
    prop::collection::vec(prop::collection::vec(label(), 0..3), 0..4)
}

fn lent(labels: &[(String, String)]) -> Vec<(&str, &str)> {
    labels.iter().map(|(name, value)| (&**name, &**value)).collect()
}

/// The name and the labels of a line without its value.
fn series(line: &str) -> (String, BTreeSet<String>) {
    let (series, _) = line.rsplit_once(' ').unwrap();
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let labels: Vec<_> = labels.trim_end_matches('}').split(',').collect();
    let names: BTreeSet<_> = labels.iter().map(|label| label.split('=').next()).collect();
    assert_eq!(names.len(), labels.len(), "a label stands once in {line}");
    (name.to_owned(), labels.into_iter().map(ToOwned::to_owned).collect())
}

proptest! {
    #[test]
    fn no_series_is_shown_twice_whatever_its_source(
        one in any_samples(), each in any_samples(), beside in any_samples(),
    ) {
        let metrics = metrics();
        for labels in one {
            // Some of the labels are refused.
            _ = metrics.gauge("b.runs", &lent(&labels), || 1.0);
        }
        metrics.gauges("b.runs", move |samples| {
            each.iter().for_each(|labels| samples.add(&lent(labels), 1.0));
        }).unwrap();
        let running = Running(Arc::default());
        for labels in beside {
            _ = metrics.register(&running, &lent(&labels));
        }
        let lines = shown(&metrics);
        let different: BTreeSet<_> = lines.iter().map(|line| series(line)).collect();
        prop_assert_eq!(different.len(), lines.len(), "{:#?}", lines);
    }
}
