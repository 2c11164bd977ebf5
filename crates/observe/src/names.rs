//! The metrics by gRPC's names: [gRFC A66] and [gRFC A96], with their units and buckets.
//!
//! [gRFC A66]: https://github.com/grpc/proposal/blob/master/A66-otel-stats.md
//! [gRFC A96]: https://github.com/grpc/proposal/blob/master/A96-retry-otel-stats.md

/// An instrument, and its buckets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instrument {
    /// As the gRFC names it.
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) unit: Unit,
    /// Of a histogram, in `unit`'s grains; empty for a counter.
    pub(crate) bounds: &'static [u64],
}

/// The unit of a number, which is kept as an integer of grains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// `s`, in nanoseconds.
    Seconds,
    /// `By`.
    Bytes,
    /// `{attempt}`, `{call}`, `{retry}` and the like.
    Count(&'static str),
}

const US: u64 = 1_000;
const MS: u64 = 1_000 * US;
const S: u64 = 1_000 * MS;

/// A66: the buckets of latencies, here in nanoseconds.
pub(crate) const LATENCY: &[u64] = &[
    0,
    10 * US,
    50 * US,
    100 * US,
    300 * US,
    600 * US,
    800 * US,
    MS,
    2 * MS,
    3 * MS,
    4 * MS,
    5 * MS,
    6 * MS,
    8 * MS,
    10 * MS,
    13 * MS,
    16 * MS,
    20 * MS,
    25 * MS,
    30 * MS,
    40 * MS,
    50 * MS,
    65 * MS,
    80 * MS,
    100 * MS,
    130 * MS,
    160 * MS,
    200 * MS,
    250 * MS,
    300 * MS,
    400 * MS,
    500 * MS,
    650 * MS,
    800 * MS,
    S,
    2 * S,
    5 * S,
    10 * S,
    20 * S,
    50 * S,
    100 * S,
];

/// A66: the buckets of sizes, in bytes.
pub(crate) const SIZE: &[u64] = &[
    0,
    1 << 10,
    2 << 10,
    4 << 10,
    16 << 10,
    64 << 10,
    256 << 10,
    1 << 20,
    4 << 20,
    16 << 20,
    64 << 20,
    256 << 20,
    1 << 30,
    4 << 30,
];

/// A96: the buckets of retries and hedges.
pub(crate) const FEW: &[u64] = &[1, 2, 3, 4, 5];

/// A96: the buckets of transparent retries.
pub(crate) const SOME: &[u64] = &[1, 2, 3, 4, 5, 10];

pub(crate) const CALL_DURATION: Instrument = Instrument {
    name: "grpc.client.call.duration",
    help: "How long calls took, retries and all, until their status was known.",
    unit: Unit::Seconds,
    bounds: LATENCY,
};

pub(crate) const CALL_RETRIES: Instrument = Instrument {
    name: "grpc.client.call.retries",
    help: "How many retries calls took that took any.",
    unit: Unit::Count("{retry}"),
    bounds: FEW,
};

pub(crate) const CALL_TRANSPARENT_RETRIES: Instrument = Instrument {
    name: "grpc.client.call.transparent_retries",
    help: "How many transparent retries calls took that took any.",
    unit: Unit::Count("{transparent_retry}"),
    bounds: SOME,
};

pub(crate) const CALL_HEDGES: Instrument = Instrument {
    name: "grpc.client.call.hedges",
    help: "How many hedges calls took that took any.",
    unit: Unit::Count("{hedge}"),
    bounds: FEW,
};

pub(crate) const CALL_RETRY_DELAY: Instrument = Instrument {
    name: "grpc.client.call.retry_delay",
    help: "How long calls of more than one attempt had none under way.",
    unit: Unit::Seconds,
    bounds: LATENCY,
};

pub(crate) const ATTEMPT_STARTED: Instrument = Instrument {
    name: "grpc.client.attempt.started",
    help: "How many attempts were started, those under way included.",
    unit: Unit::Count("{attempt}"),
    bounds: &[],
};

pub(crate) const ATTEMPT_DURATION: Instrument = Instrument {
    name: "grpc.client.attempt.duration",
    help: "How long attempts took, the pick of an endpoint included.",
    unit: Unit::Seconds,
    bounds: LATENCY,
};

pub(crate) const ATTEMPT_SENT: Instrument = Instrument {
    name: "grpc.client.attempt.sent_total_compressed_message_size",
    help: "How large an attempt's request messages were, compressed, without framing.",
    unit: Unit::Bytes,
    bounds: SIZE,
};

pub(crate) const ATTEMPT_RCVD: Instrument = Instrument {
    name: "grpc.client.attempt.rcvd_total_compressed_message_size",
    help: "How large an attempt's response messages were, compressed, without framing.",
    unit: Unit::Bytes,
    bounds: SIZE,
};

pub(crate) const SERVER_STARTED: Instrument = Instrument {
    name: "grpc.server.call.started",
    help: "How many calls have arrived, those under way included.",
    unit: Unit::Count("{call}"),
    bounds: &[],
};

pub(crate) const SERVER_DURATION: Instrument = Instrument {
    name: "grpc.server.call.duration",
    help: "How long calls took, from their headers to their trailers.",
    unit: Unit::Seconds,
    bounds: LATENCY,
};

pub(crate) const SERVER_SENT: Instrument = Instrument {
    name: "grpc.server.call.sent_total_compressed_message_size",
    help: "How large a call's response messages were, compressed, without framing.",
    unit: Unit::Bytes,
    bounds: SIZE,
};

pub(crate) const SERVER_RCVD: Instrument = Instrument {
    name: "grpc.server.call.rcvd_total_compressed_message_size",
    help: "How large a call's request messages were, compressed, without framing.",
    unit: Unit::Bytes,
    bounds: SIZE,
};

/// All of them.
pub(crate) const ALL: [Instrument; 13] = [
    CALL_DURATION,
    CALL_RETRIES,
    CALL_TRANSPARENT_RETRIES,
    CALL_HEDGES,
    CALL_RETRY_DELAY,
    ATTEMPT_STARTED,
    ATTEMPT_DURATION,
    ATTEMPT_SENT,
    ATTEMPT_RCVD,
    SERVER_STARTED,
    SERVER_DURATION,
    SERVER_SENT,
    SERVER_RCVD,
];

/// The suffix that OpenTelemetry's exporter appends in Prometheus for this unit, in UCUM's code.
pub(crate) fn prometheus(name: &str, unit: &str, is_counter: bool) -> String {
    let unit = match unit {
        "s" => "_seconds",
        "By" => "_bytes",
        _ => "",
    };
    let total = if is_counter { "_total" } else { "" };
    format!("{}{unit}{total}", name.replace('.', "_"))
}

// === impl Instrument ===

impl Instrument {
    /// Its name in Prometheus.
    pub(crate) fn prometheus(&self) -> String {
        prometheus(self.name, self.unit.code(), self.bounds.is_empty())
    }
}

// === impl Unit ===

impl Unit {
    /// In UCUM, as in OpenTelemetry.
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Bytes => "By",
            Self::Count(code) => code,
        }
    }

    /// A number of grains, in this unit.
    pub(crate) fn of(self, grains: u64) -> f64 {
        match self {
            Self::Seconds => grains as f64 / S as f64,
            Self::Bytes | Self::Count(_) => grains as f64,
        }
    }
}
