//! The settings of a server.

use super::part::Part;
use crate::parts::Modes;
use cinchona_core::{Invalid, Methods, Mode, Rng};
use cinchona_drain::Drain;
use cinchona_fault::{FaultSettings, Faults};
use cinchona_idempotency::{DedupSettings, MemoryStore, Store};
use cinchona_observe::Metrics;
use cinchona_shed::{RateLimitSettings, ShedSettings};
use std::{fmt, time::Duration};

/// The settings of a server: plain data, from which any number of servers is built; its parameter
/// is the store of idempotency keys.
///
/// ```
/// use cinchona::{core::Methods, idempotency::MemoryStore, server::Settings};
/// use std::time::Duration;
///
/// let settings = Settings::new(Methods::unknown())
///     .with_limit(Duration::from_secs(60))
///     .with_grace(Duration::from_secs(20))
///     .with_quota(100, 200)?
///     .with_store(MemoryStore::new());
/// # assert_eq!(settings.grace, Duration::from_secs(20));
/// # Ok::<_, cinchona::core::Invalid>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Settings<S = MemoryStore> {
    /// The methods: what they stream, and which may be executed twice.
    pub methods: Methods,
    /// The registry of metrics. Default `None`: this server's own.
    pub metrics: Option<Metrics>,
    /// The grace of calls in flight at shutdown. Default 10 s. The shutdown does nothing to calls
    /// until the program ends the server, so it is the one layer [without a switch](Part).
    pub grace: Duration,
    /// The shutdown that several servers share. Default `None`: this server's own.
    pub drain: Option<Drain>,
    /// The quota of each caller, where [`Part::Quota`] is on.
    pub quota: RateLimitSettings,
    /// The limit of calls in flight. Default: adaptive.
    pub shed: ShedSettings,
    /// The time limit of a call, uploads included; of a stream, until its first message. Default
    /// `None`: only its caller's deadline.
    pub limit: Option<Duration>,
    /// The injected faults, where [`Part::Faults`] is on. Default: none.
    pub faults: FaultSettings,
    /// How calls are deduplicated, where [`Part::Dedup`] is on.
    pub dedup: DedupSettings,
    /// The store of their keys and answers.
    pub store: S,
    /// The source of randomness.
    pub rng: Rng,
    pub(super) modes: Modes<{ Part::ALL.len() }>,
}

// === impl Settings ===

impl Settings {
    /// The defaults, for the methods of this .proto.
    pub fn new(methods: Methods) -> Self {
        Self {
            metrics: None,
            grace: Drain::default().grace(),
            drain: None,
            quota: RateLimitSettings::default(),
            shed: ShedSettings::default().with_methods(methods.clone()),
            limit: None,
            faults: FaultSettings::default(),
            dedup: DedupSettings::new(methods.clone()),
            store: MemoryStore::new(),
            rng: Rng::from_os(),
            modes: Part::modes(),
            methods,
        }
    }
}

impl<S> Settings<S> {
    /// Ends calls that have not been answered after `limit`; above 0. `Duration::MAX`: no limit.
    #[must_use]
    pub fn with_limit(self, limit: Duration) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// Sets the grace of calls in flight at shutdown.
    #[must_use]
    pub fn with_grace(self, grace: Duration) -> Self {
        Self { grace, drain: None, ..self }
    }

    /// Shuts down with `drain`, and its grace; several servers may share it.
    #[must_use]
    pub fn with_drain(self, drain: Drain) -> Self {
        Self { grace: drain.grace(), drain: Some(drain), ..self }
    }

    /// Sets the quota of each caller, by its address: calls per second, and the burst.
    ///
    /// # Errors
    /// When one of them is 0.
    pub fn with_quota(self, per_second: u32, burst: u32) -> Result<Self, Invalid> {
        Ok(self.with_quota_settings(RateLimitSettings::new(per_second, burst)?))
    }

    /// Sets quotas by another identification of callers.
    #[must_use]
    pub fn with_quota_settings(self, quota: RateLimitSettings) -> Self {
        Self { quota, ..self }.turned_on(Part::Quota)
    }

    /// Sets the limit of calls in flight.
    #[must_use]
    pub fn with_shed(self, shed: ShedSettings) -> Self {
        Self { shed, ..self }
    }

    /// Injects `faults`.
    ///
    /// # Errors
    /// When a rate is not in 0 to 1, or the code is `OK`.
    pub fn with_faults(self, faults: Faults) -> Result<Self, Invalid> {
        Ok(self.with_fault_settings(FaultSettings::new(faults)?))
    }

    /// Injects these faults, and those of rules.
    #[must_use]
    pub fn with_fault_settings(self, faults: FaultSettings) -> Self {
        Self { faults, ..self }.turned_on(Part::Faults)
    }

    /// Deduplicates calls with an `idempotency-key` or a `request_id` by `store`: each has its
    /// effect once, however often it is sent.
    #[must_use]
    pub fn with_store<T: Store>(self, store: T) -> Settings<T> {
        let Self { methods, metrics, grace, drain, quota, shed, limit, .. } = self;
        let Self { faults, dedup, rng, modes, .. } = self;
        let calls = Settings {
            methods,
            metrics,
            grace,
            drain,
            quota,
            shed,
            limit,
            faults,
            dedup,
            store,
            rng,
            modes,
        };
        calls.turned_on(Part::Dedup)
    }

    /// Sets how calls are deduplicated, by the [store](Self::with_store).
    #[must_use]
    pub fn with_dedup(self, dedup: DedupSettings) -> Self {
        Self { dedup, ..self }.turned_on(Part::Dedup)
    }

    /// Counts in `metrics`, together with other servers and clients of the process: what servers
    /// have counted is added up, and stays when they are dropped.
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

impl<S> fmt::Debug for Settings<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("grace", &self.grace)
            .field("limit", &self.limit)
            .field("modes", &self.modes)
            .finish_non_exhaustive()
    }
}
