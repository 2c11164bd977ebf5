//! The metrics of a breaker.

use crate::{BreakerLayer, State};
use cinchona_core::{Instrument, Observable};

/// The label of a circuit.
const CIRCUIT: &str = "circuit";

/// The metrics of each `circuit`, by its name: the layer's own, and those of the endpoints.
impl Observable for BreakerLayer {
    const INSTRUMENTS: &'static [Instrument<Self>] = &[
        Instrument::counters(
            "cinchona.breaker.rejected",
            "{call}",
            "Calls that a breaker rejected.",
            |layer, add| {
                for circuit in layer.circuits() {
                    add(&[(CIRCUIT, circuit.name())], circuit.rejected() as f64);
                }
            },
        ),
        Instrument::gauges(
            "cinchona.breaker.state",
            "",
            "0 closed, 1 half open, 2 open, 3 isolated.",
            |layer, add| {
                for circuit in layer.circuits() {
                    let state = match circuit.state() {
                        State::Closed => 0.0,
                        State::HalfOpen => 1.0,
                        State::Open => 2.0,
                        State::Isolated => 3.0,
                    };
                    add(&[(CIRCUIT, circuit.name())], state);
                }
            },
        ),
    ];
}
