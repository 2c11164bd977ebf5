//! The metrics of the layer.

use crate::FaultLayer;
use cinchona_core::{Instrument, Observable};
use std::{any::Any, sync::Weak};

/// `kind` is the fault's word in the grammar of [`Rule`](crate::Rule).
impl Observable for FaultLayer {
    const INSTRUMENTS: &'static [Instrument<Self>] = &[
        Instrument::counter(
            "cinchona.fault.exempt",
            "{request}",
            "Requests exempt from faults, such as health checks.",
            |layer| layer.counters().exempt as f64,
        ),
        Instrument::counters(
            "cinchona.fault.injected",
            "{fault}",
            "Faults that were injected, by kind.",
            |layer, add| {
                for (kind, count) in layer.counters().kinds() {
                    add(&[("kind", kind)], count as f64);
                }
            },
        ),
        Instrument::counter(
            "cinchona.fault.matched",
            "{request}",
            "Requests eligible for faults.",
            |layer| layer.counters().matched as f64,
        ),
        Instrument::counter(
            "cinchona.fault.spared",
            "{request}",
            "Requests that passed because too many faults were active.",
            |layer| layer.counters().spared as f64,
        ),
    ];

    fn identity(&self) -> Option<Weak<dyn Any + Send + Sync>> {
        Some(self.0.counted.counted())
    }
}
