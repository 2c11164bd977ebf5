//! The layers, and where each of them belongs.

use crate::{
    metrics::Metrics,
    observed::{Observed, Probe},
    spans::{Role, Tracer},
};
use cinchona_core::Rng;
use http::Extensions;
use std::{error::Error, sync::Arc};
use tower_layer::Layer;

/// Counts the calls of a client, as its application sees them: `grpc.client.call.*`. Outside of
/// all that repeats, limits or replaces calls.
///
/// *Rule:* the status is the one in the trailers, or the verdict on the error; a call that is
/// dropped before its end is `CANCELLED`. Retries, hedges and the delay between attempts come from
/// an [`AttemptMetricsLayer`] further in, in the same task: where a `tower::buffer::Buffer` or the
/// like lies between the two, they are not known, and not reported.
///
/// *What cannot be known* from outside the retry layer: that attempts which fail at once, before
/// the next begins, were hedges; they count as retries, unless others of the call overlap. And a
/// call that waits for a connection (`waitForReady`) looks for one again and again, each look a
/// transparent retry.
#[derive(Clone, Debug)]
pub struct CallMetricsLayer(Probe);

/// Counts the attempts of a client, as its connections see them: `grpc.client.attempt.*`. Inside
/// of the retry layer, and outside of the attempt's time limit and the choice of an endpoint.
///
/// *Rule:* an attempt beyond a call's first is a transparent retry when its
/// `grpc-previous-rpc-attempts` is no higher than that of the ones before, else a hedge when it
/// began while others were under way or others of the call did, else a retry.
///
/// *Sizes* are those of the messages, compressed, without their five-byte prefixes. A request whose
/// length is known in advance, as behind the retry layer, is taken to be one message, and costs
/// nothing to measure; any other is counted while it is sent, for two allocations. Of an attempt
/// that provably did not leave the client nothing was sent.
#[derive(Clone, Debug)]
pub struct AttemptMetricsLayer(Probe);

/// Counts the calls that a server gets: `grpc.server.call.*`. Outermost.
///
/// *Rule:* methods that are not in the [`Metrics`]' list are counted together, as `other` (gRFC
/// A66). A call that is dropped before its trailers were written is `CANCELLED`, whether its caller
/// went away or the time was up. Sizes as [`AttemptMetricsLayer`] measures them: a request from the
/// network takes two allocations.
#[derive(Clone, Debug)]
pub struct ServerMetricsLayer(Probe);

/// A span for each call of a client. Outside of all that repeats, limits or replaces calls.
///
/// *Rule:* `traceparent` and `tracestate` are continued where the request has them, else from the
/// call that this task is serving, else a trace is begun. The span is `call` of the target
/// `cinchona_observe`, at level `INFO`, with `rpc.system`, `rpc.service`, `rpc.method`,
/// `rpc.grpc.status_code`, `server.address`, `request_id`, `trace_id`, `span_id`, `attempts`,
/// `verdict` and `stopped`; `otel.name` is `Sent.<service>.<method>` (gRFC A72). No message, header
/// or text of an error goes into it.
///
/// *Cost:* where no subscriber is interested, a call takes the look that finds this out.
#[derive(Clone, Debug)]
pub struct CallSpanLayer(Arc<Tracer>);

/// A span for each attempt of a client, inside that of its call. Inside of the retry layer.
///
/// *Rule:* the server is told this span's id as its parent. `attempt` counts from 1; `kind` is
/// `original`, `retry`, `hedge` or `transparent_retry`, and `wait` how long none was under way
/// before it, where a [`CallSpanLayer`] watches the call. Whoever picks an endpoint may
/// `Span::current().record("endpoint", ..)`: the field is there, and empty.
#[derive(Clone, Debug)]
pub struct AttemptSpanLayer(Arc<Tracer>);

/// A span for each call that a server gets. Outside of all whose logs are to be found by it.
///
/// *Rule:* a `traceparent` is continued; a malformed one is as none, and begins a trace. The
/// [`TraceContext`](crate::TraceContext) is in the request's extensions, and calls that the handler
/// makes in its own task continue it, also where no subscriber is interested.
#[derive(Clone, Debug)]
pub struct ServerSpanLayer(Arc<Tracer>);

// === impl CallMetricsLayer ===

impl CallMetricsLayer {
    /// Counts calls to `target`: the URI that the channel was made for, such as
    /// `dns:///calculator:50051`; any text, one series for each.
    pub fn new(metrics: &Metrics, target: &str) -> Self {
        Self(Probe::Calls(metrics.client(target)))
    }
}

impl<S> Layer<S> for CallMetricsLayer {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed::new(inner, self.0.clone())
    }
}

// === impl AttemptMetricsLayer ===

impl AttemptMetricsLayer {
    /// Counts attempts at calls to `target`, as [`CallMetricsLayer::new`] has it.
    pub fn new(metrics: &Metrics, target: &str) -> Self {
        Self(Probe::Attempts(metrics.client(target)))
    }
}

impl<S> Layer<S> for AttemptMetricsLayer {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed::new(inner, self.0.clone())
    }
}

// === impl ServerMetricsLayer ===

impl ServerMetricsLayer {
    /// Counts all calls.
    pub fn new(metrics: &Metrics) -> Self {
        Self(Probe::Served(metrics.server()))
    }
}

impl<S> Layer<S> for ServerMetricsLayer {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed::new(inner, self.0.clone())
    }
}

// === impl CallSpanLayer ===

impl CallSpanLayer {
    /// Spans with ids by chance.
    pub fn new() -> Self {
        Self(Arc::new(Tracer::new(Role::Call)))
    }

    /// Draws ids from `rng`.
    pub fn with_rng(self, rng: Rng) -> Self {
        Self(with_rng(self.0, rng))
    }

    /// Lets `story` say why a call stopped, for the field `stopped`: it gets the extensions of the
    /// response, or the error, and is asked only where somebody is interested.
    ///
    /// With the retry layer: `cinchona_retry::Ledger` is in the extensions, or along the error's
    /// sources.
    pub fn with_story(
        self,
        story: impl Fn(Result<&Extensions, &(dyn Error + 'static)>) -> Option<String>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        let tracer = Arc::unwrap_or_clone(self.0);
        Self(Arc::new(Tracer { story: Some(Arc::new(story)), ..tracer }))
    }
}

impl Default for CallSpanLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for CallSpanLayer {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed::new(inner, Probe::Spans(self.0.clone()))
    }
}

// === impl AttemptSpanLayer ===

impl AttemptSpanLayer {
    /// Spans with ids by chance.
    pub fn new() -> Self {
        Self(Arc::new(Tracer::new(Role::Attempt)))
    }

    /// Draws ids from `rng`.
    pub fn with_rng(self, rng: Rng) -> Self {
        Self(with_rng(self.0, rng))
    }
}

impl Default for AttemptSpanLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for AttemptSpanLayer {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed::new(inner, Probe::Spans(self.0.clone()))
    }
}

// === impl ServerSpanLayer ===

impl ServerSpanLayer {
    /// Spans with ids by chance.
    pub fn new() -> Self {
        Self(Arc::new(Tracer::new(Role::Server)))
    }

    /// Draws ids from `rng`.
    pub fn with_rng(self, rng: Rng) -> Self {
        Self(with_rng(self.0, rng))
    }
}

impl Default for ServerSpanLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for ServerSpanLayer {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed::new(inner, Probe::Spans(self.0.clone()))
    }
}

fn with_rng(tracer: Arc<Tracer>, rng: Rng) -> Arc<Tracer> {
    Arc::new(Tracer { rng, ..Arc::unwrap_or_clone(tracer) })
}
