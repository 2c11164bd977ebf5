//! Limits on calls in progress: ours, found by itself or fixed, and tower's.

use crate::harness::{
    Goes, ROUNDS, Subject, Table, Tower, allocations, answer, median, one_thread, two_threads,
};
use cinchona_shed::{Adaptive, Limit, ShedLayer};
use tower::{Layer, limit::ConcurrencyLimitLayer, service_fn};

const LIMIT: u32 = 1000;

/// A call that is let in.
pub(crate) fn table() -> Table {
    let adaptive = Adaptive { initial: LIMIT, min: LIMIT, ..Adaptive::default() };
    let ours = |limit| {
        let layer = ShedLayer::new(limit).expect("allowed");
        Tower(layer.layer(service_fn(answer)))
    };
    let mut all: Vec<(&str, Box<dyn Subject>)> = vec![
        ("no limit", Box::new(Tower(service_fn(answer)))),
        ("cinchona, fixed", Box::new(ours(Limit::Fixed(LIMIT)))),
        ("cinchona, adaptive", Box::new(ours(Limit::Adaptive(adaptive)))),
        (
            "tower 0.5.3, ConcurrencyLimit",
            Box::new(Tower(ConcurrencyLimitLayer::new(LIMIT as usize).layer(service_fn(answer)))),
        ),
    ];
    let mut nanos = vec![[const { Vec::new() }; 2]; all.len()];
    for round in 0..ROUNDS {
        for turn in 0..all.len() {
            let which = (turn + round) % all.len();
            let subject = &mut *all[which].1;
            nanos[which][0].push(one_thread(subject, Goes::Well, u64::MAX));
            nanos[which][1].push(two_threads(subject, Goes::Well, u64::MAX));
        }
    }
    let gross: Vec<[f64; 2]> = nanos.into_iter().map(|passes| passes.map(median)).collect();
    let rows = all.iter_mut().zip(&gross).map(|((name, subject), [one, two])| {
        vec![
            (*name).to_owned(),
            format!("{one:.1}"),
            format!("{:.1}", one - gross[0][0]),
            format!("{two:.1}"),
            format!("{:.1}", two - gross[0][1]),
            format!("{:.2}", allocations(&mut **subject, Goes::Well)),
        ]
    });
    let head = ["limit", "ns", "net", "2 threads ns", "net", "allocs"];
    Table {
        title: format!("limits on calls in progress: ns per call, median of {ROUNDS} rounds"),
        head: head.map(str::to_owned).to_vec(),
        rows: rows.collect(),
    }
}
