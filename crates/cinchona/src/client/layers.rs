//! The running layers of a client.

use super::{
    Settings, checks,
    part::Part,
    settings::{DEADLINE, MakeGate, TIMEOUT},
};
use crate::parts::Switches;
use cinchona_balance::{Balance, Options};
use cinchona_breaker::{BreakerLayer, BreakerSettings};
use cinchona_config::{Client, MessageLimitsLayer, MessageLimitsSettings, ServiceConfig, Warning};
use cinchona_core::{Discover, Gate, Invalid, Mode, PerMethod, Switch, Target};
use cinchona_deadline::{
    AttemptTimeoutLayer, AttemptTimeoutSettings, CallDeadlineLayer, CallDeadlineSettings,
};
use cinchona_fallback::FallbackLayer;
use cinchona_idempotency::{IdempotencyKeyLayer, IdempotencyKeySettings};
use cinchona_observe::{AttemptLayer, AttemptSettings, CallLayer, CallSettings, Metrics, Owner};
use cinchona_plumbing::cause::find_cause;
use cinchona_retry::{Ledger, Policy, RetryLayer, RetrySettings};
use cinchona_shed::{AdaptiveThrottleLayer, AdaptiveThrottleSettings, BulkheadLayer};
use http::Extensions;
use std::{error::Error, fmt, sync::Arc, time::Duration};

/// The layers of a client, which can be changed while calls run; clones share them.
///
/// A layer can be replaced before they are put [around](Self::around) a channel, as in
/// `layers.retry = retry_settings.layer()`; then call [`register`](Self::register) for
/// its metrics. These are shown until the last clone and the last channel that they are around are
/// dropped, together with those of other clients of the same target ([`Owner`]).
#[derive(Clone)]
#[non_exhaustive]
pub struct Layers {
    /// The metrics of calls and attempts, and of the layers.
    pub metrics: Metrics,
    /// Metrics and span of a call.
    pub call: CallLayer,
    /// The idempotency key of a call.
    pub key: IdempotencyKeyLayer,
    /// The limits of message sizes.
    pub limits: MessageLimitsLayer,
    /// The call's deadline.
    pub deadline: CallDeadlineLayer,
    /// Second answers.
    pub fallback: FallbackLayer,
    /// The limit of calls in flight.
    pub bulkhead: BulkheadLayer,
    /// Retries and hedges.
    pub retry: RetryLayer,
    /// Metrics and span of an attempt.
    pub attempt: AttemptLayer,
    /// Adaptive throttling towards a server that refuses calls.
    pub throttle: AdaptiveThrottleLayer,
    /// The time limit of an attempt.
    pub timeout: AttemptTimeoutLayer,
    /// Makes the breaker of each endpoint.
    pub breaker: BreakerLayer,
    pub(super) switches: Switches<{ Part::ALL.len() }>,
    gates: Vec<MakeGate>,
    target: Arc<str>,
    own: Owner,
}

// === impl Settings ===

impl Settings {
    /// The layers, to be put around your own channel.
    ///
    /// # Errors
    /// When a number is outside its range, or a name is not that of a method in the descriptor set.
    pub fn layers(&self) -> Result<Layers, Invalid> {
        Layers::of(self)
    }
}

// === impl Layers ===

impl Layers {
    pub(super) fn of(settings: &Settings) -> Result<Self, Invalid> {
        checks::check(settings)?;
        let switches = settings.modes.switches();
        let switch = |part: Part| switches.get(part as usize).clone();
        let Settings { methods, rng, .. } = settings.clone();
        let metrics = settings.metrics.clone();
        let metrics = metrics.unwrap_or_else(|| Metrics::new(methods.clone()));
        let target = settings.target.as_deref().unwrap_or("channel");
        let call = CallSettings::new(target).with_rng(rng.clone()).with_story(stopped);
        let attempt = AttemptSettings::new(target).with_rng(rng.clone());
        let key = IdempotencyKeySettings::new(methods).with_switch(switch(Part::Key)).layer();
        let limits = MessageLimitsSettings::new().with_limits(settings.limits);
        let throttle = throttle(settings.throttle)?.with_rng(rng.clone());
        let breaker = BreakerSettings::new(settings.breaker).with_rng(rng);
        // What a client counts and holds is its own: one that hangs must not hold the places of
        // another that was made from the same settings.
        let (fallback, bulkhead) = (settings.fallback.clone(), settings.bulkhead.clone());
        let layers = Self {
            call: call.with_switch(switch(Part::Call)).layer(&metrics),
            key,
            limits: limits.with_switch(switch(Part::Limits)).layer(),
            deadline: deadline(settings).with_switch(switch(Part::Deadline)).layer(),
            fallback: fallback.with_switch(switch(Part::Fallback)).layer(),
            bulkhead: bulkhead.with_switch(switch(Part::Bulkhead)).layer(),
            retry: retry(settings)?.with_switch(switch(Part::Retry)).layer(),
            attempt: attempt.with_switch(switch(Part::Attempt)).layer(&metrics),
            throttle: throttle.with_switch(switch(Part::Throttle)).layer(),
            timeout: timeout(settings).with_switch(switch(Part::Timeout)).layer(),
            breaker: breaker.with_switch(switch(Part::Breaker)).layer(),
            switches,
            gates: settings.gates.clone(),
            target: target.into(),
            own: metrics.owner(),
            metrics,
        };
        if let Some(config) = &settings.service_config {
            layers.apply(config)?;
        }
        layers.register()?;
        Ok(layers)
    }

