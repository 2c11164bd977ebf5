//! The layers, and where each of them belongs.

use crate::{
    metrics::Metrics,
    observation::Observer,
    observed::Observed,
    place::Role,
    series::Table,
    spans::{Story, Tracer},
};
use cinchona_core::{Rng, Switch};
use cinchona_plumbing::{Callback, Misplaced};
use http::Extensions;
use std::{error::Error, sync::Arc};
use tower_layer::Layer;

/// Observes the calls of a client, as its application sees them: `grpc.client.call.*`, and a span
/// for each. Place it outside of all layers that repeat, limit or replace calls.
///
/// *Rule:* a call begins when it is made. Its status is the one in the trailers, or the verdict on
/// the error; a call that is dropped before its end is `CANCELLED`. Retries, hedges, transparent
/// retries and the delay between attempts are taken from the record of the call
/// ([`cinchona_core::Call`]), if the layer that makes attempts writes them.
///
/// *Its span* is `call` of the target `cinchona_observe`, at level `INFO`, with `rpc.system`,
/// `rpc.service`, `rpc.method`, `rpc.grpc.status_code`, `server.address`, `request_id`, `trace_id`,
/// `span_id`, `parent_id`, `attempts`, `verdict` and `stopped`; `otel.name` is
/// `Sent.<service>.<method>` (gRFC A72). It contains no message, header or text of an error.
/// `traceparent` and `tracestate` are continued if the request has them, else from the call that
/// this task is serving, else a trace is begun. Without an interested subscriber, a call costs only
/// the check for one.
#[derive(Clone, Debug)]
pub struct CallLayer(Arc<Observer>);

/// Observes the attempts of a client, as its connections see them: `grpc.client.attempt.*`, and a
/// span for each inside that of its call. Place it inside the retry layer, and outside of the
/// attempt's time limit and the choice of an endpoint.
///
/// *Rule:* the record of its call defines whether an attempt is a retry, a hedge or a transparent
/// retry. If another layer repeats requests without a record, an attempt that begins while another
/// is in flight is a hedge, and any other a retry.
///
/// *Its span* is `attempt`: the request carries its id as the parent of the server's span.
/// `attempt` counts from 1; `kind` is `original`, `retry`, `hedge` or `transparent_retry`, and
/// `wait` the time before it without one in flight, if a layer further out has made the record of
/// the call. A balancer that picks an endpoint, such as `cinchona-balance`, records it by
/// `Span::current().record("endpoint", ..)`.
///
/// *Sizes* are those of the messages, compressed, without their five-byte prefixes. A request whose
/// length is known in advance, as behind the retry layer, counts as one message, and costs nothing
/// to measure; any other is counted while it is sent, at the cost of an allocation. For an attempt
/// that provably did not leave the client the size is zero.
#[derive(Clone, Debug)]
pub struct AttemptLayer(Arc<Observer>);

/// Observes the calls of a server: `grpc.server.call.*`, and a span for each. Place it outermost,
/// so that all logs of a call are in its span.
///
/// *Rule:* methods that are not in the [`Metrics`]' list are counted together, as `other` (gRFC
/// A66). A call that is dropped before its trailers were written is `CANCELLED`, whether its caller
/// cancelled or the deadline passed. Sizes are as in [`AttemptLayer`]: a request without an
/// announced length takes an allocation, unless all of it has arrived.
///
/// *Its span* is `serve`, with the fields of [`CallLayer`]'s that a server can know. Its end is a
/// log line in it: at level `ERROR` for codes of server failures, else at `DEBUG`. A `traceparent`
/// is continued; a malformed one counts as none, and begins a trace. The
/// [`TraceContext`](crate::TraceContext) is in the request's extensions, and calls that the handler
/// makes in its own task continue it, even without an interested subscriber.
#[derive(Clone, Debug)]
pub struct ServerLayer(Arc<Observer>);

/// The settings of a [`CallLayer`].
#[derive(Clone, Debug, PartialEq)]
pub struct CallSettings {
    target: String,
    rng: Option<Rng>,
    story: Option<Callback<Story>>,
    switch: Option<Switch>,
}

/// The settings of an [`AttemptLayer`].
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptSettings {
    target: String,
    rng: Option<Rng>,
    switch: Option<Switch>,
}

/// The settings of a [`ServerLayer`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerSettings {
    rng: Option<Rng>,
    switch: Option<Switch>,
}

// === impl CallSettings ===

impl CallSettings {
    /// Observes calls to `target`: the URI of the channel, such as `dns:///calculator:50051`; any
    /// text, one series for each.
    pub fn new(target: impl Into<String>) -> Self {
        Self { target: target.into(), rng: None, story: None, switch: None }
    }

