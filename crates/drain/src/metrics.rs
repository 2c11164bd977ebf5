//! The metric of a server that can be drained.

use crate::Drain;
use cinchona_core::{Instrument, Observable};
use std::{any::Any, sync::Weak};

/// The connections of [`Drain::incoming`].
impl Observable for Drain {
    const INSTRUMENTS: &'static [Instrument<Self>] = &[Instrument::gauge(
        "cinchona.drain.connections",
        "{connection}",
        "Open connections of a server.",
        |drain| drain.connections() as f64,
    )];

    fn identity(&self) -> Option<Weak<dyn Any + Send + Sync>> {
        Some(self.counted())
    }
}