    /// Applies a service config while calls run: calls that have begun keep their settings. As in
    /// gRPC, a method without a policy in the config is not retried from then on. Its load
    /// balancing settings apply only to balancers that are built later.
    ///
    /// Returns the settings without an effect, which are logged as well; see
    /// [`ServiceConfig::apply`].
    ///
    /// # Errors
    /// When it hedges a method that may not be executed twice. Nothing is changed then.
    pub fn apply(&self, config: &ServiceConfig) -> Result<Vec<Warning>, Invalid> {
        let client = Client::new(&self.deadline, &self.retry).with_limits(&self.limits);
        config.apply_to(client)
    }

    /// A channel over all endpoints that `discover` finds, each with its own breaker, unless
    /// `options` has another gate for them. Its metrics are registered.
    ///
    /// # Errors
    /// When an option is outside its range, or an address is invalid.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn balance(&self, discover: impl Discover, options: Options) -> Result<Balance, Invalid> {
        let balance = Balance::new(discover, self.gated(options))?;
        self.own.register(&balance, &self.labels())?;
        Ok(balance)
    }

    pub(super) fn gated(&self, options: Options) -> Options {
        // Not all of them: the balancer would own the metrics that end before it does.
        let (breaker, gates) = (self.breaker.clone(), self.gates.clone());
        let own = move |server: &Target| gate(&breaker, &gates, server);
        Options { gate: Some(options.gate.unwrap_or_else(|| Arc::new(own))), ..options }
    }

    /// The gate of an endpoint: its breaker, and the user's gate around it.
    pub fn gate(&self, server: &Target) -> Arc<dyn Gate> {
        gate(&self.breaker, &self.gates, server)
    }

    /// Calls `look` with the gate of each endpoint of balancers that are built from now on, to
    /// observe it or to wrap it.
    #[must_use]
    pub fn with_gate(
        mut self,
        look: impl Fn(&Target, Arc<dyn Gate>) -> Arc<dyn Gate> + Send + Sync + 'static,
    ) -> Self {
        self.gates.push(Arc::new(look));
        self
    }

    /// The switch of a layer.
    pub const fn switch(&self, part: Part) -> &Switch {
        self.switches.get(part as usize)
    }

    /// The target of the calls.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Registers their metrics in `metrics`, each in place of the one of these layers that it
    /// replaces; call it again after replacing a layer.
    ///
    /// # Errors
    /// When one of the names was registered as something else.
    pub fn register(&self) -> Result<(), Invalid> {
        let (own, labels) = (&self.own, self.labels());
        own.register(&self.fallback, &labels)?;
        own.register(&self.bulkhead, &labels)?;
        own.register(&self.retry, &labels)?;
        own.register(&self.throttle, &labels)?;
        own.register(&self.breaker, &labels)
    }

    fn labels(&self) -> [(&str, &str); 1] {
        [("grpc.target", &self.target)]
    }
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layers")
            .field("target", &self.target)
            .field("switches", &self.switches)
            .finish_non_exhaustive()
    }
}

fn gate(breaker: &BreakerLayer, gates: &[MakeGate], server: &Target) -> Arc<dyn Gate> {
    let breaker = breaker.endpoint(server.to_string());
    gates.iter().fold(breaker, |gate, look| look(server, gate))
}

fn deadline(settings: &Settings) -> CallDeadlineSettings {
    let deadline = CallDeadlineSettings::new().with_limits(settings.deadlines.clone());
    match settings.deadline {
        Some(DEADLINE) => deadline.with_limit(DEADLINE).yielding(),
        Some(limit) => deadline.with_limit(limit),
        None => deadline,
    }
}

fn timeout(settings: &Settings) -> AttemptTimeoutSettings {
    let limit = settings.timeout.unwrap_or(Duration::MAX);
    // The limit for all is meant for the deadline of all: a method that is given more time has it.
    let of_longer = |deadline: &Option<Duration>| {
        let is_longer = deadline.is_none_or(|deadline| deadline > limit);
        settings.timeout.filter(|_| !is_longer)
    };
    let mut limits = settings.timeouts.clone();
    limits.fill(settings.deadlines.map(of_longer));
    let timeout = AttemptTimeoutSettings::new(limit).with_limits(limits);
    match settings.timeout == Some(TIMEOUT) {
        true => timeout.yielding(),
        false => timeout,
    }
}

/// # Errors
/// When `k` is outside the layer's range, by the name that it has here.
fn throttle(k: f64) -> Result<AdaptiveThrottleSettings, Invalid> {
    AdaptiveThrottleSettings::new(k)
        .map_err(|refused| Invalid::new("throttle", k, refused.allowed()))
}

fn retry(settings: &Settings) -> Result<RetrySettings, Invalid> {
    let methods = settings.methods.clone();
    // Without its key, such a call is still not repeated.
    let is_keyed = settings.mode(Part::Key) != Mode::Off;
    let methods = if is_keyed { methods.keyed() } else { methods };
    let retry = RetrySettings::new(settings.retry, methods)
        .with_rng(settings.rng.clone())
        .with_budget(settings.budget);
    let retry = if settings.explained { retry.explained() } else { retry };
    let retry = match &settings.buffer {
        Some(buffer) => retry.with_buffer(buffer.clone()),
        None => retry,
    };
    let mut policies: PerMethod<Policy> = settings.policies.clone();
    // A method without its own policy uses the one for all, if none is set yet.
    _ = policies.insert("", "", settings.retry.into());
    retry.with_policies(policies)
}

/// Why a call was not retried.
fn stopped(outcome: Result<&Extensions, &(dyn Error + 'static)>) -> Option<String> {
    let ledger = match outcome {
        Ok(extensions) => extensions.get::<Ledger>(),
        Err(error) => find_cause::<Ledger>(error),
    };
    ledger.map(|ledger| ledger.stopped().to_string())
}
