//! The metrics of the server's layer.

use crate::{DedupLayer, Store, shared::Shared};
use cinchona_core::{Instrument, Observable};
use std::{
    any::Any,
    sync::{Arc, Weak},
};

/// `why` is one of [`DedupCounters::refused`](crate::DedupCounters::refused).
impl<T: Store> Observable for DedupLayer<T> {
    const INSTRUMENTS: &'static [Instrument<Self>] = &[
        Instrument::counter(
            "cinchona.idempotency.abandoned",
            "{call}",
            "Calls with a key executed to the end after their callers gave up.",
            |layer| layer.counters().abandoned as f64,
        ),
        Instrument::counter(
            "cinchona.idempotency.ambiguous",
            "{call}",
            "Calls with a key executed with an unknown effect.",
            |layer| layer.counters().ambiguous as f64,
        ),
        Instrument::counter(
            "cinchona.idempotency.evicted",
            "{answer}",
            "Records evicted before their time.",
            |layer| layer.counters().evicted as f64,
        ),
        Instrument::counter(
            "cinchona.idempotency.executed",
            "{call}",
            "Calls with a key that were executed.",
            |layer| layer.counters().executed as f64,
        ),
        Instrument::counter(
            "cinchona.idempotency.joined",
            "{call}",
            "Calls with a key that waited for an earlier execution.",
            |layer| layer.counters().joined as f64,
        ),
        Instrument::counters(
            "cinchona.idempotency.refused",
            "{call}",
            "Calls with a key that were refused, by reason.",
            |layer, add| {
                for (why, count) in layer.counters().refused() {
                    add(&[("why", why)], count as f64);
                }
            },
        ),
        Instrument::counter(
            "cinchona.idempotency.replayed",
            "{call}",
            "Calls with a key answered with an earlier answer.",
            |layer| layer.counters().replayed as f64,
        ),
    ];

    fn identity(&self) -> Option<Weak<dyn Any + Send + Sync>> {
        let counted: Weak<Shared<T>> = Arc::downgrade(&self.shared);
        Some(counted)
    }
}
