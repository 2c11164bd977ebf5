//! What several owners register is added up, and ends with them; no counter ever falls.

use super::{metrics, samples};
use crate::{Metrics, Owner};
use cinchona_core::{Instrument, Observable, Rng};
use rand::RngExt;
use std::{
    any::Any,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

/// A layer with a counter, and one gauge of each kind.
#[derive(Clone, Debug, Default)]
struct Layer(Arc<AtomicU64>);

/// A layer that says what it is.
#[derive(Clone, Debug, Default)]
struct Known(Layer);

/// A layer that is gone with its last clone.
#[derive(Clone, Debug, Default)]
struct Running(Layer);

impl Layer {
    fn count(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    fn counted(&self) -> f64 {
        self.0.load(Ordering::Relaxed) as f64
    }
}

/// The instruments of a layer, which `$layer` leads to.
macro_rules! instruments {
    ($type:ty, $of:expr) => {
        const INSTRUMENTS: &'static [Instrument<Self>] = &[
            Instrument::counter("a.calls", "{call}", "Calls.", |of: &$type| $of(of).counted()),
            Instrument::gauge("a.flying", "{call}", "In flight.", |_| 2.0),
            Instrument::gauge("a.state", "", "0 well, 3 down.", |of: &$type| $of(of).counted()),
        ];
    };
}

impl Observable for Layer {
    instruments!(Self, |of| -> &Self { of });
}

impl Observable for Known {
    instruments!(Self, |of: &Self| of.0.clone());

    fn identity(&self) -> Option<Weak<dyn Any + Send + Sync>> {
        let counted: Weak<AtomicU64> = Arc::downgrade(&self.0.0);
        Some(counted)
    }
}

impl Observable for Running {
    instruments!(Self, |of: &Self| of.0.clone());

    fn finder(&self) -> impl Fn() -> Option<Self> + Send + Sync + use<> + 'static {
        let weak = Arc::downgrade(&self.0.0);
        move || weak.upgrade().map(|counted| Self(Layer(counted)))
    }
}

/// A layer that has counted so much, and its owner.
fn owned(metrics: &Metrics, counted: u64) -> (Layer, Owner) {
    let (layer, owner) = (Layer::default(), metrics.owner());
    layer.count(counted);
    owner.register(&layer, &[]).unwrap();
    (layer, owner)
}

/// The counter, the gauge of things, and the other gauge; -1 where there is none.
fn shown(metrics: &Metrics) -> [f64; 3] {
    let found = samples(metrics);
    ["a_calls_total", "a_flying", "a_state"].map(|name| found.get(name).copied().unwrap_or(-1.0))
}

#[test]
fn owners_of_the_same_labels_are_added_up_and_of_a_state_the_greatest_is_shown() {
    let metrics = metrics();
    let [(_, one), _other] = [3, 2].map(|counted| owned(&metrics, counted));
    assert_eq!(shown(&metrics), [5.0, 4.0, 3.0]);
    drop(one);
    assert_eq!(shown(&metrics), [5.0, 2.0, 2.0], "its counts stay, and its gauges go");
}

#[test]
fn what_was_counted_before_the_end_and_never_read_stays() {
    let metrics = metrics();
    let (running, owner) = (Running::default(), metrics.owner());
    owner.register(&running, &[]).unwrap();
    running.0.count(7);
    drop(owner);
    drop(running);
    assert_eq!(shown(&metrics), [7.0, -1.0, -1.0]);
    assert_eq!(metrics.names().iter().filter(|name| name.starts_with("a.")).count(), 1);
}

#[test]
fn a_layer_that_is_gone_before_its_owner_leaves_what_was_read_last() {
    let metrics = metrics();
    let (running, owner) = (Running::default(), metrics.owner());
    owner.register(&running, &[]).unwrap();
    running.0.count(7);
    assert_eq!(shown(&metrics), [7.0, 2.0, 7.0]);
    drop(running);
    for _ in 0..2 {
        assert_eq!(shown(&metrics), [7.0, -1.0, -1.0]);
    }
    drop(owner);
    assert_eq!(shown(&metrics), [7.0, -1.0, -1.0]);
}

#[test]
fn an_owner_ends_with_its_last_clone() {
    let metrics = metrics();
    let (_layer, owner) = owned(&metrics, 1);
    let clone = owner.clone();
    drop(owner);
    assert_eq!(shown(&metrics), [1.0, 2.0, 1.0]);
    drop(clone);
    assert_eq!(shown(&metrics), [1.0, -1.0, -1.0]);
}

#[test]
fn a_hundred_that_come_and_go_do_not_grow_the_page_and_keep_nothing() {
    let metrics = metrics();
    let (first, owner) = owned(&metrics, 1);
    drop(owner);
    let (lines, kept) = (metrics.render().lines().count(), Arc::downgrade(&first.0));
    drop(first);
    assert!(kept.upgrade().is_none());
    for _ in 0..100 {
        let (layer, owner) = owned(&metrics, 1);
        let kept = Arc::downgrade(&layer.0);
        drop((layer, owner));
        assert!(kept.upgrade().is_none(), "nobody has looked at the page meanwhile");
    }
    assert_eq!(metrics.render().lines().count(), lines);
    assert_eq!(shown(&metrics)[0], 101.0);
}

