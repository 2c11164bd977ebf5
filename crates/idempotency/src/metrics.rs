//! What the server's layer counts.

use crate::{DedupLayer, Store};
use cinchona_core::{Instrument, Observable};

/// `why` is one of [`Snapshot::refused`](crate::Snapshot::refused).
impl<T: Store> Observable for DedupLayer<T> {
    const INSTRUMENTS: &'static [Instrument<Self>] = &[
        Instrument::counter(
            "cinchona.idempotency.abandoned",
            "{call}",
            "Calls with a key that were done though their callers had given them up.",
            |layer| layer.snapshot().abandoned as f64,
        ),
        Instrument::counter(
            "cinchona.idempotency.ambiguous",
            "{call}",
            "Calls with a key that were done with an effect that is not known.",
            |layer| layer.snapshot().ambiguous as f64,
        ),
        Instrument::counter(
            "cinchona.idempotency.evicted",
            "{answer}",
            "Answers that were forgotten before their time.",
            |layer| layer.snapshot().evicted as f64,
        ),
        Instrument::counter(
            "cinchona.idempotency.executed",
            "{call}",
            "Calls with a key that were done.",
            |layer| layer.snapshot().executed as f64,
        ),
        Instrument::counter(
            "cinchona.idempotency.joined",
            "{call}",
            "Calls with a key that waited for an earlier one to be done.",
            |layer| layer.snapshot().joined as f64,
        ),
        Instrument::counters(
            "cinchona.idempotency.refused",
            "{call}",
            "Calls with a key that were not done, and why.",
            |layer, add| {
                for (why, count) in layer.snapshot().refused() {
                    add(&[("why", why)], count as f64);
                }
            },
        ),
        Instrument::counter(
            "cinchona.idempotency.replayed",
            "{call}",
            "Calls with a key that were answered again.",
            |layer| layer.snapshot().replayed as f64,
        ),
    ];
}
