//! The metrics of the layer.

use crate::FallbackLayer;
use cinchona_core::{Instrument, Observable};

/// `by` is `cached`, `default` or `alternate`.
impl Observable for FallbackLayer {
    const INSTRUMENTS: &'static [Instrument<Self>] = &[
        Instrument::gauge(
            "cinchona.fallback.kept",
            "{answer}",
            "Answers that are kept.",
            |layer| layer.counters().kept_entries as f64,
        ),
        Instrument::gauge(
            "cinchona.fallback.kept_size",
            "By",
            "How large the kept answers are, with the requests they answer.",
            |layer| layer.counters().kept_bytes as f64,
        ),
        Instrument::counter(
            "cinchona.fallback.none",
            "{call}",
            "Calls that failed, as there was no second answer.",
            |layer| layer.counters().none as f64,
        ),
        Instrument::counters(
            "cinchona.fallback.served",
            "{call}",
            "Second answers, by where they came from.",
            |layer, add| {
                let of = layer.counters();
                for (by, count) in [
                    ("cached", of.served_cached),
                    ("default", of.served_default),
                    ("alternate", of.served_alternate),
                ] {
                    add(&[("by", by)], count as f64);
                }
            },
        ),
    ];
}
