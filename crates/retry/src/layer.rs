//! The layer, and its service.

use crate::{
    call::Call,
    executor::{self, First},
    future::ResponseFuture,
    plan::Plan,
    policies::Policies,
    shared::{Shared, Template},
    warnings::UnsafeToRepeat,
};
use bytes::Bytes;
use cinchona_core::{BoxError, Deadline, Invalid, Methods, Mode, PerMethod, Rng, Switch};
use cinchona_plumbing::{Misplaced, ReplayBuffer, ResponseBody, clock::Passing};
use cinchona_policy::retry::{Budget, Kind, Policy, RetryPolicy, RetryThrottling, SharedBudget};
use std::{
    sync::{Arc, Mutex},
    task::{Context, Poll},
};
use tokio::time::Instant;
use tonic::body::Body;
use tower_layer::Layer;
use tower_service::Service;

/// Applies [`Retry`] to a service.
///
/// Its clones, and the services it was applied to, share the policies, the throttle and the budget;
/// `set_` methods change them while calls run.
#[derive(Clone, Debug)]
pub struct RetryLayer {
    pub(crate) shared: Arc<Shared>,
}

/// The settings of a [`RetryLayer`].
#[derive(Clone, Debug, PartialEq)]
pub struct RetrySettings {
    policies: PerMethod<Policy>,
    methods: Methods,
    rng: Option<Rng>,
    throttle: Option<(f64, f64)>,
    budget: Option<Budget>,
    buffer: Option<ReplayBuffer>,
    switch: Option<Switch>,
    retries_of_retries: bool,
    explained: bool,
}

/// The tokens of a [`RetryLayer`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RetryCounters {
    /// The tokens left in the throttle; 0 while it is off.
    pub throttle_tokens: f64,
    /// The throttle's limit; `None` while it is off.
    pub throttle_max_tokens: Option<f64>,
    /// The tokens in the shared bucket of the [`Budget`], and its limit; `None` without a budget.
    /// What methods have in buckets of their own is extra.
    pub budget_tokens: Option<(f64, f64)>,
}

/// Repeats calls if that can help, or sends them several times in parallel.
#[derive(Clone, Debug)]
pub struct Retry<S> {
    inner: S,
    template: Template<S>,
    shared: Arc<Shared>,
}

// === impl RetrySettings ===

impl RetrySettings {
    /// Retries every method by `policy`, and possibly executed requests only if `methods` allows
    /// it; with the default [`Budget`] and no throttle.
    pub fn new(policy: RetryPolicy, methods: Methods) -> Self {
        Self {
            policies: PerMethod::from(Policy::from(policy)),
            methods,
            rng: None,
            throttle: None,
            budget: Some(Budget::default()),
            buffer: None,
            switch: None,
            retries_of_retries: false,
            explained: false,
        }
    }

    /// Draws the jitter from `rng`, for reproducible runs.
    #[must_use]
    pub fn with_rng(self, rng: Rng) -> Self {
        Self { rng: Some(rng), ..self }
    }

    /// Limits the attempts of all calls together; `None` lifts the limit. Default
    /// [`Budget::default`]: 0.2 further attempts a call, 100 besides, and 1 a second.
    #[must_use]
    pub fn with_budget(self, budget: Option<Budget>) -> Self {
        Self { budget, ..self }
    }

    /// Keeps requests for further attempts in `buffer`. Default 256 KiB a call, 16 MiB in all.
    #[must_use]
    pub fn with_buffer(self, buffer: ReplayBuffer) -> Self {
        Self { buffer: Some(buffer), ..self }
    }

    /// Sets the switch that decides whether retries are made, only counted, or not considered.
    #[must_use]
    pub fn with_switch(self, switch: Switch) -> Self {
        Self { switch: Some(switch), ..self }
    }

    /// Also retries in a handler that is serving a retry. By default only the first caller of a
    /// chain retries, as otherwise `n` callers make `4^n` attempts.
    #[must_use]
    pub fn with_retries_of_retries(self) -> Self {
        Self { retries_of_retries: true, ..self }
    }

    /// Adds the ledger to every call: a [`Ledger`](crate::Ledger) is in the extensions of a
    /// response even if the first attempt has succeeded, and in the details of a failure's status.
    ///
    /// Off by default: it costs a few allocations per call, and a server that passes on the
    /// failures of its clients would reveal to its own callers which servers it calls.
    #[must_use]
    pub fn explained(self) -> Self {
        Self { explained: true, ..self }
    }

    /// Gives each method its own policy, and methods without one a single attempt.
    ///
    /// # Errors
    /// When a method would be hedged that may not be executed twice; it is named.
    pub fn with_policies(self, policies: PerMethod<Policy>) -> Result<Self, Invalid> {
        check(&policies, &self.methods)?;
        Ok(Self { policies, ..self })
    }

    /// Turns on the retry throttle of gRFC A6, as [`RetryLayer::set_throttle`] does.
    ///
    /// # Errors
    /// When `max_tokens` is not above 0 and at most 1000, or `token_ratio` is below 0.001.
    pub fn with_throttle(self, max_tokens: f64, token_ratio: f64) -> Result<Self, Invalid> {
        RetryThrottling::default().set(max_tokens, token_ratio)?;
        Ok(Self { throttle: Some((max_tokens, token_ratio)), ..self })
    }

