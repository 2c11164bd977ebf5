//! What the layers of the two stacks count, told to the [`Metrics`] that are among them.
//!
//! gRPC's own metrics (`grpc.client.*`, `grpc.server.*`) are there without it; those of its outlier
//! detection, `grpc.lb.outlier_detection.*` ([gRFC A91]), are told by [`of_balance`]. Beside them
//! are those in the list below, which is their help text, too. Those of breakers have the label
//! `circuit`; `cinchona.balance.calls` has `endpoint` and `ok` (`true`, `false`),
//! `cinchona.fallback.served` `by` (`cached`, `default`, `alternate`), `cinchona.fault.injected`
//! `kind`, `cinchona.idempotency.refused` `why`, and those of the cluster `node`.
//!
//! [gRFC A91]: https://github.com/grpc/proposal/blob/master/A91-outlier-detection-metrics.md

use crate::{client, server};
use cinchona::{
    balance::Balance,
    breaker,
    cluster::{self, Cluster},
    core::Invalid,
    idempotency::{DedupLayer, Store},
    observe::Metrics,
};

/// What they are, in the words of `/metrics`.
const HELP: [(&str, &str); 27] = [
    ("cinchona.balance.calls", "Calls that an endpoint has ended."),
    ("cinchona.breaker.rejected", "Calls that a breaker did not let through."),
    ("cinchona.breaker.state", "0 closed, 1 half open, 2 open, 3 isolated."),
    ("cinchona.cluster.forged", "Datagrams that nobody with a secret has sealed."),
    ("cinchona.cluster.node_state", "0 alive, 1 suspected, 2 failed, 3 left."),
    ("cinchona.cluster.phi", "How sure one can be that a node is gone."),
    ("cinchona.fallback.none", "Calls that failed, as there was no second answer."),
    ("cinchona.fallback.served", "Second answers, by where they came from."),
    ("cinchona.fault.injected", "Faults that were injected, by kind."),
    ("cinchona.idempotency.evicted", "Answers that were forgotten before their time."),
    ("cinchona.idempotency.executed", "Calls with a key that were done."),
    ("cinchona.idempotency.refused", "Calls with a key that were not done, and why."),
    ("cinchona.idempotency.replayed", "Calls with a key that were answered again."),
    ("cinchona.retry.budget_tokens", "How many attempts the retry budget can pay for."),
    ("cinchona.retry.throttle_tokens", "How many tokens the retry throttle has left."),
    ("cinchona.shed.bulkhead_in_progress", "Calls that a client has under way."),
    ("cinchona.shed.bulkhead_turned_away", "Calls not begun, as too many were under way."),
    ("cinchona.shed.in_progress", "Requests that a server is handling."),
    ("cinchona.shed.late", "Requests that did not arrive in time."),
    ("cinchona.shed.limit", "How many requests a server can handle at once."),
    ("cinchona.shed.over_quota", "Requests beyond their callers' quotas."),
    ("cinchona.shed.streams", "Streams that a server has under way."),
    ("cinchona.shed.throttled", "Attempts that were kept from a server that sheds."),
    ("cinchona.shed.turned_away", "Requests beyond what a server can handle."),
    ("cinchona.shed.waiting", "Requests that wait for their turn."),
    ("grpc.lb.outlier_detection.ejections_enforced", "Outliers that were ejected."),
    ("grpc.lb.outlier_detection.ejections_unenforced", "Outliers that were not ejected, and why."),
];

/// Tells what the layers of a client count. Who replaces one of them tells it again.
///
/// # Errors
/// When one of the names was registered as something else.
pub fn of_client(layers: &client::Layers) -> Result<(), Invalid> {
    let client::Layers { metrics, fallback, bulkhead, retry, throttle, breaker, .. } =
        layers.clone();
    describe(&metrics);
    circuits(&metrics, breaker)?;
    let budget = retry.clone();
    metrics.gauges("cinchona.retry.budget_tokens", move |samples| {
        if let Some((left, _)) = budget.budget_tokens() {
            samples.add(&[], left);
        }
    })?;
    metrics.gauge("cinchona.retry.throttle_tokens", &[], move || retry.throttle_tokens())?;
    metrics.counter("cinchona.shed.throttled", &[], move || throttle.throttled() as f64)?;
    let (busy, away) = (bulkhead.clone(), bulkhead);
    metrics.gauge("cinchona.shed.bulkhead_in_progress", &[], move || busy.in_progress().into())?;
    metrics.counter("cinchona.shed.bulkhead_turned_away", &[], move || away.shed() as f64)?;
    let (served, none) = (fallback.counters(), fallback.counters());
    metrics.counters("cinchona.fallback.served", move |samples| {
        let of = served.snapshot();
        for (by, count) in [
            ("cached", of.served_cached),
            ("default", of.served_default),
            ("alternate", of.served_alternate),
        ] {
            samples.add(&[("by", by)], count as f64);
        }
    })?;
    metrics.counter("cinchona.fallback.none", &[], move || none.snapshot().none as f64)
}

