//! The metrics of the layers.

use crate::{AdaptiveThrottleLayer, BulkheadLayer, RateLimitLayer, ShedLayer, StatusLimitLayer};
use cinchona_core::{Instrument, Observable};
use std::{any::Any, sync::Weak};

/// A server's limit.
impl Observable for ShedLayer {
    const INSTRUMENTS: &'static [Instrument<Self>] = &[
        Instrument::gauge(
            "cinchona.shed.in_progress",
            "{request}",
            "Requests in flight on a server.",
            |layer| layer.counters().in_progress.into(),
        ),
        Instrument::counter(
            "cinchona.shed.late",
            "{request}",
            "Requests that did not arrive in time.",
            |layer| layer.counters().late as f64,
        ),
        Instrument::gauge(
            "cinchona.shed.limit",
            "{request}",
            "The limit on requests in flight on a server.",
            |layer| layer.counters().limit.into(),
        ),
        Instrument::gauge(
            "cinchona.shed.streams",
            "{stream}",
            "Streams in flight on a server.",
            |layer| layer.counters().streams.into(),
        ),
        Instrument::counter(
            "cinchona.shed.turned_away",
            "{request}",
            "Requests refused by a server as beyond its limit.",
            |layer| layer.counters().shed as f64,
        ),
        Instrument::gauge(
            "cinchona.shed.waiting",
            "{request}",
            "Requests that wait for a place.",
            |layer| layer.counters().waiting.into(),
        ),
    ];

    fn identity(&self) -> Option<Weak<dyn Any + Send + Sync>> {
        Some(self.counted())
    }
}

/// A client's limit.
impl Observable for BulkheadLayer {
    const INSTRUMENTS: &'static [Instrument<Self>] = &[
        Instrument::gauge(
            "cinchona.shed.bulkhead_in_progress",
            "{call}",
            "Calls in flight of a client.",
            |layer| layer.counters().in_progress.into(),
        ),
        Instrument::gauge(
            "cinchona.shed.bulkhead_streams",
            "{stream}",
            "Streams in flight of a client.",
            |layer| layer.counters().streams.into(),
        ),
        Instrument::counter(
            "cinchona.shed.bulkhead_turned_away",
            "{call}",
            "Calls refused unsent by a client's bulkhead.",
            |layer| layer.counters().shed as f64,
        ),
        Instrument::gauge(
            "cinchona.shed.bulkhead_waiting",
            "{call}",
            "Calls that wait for a place in a client's bulkhead.",
            |layer| layer.counters().waiting.into(),
        ),
    ];
}

/// A server's quotas.
impl Observable for RateLimitLayer {
    const INSTRUMENTS: &'static [Instrument<Self>] = &[Instrument::counter(
        "cinchona.shed.over_quota",
        "{request}",
        "Requests refused as beyond their callers' quotas.",
        |layer| layer.counters().limited as f64,
    )];

    fn identity(&self) -> Option<Weak<dyn Any + Send + Sync>> {
        Some(self.counted())
    }
}

/// A client's adaptive throttle.
impl Observable for AdaptiveThrottleLayer {
    const INSTRUMENTS: &'static [Instrument<Self>] = &[Instrument::counter(
        "cinchona.shed.throttled",
        "{attempt}",
        "Attempts failed unsent by the client's throttle.",
        |layer| layer.counters().throttled as f64,
    )];
}

/// The statuses that a server has cut.
impl Observable for StatusLimitLayer {
    const INSTRUMENTS: &'static [Instrument<Self>] = &[Instrument::counter(
        "cinchona.shed.statuses_cut",
        "{status}",
        "Statuses that were cut as too large.",
        |layer| layer.counters().cut as f64,
    )];
}
