//! What the layers count and measure.

use crate::{AdaptiveThrottleLayer, BulkheadLayer, RateLimitLayer, ShedLayer, StatusLimitLayer};
use cinchona_core::{Instrument, Observable};

/// A server's limit.
impl Observable for ShedLayer {
    const INSTRUMENTS: &'static [Instrument<Self>] = &[
        Instrument::gauge(
            "cinchona.shed.in_progress",
            "{request}",
            "Requests that a server is handling.",
            |layer| layer.in_progress().into(),
        ),
        Instrument::counter(
            "cinchona.shed.late",
            "{request}",
            "Requests that did not arrive in time.",
            |layer| layer.late() as f64,
        ),
        Instrument::gauge(
            "cinchona.shed.limit",
            "{request}",
            "How many requests a server can handle at once.",
            |layer| layer.limit().into(),
        ),
        Instrument::gauge(
            "cinchona.shed.streams",
            "{stream}",
            "Streams that a server has under way.",
            |layer| layer.streams().into(),
        ),
        Instrument::counter(
            "cinchona.shed.turned_away",
            "{request}",
            "Requests beyond what a server can handle.",
            |layer| layer.shed() as f64,
        ),
        Instrument::gauge(
            "cinchona.shed.waiting",
            "{request}",
            "Requests that wait for their turn.",
            |layer| layer.waiting().into(),
        ),
    ];
}

/// A client's limit.
impl Observable for BulkheadLayer {
    const INSTRUMENTS: &'static [Instrument<Self>] = &[
        Instrument::gauge(
            "cinchona.shed.bulkhead_in_progress",
            "{call}",
            "Calls that a client has under way.",
            |layer| layer.in_progress().into(),
        ),
        Instrument::gauge(
            "cinchona.shed.bulkhead_streams",
            "{stream}",
            "Streams that a client has under way.",
            |layer| layer.streams().into(),
        ),
        Instrument::counter(
            "cinchona.shed.bulkhead_turned_away",
            "{call}",
            "Calls not begun, as too many were under way.",
            |layer| layer.shed() as f64,
        ),
        Instrument::gauge(
            "cinchona.shed.bulkhead_waiting",
            "{call}",
            "Calls that wait for others to end.",
            |layer| layer.waiting().into(),
        ),
    ];
}

/// A server's quotas.
impl Observable for RateLimitLayer {
    const INSTRUMENTS: &'static [Instrument<Self>] = &[Instrument::counter(
        "cinchona.shed.over_quota",
        "{request}",
        "Requests beyond their callers' quotas.",
        |layer| layer.limited() as f64,
    )];
}

/// A client's adaptive throttle.
impl Observable for AdaptiveThrottleLayer {
    const INSTRUMENTS: &'static [Instrument<Self>] = &[Instrument::counter(
        "cinchona.shed.throttled",
        "{attempt}",
        "Attempts that were kept from a server that sheds.",
        |layer| layer.throttled() as f64,
    )];
}

/// What a server cuts of its statuses.
impl Observable for StatusLimitLayer {
    const INSTRUMENTS: &'static [Instrument<Self>] = &[Instrument::counter(
        "cinchona.shed.statuses_cut",
        "{status}",
        "Statuses that were too large to be sent whole.",
        |layer| layer.cut() as f64,
    )];
}
