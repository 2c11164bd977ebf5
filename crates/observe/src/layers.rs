//! The layers, and where each of them belongs.

use crate::{
    metrics::Metrics, observation::Observer, observed::Observed, place::Role, series::Table,
    spans::Tracer,
};
use cinchona_core::{Rng, Switch};
use http::Extensions;
use std::{error::Error, sync::Arc};
use tower_layer::Layer;

/// Watches the calls of a client, as its application sees them: `grpc.client.call.*`, and a span
/// for each. Outside of all that repeats, limits or replaces calls.
///
/// *Rule:* a call begins when it is made. Its status is the one in the trailers, or the verdict on
/// the error; a call that is dropped before its end is `CANCELLED`. Retries, hedges, transparent
/// retries and the delay between attempts are those in the record of the call
/// ([`cinchona_core::Call`]), where the layer that makes attempts writes them.
///
/// *Its span* is `call` of the target `cinchona_observe`, at level `INFO`, with `rpc.system`,
/// `rpc.service`, `rpc.method`, `rpc.grpc.status_code`, `server.address`, `request_id`, `trace_id`,
/// `span_id`, `parent_id`, `attempts`, `verdict` and `stopped`; `otel.name` is
/// `Sent.<service>.<method>` (gRFC A72). No message, header or text of an error goes into it.
/// `traceparent` and `tracestate` are continued where the request has them, else from the call that
/// this task is serving, else a trace is begun. Where no subscriber is interested, a call takes the
/// look that finds this out.
#[derive(Clone, Debug)]
pub struct CallLayer(Arc<Observer>);

/// Watches the attempts of a client, as its connections see them: `grpc.client.attempt.*`, and a
/// span for each inside that of its call. Inside of the retry layer, and outside of the attempt's
/// time limit and the choice of an endpoint.
///
/// *Rule:* what an attempt is, a retry, a hedge or a transparent retry, the record of its call
/// says. Where somebody else repeats requests, and keeps no record, one that begins while another
/// is under way is a hedge, and any other a retry.
///
/// *Its span* is `attempt`: the request carries its id as the parent of the server's span.
/// `attempt` counts from 1; `kind` is `original`, `retry`, `hedge` or `transparent_retry`, and
/// `wait` how long none was under way before it, where a layer further out has made the record of
/// the call. The balancer that picks an endpoint, as `cinchona-balance` does, says so by
/// `Span::current().record("endpoint", ..)`.
///
/// *Sizes* are those of the messages, compressed, without their five-byte prefixes. A request whose
/// length is known in advance, as behind the retry layer, is taken to be one message, and costs
/// nothing to measure; any other is counted while it is sent, for an allocation. Of an attempt that
/// provably did not leave the client nothing was sent.
#[derive(Clone, Debug)]
pub struct AttemptLayer(Arc<Observer>);

/// Watches the calls that a server gets: `grpc.server.call.*`, and a span for each. Outermost, so
/// that all logs of a call are found by its span.
///
/// *Rule:* methods that are not in the [`Metrics`]' list are counted together, as `other` (gRFC
/// A66). A call that is dropped before its trailers were written is `CANCELLED`, whether its caller
/// went away or the time was up. Sizes as [`AttemptLayer`] measures them: a request from the
/// network whose length was not announced takes an allocation.
///
/// *Its span* is `serve`, with the fields of [`CallLayer`]'s that a server can know. How the call
/// ended is a line in it: at level `ERROR` where the code says that the server failed, else at
/// `DEBUG`. A `traceparent` is continued; a malformed one is as none, and begins a trace. The
/// [`TraceContext`](crate::TraceContext) is in the request's extensions, and calls that the handler
/// makes in its own task continue it, also where no subscriber is interested.
#[derive(Clone, Debug)]
pub struct ServerLayer(Arc<Observer>);

// === impl CallLayer ===

impl CallLayer {
    /// Watches calls to `target`: the URI that the channel was made for, such as
    /// `dns:///calculator:50051`; any text, one series for each.
    pub fn new(metrics: &Metrics, target: &str) -> Self {
        Self(watcher(Role::Call, metrics.client(target)))
    }

    /// Draws ids from `rng`. Default: by chance.
    #[must_use]
    pub fn with_rng(self, rng: Rng) -> Self {
        Self(with_rng(self.0, rng))
    }

    /// Lets `switch` decide whether calls are watched; in shadow they are, as it changes none.
    #[must_use]
    pub fn with_switch(self, switch: Switch) -> Self {
        Self(with_switch(self.0, switch))
    }

    /// Lets `story` say why a call stopped, for the field `stopped`: it gets the extensions of the
    /// response, or the error, and is asked only where somebody is interested.
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
        let mut watcher = Arc::unwrap_or_clone(self.0);
        Arc::make_mut(&mut watcher.tracer).story = Some(Arc::new(story));
        Self(Arc::new(watcher))
    }
}

impl<S> Layer<S> for CallLayer {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed::new(inner, self.0.clone())
    }
}

// === impl AttemptLayer ===

impl AttemptLayer {
    /// Watches attempts at calls to `target`, as [`CallLayer::new`] has it.
    pub fn new(metrics: &Metrics, target: &str) -> Self {
        Self(watcher(Role::Attempt, metrics.client(target)))
    }

    /// Draws ids from `rng`. Default: by chance.
    #[must_use]
    pub fn with_rng(self, rng: Rng) -> Self {
        Self(with_rng(self.0, rng))
    }

    /// Lets `switch` decide whether calls are watched; in shadow they are, as it changes none.
    #[must_use]
    pub fn with_switch(self, switch: Switch) -> Self {
        Self(with_switch(self.0, switch))
    }
}

impl<S> Layer<S> for AttemptLayer {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed::new(inner, self.0.clone())
    }
}

// === impl ServerLayer ===

impl ServerLayer {
    /// Watches all calls.
    pub fn new(metrics: &Metrics) -> Self {
        Self(watcher(Role::Served, metrics.server()))
    }

    /// Draws ids from `rng`. Default: by chance.
    #[must_use]
    pub fn with_rng(self, rng: Rng) -> Self {
        Self(with_rng(self.0, rng))
    }

    /// Lets `switch` decide whether calls are watched; in shadow they are, as it changes none.
    #[must_use]
    pub fn with_switch(self, switch: Switch) -> Self {
        Self(with_switch(self.0, switch))
    }
}

impl<S> Layer<S> for ServerLayer {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed::new(inner, self.0.clone())
    }
}

fn watcher(role: Role, table: Arc<Table>) -> Arc<Observer> {
    Arc::new(Observer { role, table, tracer: Arc::new(Tracer::new()), switch: Switch::default() })
}

fn with_rng(watcher: Arc<Observer>, rng: Rng) -> Arc<Observer> {
    let mut watcher = Arc::unwrap_or_clone(watcher);
    Arc::make_mut(&mut watcher.tracer).rng = rng;
    Arc::new(watcher)
}

fn with_switch(watcher: Arc<Observer>, switch: Switch) -> Arc<Observer> {
    Arc::new(Observer { switch, ..Arc::unwrap_or_clone(watcher) })
}