#[test]
fn those_that_have_counted_nothing_leave_nothing() {
    let metrics = metrics();
    for target in ["a", "b", "c"] {
        metrics.owner().register(&Layer::default(), &[("grpc.target", target)]).unwrap();
    }
    assert_eq!(metrics.render(), "");
}

#[test]
fn what_is_one_is_counted_once_whoever_registers_it() {
    let (metrics, layer) = (metrics(), Known::default());
    layer.0.count(3);
    let owners = [metrics.owner(), metrics.owner()];
    for owner in &owners {
        owner.register(&layer, &[]).unwrap();
    }
    metrics.register(&layer, &[]).unwrap();
    assert_eq!(shown(&metrics), [3.0, 2.0, 3.0]);
    drop(owners);
    assert_eq!(shown(&metrics), [3.0, 2.0, 3.0], "the application has it still");
}

#[test]
fn what_is_one_counts_on_where_it_ended() {
    let (metrics, layer) = (metrics(), Known::default());
    for n in 1..=3 {
        let owner = metrics.owner();
        owner.register(&layer, &[]).unwrap();
        layer.0.count(2);
        assert_eq!(shown(&metrics)[0], 2.0 * f64::from(n));
        drop(owner);
        assert_eq!(shown(&metrics), [2.0 * f64::from(n), -1.0, -1.0]);
    }
    drop(layer);
    assert_eq!(shown(&metrics), [6.0, -1.0, -1.0]);
    // What may have its address now is another.
    let other = Known::default();
    other.0.count(1);
    let owner = metrics.owner();
    owner.register(&other, &[]).unwrap();
    assert_eq!(shown(&metrics), [7.0, 2.0, 1.0]);
}

#[test]
fn an_owner_that_registers_another_layer_replaces_its_own_and_no_other() {
    let metrics = metrics();
    let (_layer, _other) = owned(&metrics, 5);
    let (old, new, owner) = (Known::default(), Known::default(), metrics.owner());
    old.0.count(3);
    owner.register(&old, &[]).unwrap();
    owner.register(&new, &[]).unwrap();
    assert_eq!(shown(&metrics), [8.0, 4.0, 5.0]);
}

#[test]
fn what_was_counted_by_those_that_are_gone_keeps_its_kind_and_its_unit() {
    let metrics = metrics();
    drop(owned(&metrics, 1));
    let refused = metrics.gauge("a.calls", &[], || 1.0).unwrap_err();
    assert!(refused.to_string().contains("a counter or a gauge, not both"), "{refused}");
    let refused = metrics.counter("a.calls", &[], || 1.0).unwrap_err();
    assert!(refused.to_string().contains("one unit"), "{refused}");
}

/// An owner ends while the page is made, before its counter is read or after, and counts once more.
#[test]
fn a_page_counts_nothing_twice_and_misses_nothing_of_an_owner_that_ends_meanwhile() {
    for (name, total) in [("early", 8.0), ("late", 7.0)] {
        let (metrics, layer) = (metrics(), Layer::default());
        let ending: Arc<Mutex<Option<Owner>>> = Arc::default();
        layer.count(7);
        let (counts, at) = (layer.clone(), ending.clone());
        let ends = move || {
            if let Some(owner) = at.lock().unwrap().take() {
                drop(owner);
                counts.count(1);
            }
            0.0
        };
        let owner = metrics.owner();
        if name == "late" {
            owner.register(&layer, &[]).unwrap();
        }
        metrics.gauge("b.end", &[], ends).unwrap();
        if name == "early" {
            owner.register(&layer, &[]).unwrap();
        }
        *ending.lock().unwrap() = Some(owner);
        for _ in 0..3 {
            assert_eq!(shown(&metrics)[0], total, "{name}");
        }
    }
}

#[test]
fn whatever_comes_and_goes_the_total_is_what_all_have_counted() {
    let rng = Rng::seeded(7);
    for _ in 0..50 {
        let (metrics, mut total) = (metrics(), 0);
        let mut all: Vec<(Layer, Owner)> = Vec::new();
        for _ in 0..100 {
            let draw: u64 = rng.draw().random();
            let at = draw as usize / 8 % all.len().max(1);
            match draw % 8 {
                0 => all.push(owned(&metrics, 0)),
                1 if !all.is_empty() => drop(all.swap_remove(at)),
                2 => assert_eq!(shown(&metrics)[0].max(0.0), total as f64),
                _ if !all.is_empty() => {
                    all[at].0.count(draw % 5);
                    total += draw % 5;
                }
                _ => {}
            }
            let flying = shown(&metrics)[1];
            assert_eq!(flying.max(0.0), 2.0 * all.len() as f64);
        }
        drop(all);
        assert_eq!(shown(&metrics)[0].max(0.0), total as f64);
    }
}