    /// Draws ids from `rng`. Default: random.
    #[must_use]
    pub fn with_rng(self, rng: Rng) -> Self {
        Self { rng: Some(rng), ..self }
    }

    /// Sets the switch that decides whether calls are observed; in shadow they are, as it changes
    /// none.
    #[must_use]
    pub fn with_switch(self, switch: Switch) -> Self {
        Self { switch: Some(switch), ..self }
    }

    /// Sets the function that explains why a call stopped, for the field `stopped`: it gets the
    /// extensions of the response, or the error, and is called only if a subscriber is interested.
    ///
    /// With the retry layer: `cinchona_retry::Ledger` is in the extensions, or along the error's
    /// sources.
    #[must_use]
    pub fn with_story(
        self,
        story: impl Fn(Result<&Extensions, &(dyn Error + 'static)>) -> Option<String>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self { story: Some(Callback(Arc::new(story))), ..self }
    }

    /// A layer with these settings, which counts in `metrics`.
    #[must_use]
    pub fn layer(&self, metrics: &Metrics) -> CallLayer {
        let story = self.story.as_ref().map(|story| story.0.clone());
        let table = metrics.client(&self.target);
        CallLayer(observer(Role::Call, table, &self.rng, story, &self.switch))
    }
}

// === impl CallLayer ===

impl CallLayer {
    /// The layer of [`CallSettings::new`].
    pub fn new(metrics: &Metrics, target: &str) -> Self {
        CallSettings::new(target).layer(metrics)
    }
}

impl<S> Layer<S> for CallLayer {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed::new(inner, self.0.clone())
    }
}

// === impl AttemptSettings ===

impl AttemptSettings {
    /// Observes attempts at calls to `target`, as in [`CallSettings::new`].
    pub fn new(target: impl Into<String>) -> Self {
        Self { target: target.into(), rng: None, switch: None }
    }

    /// Draws ids from `rng`. Default: random.
    #[must_use]
    pub fn with_rng(self, rng: Rng) -> Self {
        Self { rng: Some(rng), ..self }
    }

    /// Sets the switch that decides whether calls are observed; in shadow they are, as it changes
    /// none.
    #[must_use]
    pub fn with_switch(self, switch: Switch) -> Self {
        Self { switch: Some(switch), ..self }
    }

    /// A layer with these settings, which counts in `metrics`.
    #[must_use]
    pub fn layer(&self, metrics: &Metrics) -> AttemptLayer {
        let table = metrics.client(&self.target);
        AttemptLayer(observer(Role::Attempt, table, &self.rng, None, &self.switch))
    }
}

// === impl AttemptLayer ===

impl AttemptLayer {
    /// The layer of [`AttemptSettings::new`].
    pub fn new(metrics: &Metrics, target: &str) -> Self {
        AttemptSettings::new(target).layer(metrics)
    }
}

impl<S> Layer<S> for AttemptLayer {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed::new(inner, self.0.clone())
    }
}

// === impl ServerSettings ===

impl ServerSettings {
    /// Observes all calls.
    pub fn new() -> Self {
        Self::default()
    }

    /// Draws ids from `rng`. Default: random.
    #[must_use]
    pub fn with_rng(self, rng: Rng) -> Self {
        Self { rng: Some(rng), ..self }
    }

    /// Sets the switch that decides whether calls are observed; in shadow they are, as it changes
    /// none.
    #[must_use]
    pub fn with_switch(self, switch: Switch) -> Self {
        Self { switch: Some(switch), ..self }
    }

    /// A layer with these settings, which counts in `metrics`.
    #[must_use]
    pub fn layer(&self, metrics: &Metrics) -> ServerLayer {
        ServerLayer(observer(Role::Served, metrics.server(), &self.rng, None, &self.switch))
    }
}

// === impl ServerLayer ===

impl ServerLayer {
    /// The layer of [`ServerSettings::new`].
    pub fn new(metrics: &Metrics) -> Self {
        ServerSettings::new().layer(metrics)
    }
}

impl<S> Layer<S> for ServerLayer {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed::new(inner, self.0.clone())
    }
}

fn observer(
    role: Role,
    table: Arc<Table>,
    rng: &Option<Rng>,
    story: Option<Arc<Story>>,
    switch: &Option<Switch>,
) -> Arc<Observer> {
    let tracer = Tracer { rng: rng.clone().unwrap_or_default(), story };
    let switch = switch.clone().unwrap_or_default();
    let misplaced = Misplaced::default();
    Arc::new(Observer { role, table, tracer: Arc::new(tracer), switch, misplaced })
}
