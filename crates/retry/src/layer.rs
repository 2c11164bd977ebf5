//! The layer, and its service.

use crate::{
    call::Call,
    executor::{self, First},
    future::ResponseFuture,
    plan::Plan,
    shared::{Shared, Template},
    warnings::UnsafeToRepeat,
};
use bytes::Bytes;
use cinchona_core::{BoxError, Invalid, Methods, Mode, PerMethod, Rng, Switch};
use cinchona_plumbing::{Misplaced, Reloadable, ReplayBuffer, ResponseBody, clock::Passing};
use cinchona_policy::retry::{Budget, Kind, Policy, RetryPolicy, SharedBudget, Throttle};
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

/// Repeats calls if that can help, or sends them several times in parallel.
#[derive(Clone, Debug)]
pub struct Retry<S> {
    inner: S,
    template: Template<S>,
    shared: Arc<Shared>,
}

// === impl RetryLayer ===

impl RetryLayer {
    /// Retries every method by `policy`, and possibly executed requests only if `methods` allows
    /// it; with the default [`Budget`] and no throttle.
    pub fn new(policy: RetryPolicy, methods: Methods) -> Self {
        let shared = Shared {
            policies: Reloadable::new(PerMethod::from(Policy::from(policy))),
            methods,
            rng: Rng::from_os(),
            throttle: Throttle::default(),
            budget: SharedBudget::new(Some(Budget::default()), Instant::now()),
            buffer: ReplayBuffer::default(),
            switch: Switch::default(),
            retries_of_retries: false,
            explained: false,
            unsafe_to_repeat: UnsafeToRepeat::default(),
            misplaced: Misplaced::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Draws the jitter from `rng`, for reproducible runs.
    #[must_use]
    pub fn with_rng(self, rng: Rng) -> Self {
        self.with(|shared| shared.rng = rng)
    }

    /// Limits the attempts of all calls together; `None` lifts the limit.
    #[must_use]
    pub fn with_budget(self, budget: Option<Budget>) -> Self {
        self.with(|shared| shared.budget = SharedBudget::new(budget, Instant::now()))
    }

    /// Keeps requests for further attempts in `buffer`. Default 256 KiB a call, 16 MiB in all.
    #[must_use]
    pub fn with_buffer(self, buffer: ReplayBuffer) -> Self {
        self.with(|shared| shared.buffer = buffer)
    }

    /// Sets the switch that decides whether retries are made, only counted, or not considered.
    #[must_use]
    pub fn with_switch(self, switch: Switch) -> Self {
        self.with(|shared| shared.switch = switch)
    }

    /// Also retries in a handler that is serving a retry. By default only the first caller of a
    /// chain retries, as otherwise `n` callers make `4^n` attempts.
    #[must_use]
    pub fn with_retries_of_retries(self) -> Self {
        self.with(|shared| shared.retries_of_retries = true)
    }

    /// Adds the ledger to every call: a [`Ledger`](crate::Ledger) is in the extensions of a
    /// response even if the first attempt has succeeded, and in the details of a failure's status.
    ///
    /// Off by default: it costs a few allocations per call, and a server that passes on the
    /// failures of its clients would reveal to its own callers which servers it calls.
    #[must_use]
    pub fn explained(self) -> Self {
        self.with(|shared| shared.explained = true)
    }

    /// Gives each method its own policy, and methods without one a single attempt.
    ///
    /// # Errors
    /// As [`set_policies`](Self::set_policies).
    pub fn with_policies(self, policies: PerMethod<Policy>) -> Result<Self, Invalid> {
        let own = self.with(|shared| shared.policies = Reloadable::new(PerMethod::new()));
        own.set_policies(policies).map(|()| own)
    }

    /// Turns on the retry throttle of gRFC A6.
    ///
    /// # Errors
    /// As [`set_throttle`](Self::set_throttle).
    pub fn with_throttle(self, max_tokens: f64, token_ratio: f64) -> Result<Self, Invalid> {
        let own = self.with(|shared| shared.throttle = Throttle::default());
        own.set_throttle(Some((max_tokens, token_ratio))).map(|()| own)
    }

    /// Replaces the policies; calls that have begun keep theirs.
    ///
    /// # Errors
    /// When a method would be hedged that may not be executed twice; it is named.
    pub fn set_policies(&self, policies: PerMethod<Policy>) -> Result<(), Invalid> {
        if let Some(path) = self.hedged_without_safety(&policies) {
            let rule = "NO_SIDE_EFFECTS or IDEMPOTENT methods only, by the .proto";
            return Err(Invalid::new("hedgingPolicy", path, rule));
        }
        self.shared.policies.set(policies);
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

    /// The tokens left in the throttle; 0 while it is off.
    pub fn throttle_tokens(&self) -> f64 {
        self.shared.throttle.now().tokens()
    }

    /// The throttle's limit; `None` while it is off.
    pub fn throttle_max_tokens(&self) -> Option<f64> {
        self.shared.throttle.now().max_tokens()
    }

    /// The tokens in the pot of the [`Budget`], and their limit; `None` without a budget. The
    /// savings of methods in their own accounts are extra.
    ///
    /// ```
    /// # use cinchona_core::Methods;
    /// # use cinchona_retry::{Budget, RetryLayer, RetryPolicy};
    /// let layer = RetryLayer::new(RetryPolicy::default(), Methods::unknown());
    /// assert_eq!(layer.budget_tokens(), Some((100.0, 100.0)));
    /// assert_eq!(layer.with_budget(None).budget_tokens(), None);
    /// ```
    pub fn budget_tokens(&self) -> Option<(f64, f64)> {
        self.shared.budget.tokens(Instant::now())
    }

    fn hedged_without_safety<'a>(&'a self, policies: &'a PerMethod<Policy>) -> Option<&'a str> {
        let hedged = |policy: &Policy| matches!(policy.kind(), Kind::Hedge(_));
        let methods = &self.shared.methods;
        let own = policies.methods().filter(|(_, policy)| hedged(policy)).map(|(path, _)| path);
        let mut own = own.filter(|path| !methods.safety(path).allows_repeating());
        let listed = || methods.unsafe_paths().find(|path| policies.get(path).is_some_and(hedged));
        own.next().or_else(listed)
    }

    fn with(self, change: impl FnOnce(&mut Shared)) -> Self {
        let mut shared = Arc::unwrap_or_clone(self.shared);
        change(&mut shared);
        Self { shared: Arc::new(shared) }
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
        let (mut call, first) = match Call::begin(request, &self.shared, began) {
            Ok(begun) => begun,
            Err(status) => return ResponseFuture::failed(status),
        };
        let (attempt, template) = (self.inner.call(first), self.template.clone());
        if let Kind::Hedge(hedge) = call.policy.kind()
            && mode == Mode::Enforce
        {
            let hedge = hedge.clone();
            let race = Plan::race(&mut call, hedge, began);
            return ResponseFuture::boxed(executor::run(
                call,
                race,
                template,
                First::Running(attempt),
            ));
        }
        ResponseFuture::first(attempt, call, template, mode == Mode::Shadow)
    }
}
