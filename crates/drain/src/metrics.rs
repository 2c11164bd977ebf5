//! The metric of a server that can be drained.

use crate::Drain;
use cinchona_core::{Instrument, Observable};

/// The connections of [`Drain::incoming`].
impl Observable for Drain {
    const INSTRUMENTS: &'static [Instrument<Self>] = &[Instrument::gauge(
        "cinchona.drain.connections",
        "{connection}",
        "Open connections of a server.",
        |drain| drain.connections() as f64,
    )];
}
