//! The metrics of a balancer.

use crate::{Balance, State};
use cinchona_core::{Instrument, Observable};

/// The label of an endpoint.
const ENDPOINT: &str = "endpoint";
const METHOD: &str = "grpc.lb.outlier_detection.detection_method";
const REASON: &str = "grpc.lb.outlier_detection.unenforced_reason";

/// The counters of [gRFC A91], and those of each `endpoint`. A91 requires a label `grpc.target` as
/// well, which the balancer does not know: add it when registering. Observing the metrics keeps
/// neither a balancer nor its connections.
///
/// [gRFC A91]: https://github.com/grpc/proposal/blob/master/A91-outlier-detection-metrics.md
impl Observable for Balance {
    const INSTRUMENTS: &'static [Instrument<Self>] = &[
        Instrument::counters(
            "cinchona.balance.calls",
            "{call}",
            "Calls at an endpoint that have ended.",
            |balance, add| {
                for seen in balance.states() {
                    let endpoint = seen.target.to_string();
                    let succeeded = seen.calls - seen.failures;
                    for (ok, count) in [("true", succeeded), ("false", seen.failures)] {
                        add(&[(ENDPOINT, &endpoint), ("ok", ok)], count as f64);
                    }
                }
            },
        ),
        Instrument::gauges(
            "cinchona.balance.in_flight",
            "{call}",
            "Calls in flight at an endpoint.",
            |balance, add| {
                for seen in balance.states() {
                    add(&[(ENDPOINT, &seen.target.to_string())], seen.in_flight as f64);
                }
            },
        ),
        Instrument::gauges(
            "cinchona.balance.state",
            "",
            "The state of an endpoint: 0 idle, 1 connecting, 2 connected, 3 down.",
            |balance, add| {
                for seen in balance.states() {
                    let state = match seen.state {
                        State::Idle => 0.0,
                        State::Connecting => 1.0,
                        State::Ready => 2.0,
                        // `TransientFailure`.
                        _ => 3.0,
                    };
                    add(&[(ENDPOINT, &seen.target.to_string())], state);
                }
            },
        ),
        Instrument::counters(
            "grpc.lb.outlier_detection.ejections_enforced",
            "{ejection}",
            "Outliers that were ejected.",
            |balance, add| {
                for (method, count) in balance.ejections().enforced() {
                    add(&[(METHOD, method)], count as f64);
                }
            },
        ),
        Instrument::counters(
            "grpc.lb.outlier_detection.ejections_unenforced",
            "{ejection}",
            "Outliers that were not ejected, by reason.",
            |balance, add| {
                for (method, reason, count) in balance.ejections().unenforced() {
                    add(&[(METHOD, method), (REASON, reason)], count as f64);
                }
            },
        ),
    ];

    fn finder(&self) -> impl Fn() -> Option<Self> + Send + Sync + use<> + 'static {
        let handle = self.0.finder();
        move || handle().map(Self)
    }
}