/// Tells what became of the calls and the outliers among the endpoints of `target`, which stay
/// connected for as long as `metrics` is there.
///
/// # Errors
/// When one of the names was registered as something else.
pub fn of_balance(metrics: &Metrics, target: &str, balance: &Balance) -> Result<(), Invalid> {
    const TARGET: &str = "grpc.target";
    const METHOD: &str = "grpc.lb.outlier_detection.detection_method";
    const REASON: &str = "grpc.lb.outlier_detection.unenforced_reason";
    describe(metrics);
    let (of, to) = (balance.clone(), target.to_owned());
    metrics.counters("grpc.lb.outlier_detection.ejections_enforced", move |samples| {
        for (method, count) in of.ejections().enforced() {
            samples.add(&[(TARGET, &to), (METHOD, method)], count as f64);
        }
    })?;
    let (of, to) = (balance.clone(), target.to_owned());
    metrics.counters("grpc.lb.outlier_detection.ejections_unenforced", move |samples| {
        for (method, reason, count) in of.ejections().unenforced() {
            samples.add(&[(TARGET, &*to), (METHOD, method), (REASON, reason)], count as f64);
        }
    })?;
    let of = balance.clone();
    metrics.counters("cinchona.balance.calls", move |samples| {
        for seen in of.states() {
            let endpoint = seen.target.to_string();
            let succeeded = seen.calls - seen.failures;
            for (ok, count) in [("true", succeeded), ("false", seen.failures)] {
                samples.add(&[("endpoint", &*endpoint), ("ok", ok)], count as f64);
            }
        }
    })
}

fn describe(metrics: &Metrics) {
    HELP.iter().for_each(|(name, help)| metrics.describe(name, help));
}

fn circuits(metrics: &Metrics, layer: breaker::BreakerLayer) -> Result<(), Invalid> {
    let of = layer.clone();
    metrics.gauges("cinchona.breaker.state", move |samples| {
        for circuit in of.circuits() {
            let state = match circuit.state() {
                breaker::State::Closed => 0.0,
                breaker::State::HalfOpen => 1.0,
                breaker::State::Open => 2.0,
                breaker::State::Isolated => 3.0,
            };
            samples.add(&[("circuit", circuit.name())], state);
        }
    })?;
    metrics.counters("cinchona.breaker.rejected", move |samples| {
        for circuit in layer.circuits() {
            samples.add(&[("circuit", circuit.name())], circuit.rejected() as f64);
        }
    })
}

/// Tells what the layers of a server count, and what it holds of the cluster that it is in.
///
/// # Errors
/// When one of the names was registered as something else.
pub fn of_server<S: Store>(
    layers: &server::Layers<S>,
    cluster: Option<&Cluster>,
) -> Result<(), Invalid> {
    let metrics = &layers.metrics;
    describe(metrics);
    let quota = layers.quota.clone();
    metrics.counter("cinchona.shed.over_quota", &[], move || quota.limited() as f64)?;
    let [busy, waiting, limit, away] = [(); 4].map(|()| layers.shed.clone());
    metrics.gauge("cinchona.shed.in_progress", &[], move || busy.in_progress().into())?;
    metrics.gauge("cinchona.shed.waiting", &[], move || waiting.waiting().into())?;
    metrics.gauge("cinchona.shed.limit", &[], move || limit.limit().into())?;
    metrics.counter("cinchona.shed.turned_away", &[], move || away.shed() as f64)?;
    let [streams, late] = [(); 2].map(|()| layers.shed.clone());
    metrics.gauge("cinchona.shed.streams", &[], move || streams.streams().into())?;
    metrics.counter("cinchona.shed.late", &[], move || late.late() as f64)?;
    recognised(metrics, &layers.dedup)?;
    let faults = layers.faults.counters();
    metrics.counters("cinchona.fault.injected", move |samples| {
        for (kind, count) in faults.snapshot().kinds() {
            samples.add(&[("kind", kind)], count as f64);
        }
    })?;
    cluster.map_or(Ok(()), |cluster| nodes(metrics, cluster))
}

fn recognised<S: Store>(metrics: &Metrics, dedup: &DedupLayer<S>) -> Result<(), Invalid> {
    let [done, again, lost, not] = [(); 4].map(|()| dedup.clone());
    let executed = move || done.snapshot().executed as f64;
    metrics.counter("cinchona.idempotency.executed", &[], executed)?;
    let replayed = move || again.snapshot().replayed as f64;
    metrics.counter("cinchona.idempotency.replayed", &[], replayed)?;
    let evicted = move || lost.snapshot().evicted as f64;
    metrics.counter("cinchona.idempotency.evicted", &[], evicted)?;
    metrics.counters("cinchona.idempotency.refused", move |samples| {
        for (why, count) in not.snapshot().refused() {
            samples.add(&[("why", why)], count as f64);
        }
    })
}

fn nodes(metrics: &Metrics, cluster: &Cluster) -> Result<(), Invalid> {
    let of = cluster.clone();
    metrics.counter("cinchona.cluster.forged", &[], move || of.forged() as f64)?;
    let of = cluster.clone();
    metrics.gauges("cinchona.cluster.node_state", move |samples| {
        for node in of.nodes() {
            let state = match node.state {
                cluster::State::Alive => 0.0,
                cluster::State::Suspected => 1.0,
                cluster::State::Failed => 2.0,
                cluster::State::Left => 3.0,
            };
            samples.add(&[("node", node.id.as_str())], state);
        }
    })?;
    let of = cluster.clone();
    metrics.gauges("cinchona.cluster.phi", move |samples| {
        for node in of.nodes() {
            samples.add(&[("node", node.id.as_str())], node.phi);
        }
    })
}
