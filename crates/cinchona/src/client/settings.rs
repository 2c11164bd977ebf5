//! The settings of a client.

use super::part::Part;
use crate::parts::Modes;
use cinchona_balance::Options;
use cinchona_breaker::BreakerPolicy;
use cinchona_config::{MessageLimits, ServiceConfig};
use cinchona_core::{BoxError, Gate, Invalid, Methods, Mode, PerMethod, Rng, Target};
use cinchona_fallback::FallbackSettings;
use cinchona_observe::Metrics;
use cinchona_plumbing::{Backoff, Jitter};
use cinchona_retry::{Budget, Policy, ReplayBuffer, RetryPolicy};
use cinchona_shed::BulkheadSettings;
use std::{fmt, sync::Arc, time::Duration};
use tonic::{
    Code,
    transport::{ClientTlsConfig, Endpoint},
};

/// The default deadline, which gives way to those that calls set themselves.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

/// The default limit of an attempt, which gives way to longer deadlines.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// Observes the gate of an endpoint, or wraps it.
pub(super) type MakeGate = Arc<dyn Fn(&Target, Arc<dyn Gate>) -> Arc<dyn Gate> + Send + Sync>;

/// Changes a connection before it is made.
pub(super) type Configure = Arc<dyn Fn(Endpoint) -> Result<Endpoint, BoxError> + Send + Sync>;

/// The settings of a client: plain data, from which any number of clients is built.
///
/// The defaults suit a service of which only the .proto is known: a call ends within 30 s; failures
/// that a retry may fix are retried, with 4 attempts in all, within a retry budget; a breaker
/// rejects calls to an endpoint only in its outage.
///
/// ```
/// use cinchona::{client::{Part, Settings}, core::{Methods, Mode}, retry::RetryPolicy};
/// use std::time::Duration;
///
/// let settings = Settings::new(Methods::unknown())
///     .with_deadline(Duration::from_secs(10))
///     .with_deadline_of("orders.Orders", "Report", Some(Duration::from_secs(120)))?
///     .with_retry(RetryPolicy::default().with_max_retries(5))
///     .with_mode(Part::Bulkhead, Mode::Off);
/// # assert_eq!(settings.deadline, Some(Duration::from_secs(10)));
/// # Ok::<_, cinchona::core::Invalid>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Settings {
    /// Which methods may be executed twice, and what they stream.
    pub methods: Methods,
    /// The target of the calls, in metrics and spans. Default `None`: the endpoints as given, or
    /// `channel`.
    pub target: Option<String>,
    /// The registry of metrics. Default `None`: this client's own.
    pub metrics: Option<Metrics>,
    /// The time limit of a call; of a stream, until its first message. A call that sets one itself
    /// (`Request::set_timeout`) has the earlier of the two, as with tonic's `Endpoint::timeout`; as
    /// long as this is the default, 30 s, it has its own. `None` is no limit.
    pub deadline: Option<Duration>,
    /// The same by method, which takes precedence over `deadline`.
    pub deadlines: PerMethod<Option<Duration>>,
    /// The time limit of an attempt; of a stream, until its first message. Default 10 s; `None` is
    /// as long as the call. A method whose own [deadline](Self::deadlines) is longer than this has
    /// no limit of attempts, unless `timeouts` has one. As long as this is 10 s, it does not limit
    /// the attempts of a call that sets itself a longer deadline (`Request::set_timeout`) either.
    pub timeout: Option<Duration>,
    /// The same by method, which takes precedence over `timeout`.
    pub timeouts: PerMethod<Option<Duration>>,
    /// What is retried, how often, and after which backoff. Default: 3 retries of `UNAVAILABLE` and
    /// of attempts that took too long, after a random wait of at most 100 ms, 200 ms and 400 ms.
    pub retry: RetryPolicy,
    /// The same by method; a hedge, or no further attempt.
    pub policies: PerMethod<Policy>,
    /// The budget of retries of all calls together. Default: one for five calls, and one a second
    /// from a bucket of 100.
    pub budget: Option<Budget>,
    /// The memory for requests that may be sent again; clients of one buffer share it. Default
    /// `None`: 256 KiB a call and 16 MiB in all, for each client.
    pub buffer: Option<ReplayBuffer>,
    /// Whether every call has a ledger; see `RetrySettings::explained`. Default no.
    pub explained: bool,
    /// When the breaker of an endpoint opens.
    pub breaker: BreakerPolicy,
    /// The most calls in flight. Default 1,000.
    pub bulkhead: BulkheadSettings,
    /// Second answers. Default: none.
    pub fallback: FallbackSettings,
    /// The adaptive throttle's K: how many calls are sent for each that the server accepts, where
    /// [`Part::Throttle`] is on. Default 2; 1 to 100.
    pub throttle: f64,
    /// The limits of message sizes. Default: any size.
    pub limits: MessageLimits,
    /// gRPC's service config. Default `None`. If set, it replaces `retry` and `policies`;
    /// [`Layers::apply`](super::Layers::apply) replaces it while calls run.
    pub service_config: Option<ServiceConfig>,
    /// How endpoints are connected, picked and ejected. Default `None`:
    /// [`Options::of_one_endpoint`] for one, else [`Options::default`].
    pub balance: Option<Options>,
    /// The source of randomness for picks, jitter and ids.
    pub rng: Rng,
    pub(super) tls: Option<ClientTlsConfig>,
    pub(super) modes: Modes<{ Part::ALL.len() }>,
    pub(super) gates: Vec<MakeGate>,
    pub(super) configure: Vec<Configure>,
}