    /// A layer with these settings, and its own budget, throttle, and delays of hedges by load.
    #[must_use]
    pub fn layer(&self) -> RetryLayer {
        let throttle = RetryThrottling::default();
        // These were checked when they were set.
        self.throttle.into_iter().for_each(|(most, ratio)| _ = throttle.set(most, ratio));
        let shared = Shared {
            policies: Policies::new(&self.policies),
            methods: self.methods.clone(),
            rng: self.rng.clone().unwrap_or_default(),
            throttle,
            budget: SharedBudget::new(self.budget, Instant::now()),
            buffer: self.buffer.clone().unwrap_or_default(),
            switch: self.switch.clone().unwrap_or_default(),
            retries_of_retries: self.retries_of_retries,
            explained: self.explained,
            unsafe_to_repeat: UnsafeToRepeat::default(),
            misplaced: Misplaced::default(),
        };
        RetryLayer { shared: Arc::new(shared) }
    }
}

/// # Errors
/// When a method would be hedged that may not be executed twice; it is named.
fn check(policies: &PerMethod<Policy>, methods: &Methods) -> Result<(), Invalid> {
    let hedged = |policy: &Policy| matches!(policy.kind(), Kind::Hedge(_));
    let own = policies.methods().filter(|(_, policy)| hedged(policy)).map(|(path, _)| path);
    let mut own = own.filter(|path| !methods.safety(path).allows_repeating());
    let listed = || methods.unsafe_paths().find(|path| policies.get(path).is_some_and(hedged));
    match own.next().or_else(listed) {
        Some(path) => {
            let rule = "NO_SIDE_EFFECTS or IDEMPOTENT methods only, by the .proto";
            Err(Invalid::new("hedgingPolicy", path, rule))
        }
        None => Ok(()),
    }
}

// === impl RetryLayer ===

impl RetryLayer {
    /// The layer of [`RetrySettings::new`].
    pub fn new(policy: RetryPolicy, methods: Methods) -> Self {
        RetrySettings::new(policy, methods).layer()
    }

    /// Replaces the policies; calls that have begun keep theirs. What hedges by load have learned
    /// is kept only if nothing changes.
    ///
    /// # Errors
    /// When a method would be hedged that may not be executed twice; it is named.
    pub fn set_policies(&self, policies: PerMethod<Policy>) -> Result<(), Invalid> {
        check(&policies, &self.shared.methods)?;
        self.shared.policies.set(&policies);
        Ok(())
    }

    /// Sets the retry throttle with `(max_tokens, token_ratio)`: each failure takes a token, each
    /// success gives `token_ratio` back, and while half of `max_tokens` or less are left, nothing
    /// is retried or hedged; `None` turns it off. The share of tokens left is kept; calls that have
    /// begun keep the throttle they began with, or none.
    ///
    /// # Errors
    /// When `max_tokens` is not above 0 and at most 1000, or `token_ratio` is below 0.001.
    pub fn set_throttle(&self, throttle: Option<(f64, f64)>) -> Result<(), Invalid> {
        match throttle {
            Some((max_tokens, token_ratio)) => self.shared.throttle.set(max_tokens, token_ratio),
            None => {
                self.shared.throttle.unset();
                Ok(())
            }
        }
    }

    /// The methods that are known.
    pub fn methods(&self) -> &Methods {
        &self.shared.methods
    }

    /// The tokens of its throttle and its budget, now.
    ///
    /// ```
    /// # use cinchona_core::Methods;
    /// # use cinchona_retry::{RetryPolicy, RetrySettings};
    /// let settings = RetrySettings::new(RetryPolicy::default(), Methods::unknown());
    /// assert_eq!(settings.layer().counters().budget_tokens, Some((100.0, 100.0)));
    /// assert_eq!(settings.with_budget(None).layer().counters().budget_tokens, None);
    /// ```
    pub fn counters(&self) -> RetryCounters {
        let throttle = self.shared.throttle.now();
        RetryCounters {
            throttle_tokens: throttle.tokens(),
            throttle_max_tokens: throttle.max_tokens(),
            budget_tokens: self.shared.budget.tokens(Instant::now()),
        }
    }
}

impl<S: Clone> Layer<S> for RetryLayer {
    type Service = Retry<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let template = Arc::new(Mutex::new(inner.clone()));
        Retry { inner, template, shared: self.shared.clone() }
    }
}

// === impl Retry ===

impl<S, B> Service<http::Request<Body>> for Retry<S>
where
    S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = http::Response<ResponseBody>;
    type Error = BoxError;
    type Future = ResponseFuture<S>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let mode = self.shared.switch.mode();
        if mode == Mode::Off {
            return ResponseFuture::plain(self.inner.call(request));
        }
        let passing = Passing::begin();
        let began = passing.now();
        if mode == Mode::Shadow && Deadline::of(&request, began).is_err() {
            self.shared.switch.count();
            return ResponseFuture::plain(self.inner.call(request));
        }
        let (mut call, first) = match Call::new(request, &self.shared, mode, began) {
            Ok(call) => call,
            Err(status) => return ResponseFuture::failed(status),
        };
        let (attempt, template) = (self.inner.call(first), self.template.clone());
        if let Kind::Hedge(hedge) = call.policy.kind()
            && mode == Mode::Enforce
        {
            let hedge = hedge.clone();
            let race = Plan::race(&mut call, hedge, began);
            let first = First::Running(attempt);
            return ResponseFuture::further(executor::run(call, race, template, first));
        }
        ResponseFuture::first(attempt, call, template, mode)
    }
}
