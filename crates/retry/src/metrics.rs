//! The metrics of the layer; `cinchona-observe` counts calls and their attempts.

use crate::layer::RetryLayer;
use cinchona_core::{Instrument, Observable};

/// The tokens of the budget, if there is one, and of gRPC's throttle.
impl Observable for RetryLayer {
    const INSTRUMENTS: &'static [Instrument<Self>] = &[
        Instrument::gauges(
            "cinchona.retry.budget_tokens",
            "{token}",
            "How many attempts the retry budget can pay for.",
            |layer, add| {
                if let Some((left, _)) = layer.counters().budget_tokens {
                    add(&[], left);
                }
            },
        ),
        Instrument::gauge(
            "cinchona.retry.throttle_tokens",
            "{token}",
            "How many tokens the retry throttle has left.",
            |layer| layer.counters().throttle_tokens,
        ),
    ];
}
