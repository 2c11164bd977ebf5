//! What a server that can be drained measures.

use crate::Drain;
use cinchona_core::{Instrument, Observable};

/// The connections of [`Drain::incoming`].
impl Observable for Drain {
    const INSTRUMENTS: &'static [Instrument<Self>] = &[Instrument::gauge(
        "cinchona.drain.connections",
        "{connection}",
        "Connections that a server has open.",
        |drain| drain.connections() as f64,
    )];
}