// === impl Settings ===

impl Settings {
    /// The defaults, for the methods of this .proto.
    pub fn new(methods: Methods) -> Self {
        Self {
            fallback: FallbackSettings::new(methods.clone()),
            bulkhead: BulkheadSettings::default().with_methods(methods.clone()),
            methods,
            target: None,
            metrics: None,
            deadline: Some(DEADLINE),
            deadlines: PerMethod::new(),
            timeout: Some(TIMEOUT),
            timeouts: PerMethod::new(),
            retry: retry(),
            policies: PerMethod::new(),
            budget: Some(Budget::default()),
            buffer: None,
            explained: false,
            breaker: BreakerPolicy::default(),
            throttle: 2.0,
            limits: MessageLimits::default(),
            service_config: None,
            balance: None,
            rng: Rng::from_os(),
            tls: None,
            modes: Part::modes(),
            gates: Vec::new(),
            configure: Vec::new(),
        }
    }

    /// Sets the time limit of a call; above 0. `Duration::MAX`: no limit.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline: Some(deadline), ..self }
    }

    /// Sets the time limit of calls of `method`, or of all methods of `service` if `method` is
    /// empty; above 0. `None`: no limit.
    ///
    /// # Errors
    /// When the name was given before, `service` is empty, or the deadline is 0.
    pub fn with_deadline_of(
        mut self,
        service: &str,
        method: &str,
        deadline: Option<Duration>,
    ) -> Result<Self, Invalid> {
        check_limit("deadline", deadline)?;
        self.deadlines.insert(service, method, deadline)?;
        Ok(self)
    }

    /// Sets the time limit of an attempt; above 0. `Duration::MAX` is as long as the call.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }

    /// Sets the time limit of attempts of `method`, as
    /// [`with_deadline_of`](Self::with_deadline_of).
    ///
    /// # Errors
    /// When the name was given before, `service` is empty, or the limit is 0.
    pub fn with_timeout_of(
        mut self,
        service: &str,
        method: &str,
        timeout: Option<Duration>,
    ) -> Result<Self, Invalid> {
        check_limit("timeout", timeout)?;
        self.timeouts.insert(service, method, timeout)?;
        Ok(self)
    }

    /// Sets what is retried.
    #[must_use]
    pub fn with_retry(self, retry: RetryPolicy) -> Self {
        Self { retry, ..self }
    }

    /// Sets the policy of `method`, or of all methods of `service` if `method` is empty: a
    /// [`RetryPolicy`], a [`HedgePolicy`](cinchona_retry::HedgePolicy), or no further attempt,
    /// which is `Policy::default()`.
    ///
    /// # Errors
    /// When the name was given before, or `service` is empty.
    pub fn with_policy_of(
        mut self,
        service: &str,
        method: &str,
        policy: impl Into<Policy>,
    ) -> Result<Self, Invalid> {
        self.policies.insert(service, method, policy.into())?;
        Ok(self)
    }

    /// Sets the budget of retries of all calls together; `None` lifts the limit.
    #[must_use]
    pub fn with_budget(self, budget: Option<Budget>) -> Self {
        Self { budget, ..self }
    }

    /// Sets when the breaker of an endpoint opens.
    #[must_use]
    pub fn with_breaker(self, breaker: BreakerPolicy) -> Self {
        Self { breaker, ..self }
    }

    /// Sets the most calls in flight.
    #[must_use]
    pub fn with_bulkhead(self, bulkhead: BulkheadSettings) -> Self {
        Self { bulkhead, ..self }
    }

    /// Sets second answers.
    #[must_use]
    pub fn with_fallback(self, fallback: FallbackSettings) -> Self {
        Self { fallback, ..self }
    }

    /// Adds an `idempotency-key` to calls with effects, by which the server recognises a
    /// repetition, so that they may be retried.
    ///
    /// Only for servers with a `DedupLayer` or an equivalent: any other executes such a call once
    /// for each attempt.
    #[must_use]
    pub fn with_keys(self) -> Self {
        self.turned_on(Part::Key)
    }

    /// Sets gRPC's service config, such as `ServiceConfig::parse(text)?`.
    #[must_use]
    pub fn with_service_config(self, config: ServiceConfig) -> Self {
        Self { service_config: Some(config), ..self }
    }

    /// Sets how endpoints are connected, picked and ejected. A `gate` among them replaces the
    /// breaker, `configure` is called after [`with_tls`](Self::with_tls), and
    /// [`rng`](Settings#structfield.rng) of these settings replaces theirs.
    #[must_use]
    pub fn with_balance(self, options: Options) -> Self {
        Self { balance: Some(options), ..self }
    }

    /// Sets the TLS settings of endpoints. From then on their scheme is `https`, and `dns:///`
    /// stands for it: an endpoint of `http` is refused, or never connected where a source finds it.
    /// Default: the roots that tonic's features enable (`tls-native-roots`, `tls-webpki-roots`). A
    /// crypto provider needs tonic's feature `tls-ring` or `tls-aws-lc`.
    #[must_use]
    pub fn with_tls(self, tls: ClientTlsConfig) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// Has connections made by tonic's transport, with the windows, user agent or origin of the
    /// endpoint that this returns, like [`Options::configure`](Options#structfield.configure).
    /// Several calls apply in order. A call on such a connection costs more.
    #[must_use]
    pub fn with_configure<F, E>(mut self, configure: F) -> Self
    where
        F: Fn(Endpoint) -> Result<Endpoint, E> + Send + Sync + 'static,
        E: Into<BoxError>,
    {
        self.configure.push(Arc::new(move |endpoint| configure(endpoint).map_err(Into::into)));
        self
    }

    /// Calls `look` with the gate of each endpoint, which is its breaker, to observe it or to wrap
    /// it.
    #[must_use]
    pub fn with_gate(
        mut self,
        look: impl Fn(&Target, Arc<dyn Gate>) -> Arc<dyn Gate> + Send + Sync + 'static,
    ) -> Self {
        self.gates.push(Arc::new(look));
        self
    }

    /// Names the target of the calls, in metrics and spans.
    #[must_use]
    pub fn with_target(self, target: impl Into<String>) -> Self {
        Self { target: Some(target.into()), ..self }
    }

    /// Counts in `metrics`, together with other clients and servers of the process: what clients of
    /// one target have counted is added up, and stays when they are dropped.
    #[must_use]
    pub fn with_metrics(self, metrics: &Metrics) -> Self {
        Self { metrics: Some(metrics.clone()), ..self }
    }

    /// Draws from `rng`, for reproducible runs.
    #[must_use]
    pub fn with_rng(self, rng: Rng) -> Self {
        Self { rng, ..self }
    }

    /// Sets a layer on, off, or to shadow, where it only counts what it would do; a layer that is
    /// off is left out. [`Layers::switch`](super::Layers::switch) does so while calls run.
    #[must_use]
    pub fn with_mode(mut self, part: Part, mode: Mode) -> Self {
        self.modes.set(part as usize, mode);
        self
    }

    fn turned_on(mut self, part: Part) -> Self {
        self.modes.turn_on(part as usize);
        self
    }

    /// Whether a layer is on.
    pub const fn mode(&self, part: Part) -> Mode {
        self.modes.get(part as usize)
    }
}

impl fmt::Debug for Settings {
    /// Without callbacks and keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("target", &self.target)
            .field("deadline", &self.deadline)
            .field("timeout", &self.timeout)
            .field("retry", &self.retry)
            .field("breaker", &self.breaker)
            .field("modes", &self.modes)
            .finish_non_exhaustive()
    }
}

fn retry() -> RetryPolicy {
    let codes = [Code::Unavailable, Code::DeadlineExceeded];
    let policy = RetryPolicy::default().with_forced_codes(codes);
    let backoff = Backoff::new(Duration::from_millis(100), 2.0, Duration::from_secs(5));
    backoff.map_or(policy, |backoff| policy.with_backoff(backoff.with_jitter(Jitter::Full)))
}

/// # Errors
/// When the limit leaves no time.
pub(super) fn check_limit(field: &'static str, limit: Option<Duration>) -> Result<(), Invalid> {
    match limit {
        Some(Duration::ZERO) => Err(Invalid::new(field, "0s", "more than 0")),
        _ => Ok(()),
    }
}
