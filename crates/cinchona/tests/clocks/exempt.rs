//! Public API that takes a `Duration` or an `f64` and is not in the table, with the reasons.

pub(crate) const ALL: &[(&str, &[&str])] = &[(
    "it is reported, not set",
    &[
        "core::Attempt::wait",
        "core::Call::waits",
        "core::Gate::answered",
        "core::Instrument::counter",
        "core::Instrument::gauge",
        "plumbing::Allowed::of",
        "plumbing::take_off",
        "plumbing::Spent::took",
        "plumbing::Spent::usual",
        "balance::Snapshot::ejected",
        "balance::Snapshot::latency",
        "cluster::Node::phi",
        "cluster::Event::phi",
        "fault::Listed::age",
        "observe::Value::Gauge",
        "observe::Value::Counter",
        "observe::Value::bounds",
        "observe::Value::sum",
        "retry::Attempt::began",
        "retry::Attempt::duration",
        "retry::Attempt::wait",
    ],
)];

/// Rows that do not hold yet, as their crates are being mended; once one holds, it must go.
pub(crate) const NOT_YET: &[&str] = &[];
